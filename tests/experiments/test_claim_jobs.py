"""Jobs of claims: each does something of its own, and a file of them is what was planned."""

import math
import re

import jax
import pytest
import run_fixtures

from experiments import claims
from experiments.studies import runner, scales
from launch import job
from pe_research.attention.spec import Spec
from pe_research.data import batches
from pe_research.model.functional import FunctionalDecoder
from pe_research.training import train_step

SEEDS = 2


@pytest.mark.parametrize('scale', scales.SCALES)
def test_jobs_of_all_claims_are_written_and_read(scale, tmp_path):
  every = list(claims.CLAIMS.values())
  planner, _ = runner.prepare(every, scales.SCALES[scale], SEEDS, tmp_path / 'runs')
  jobs = planner.jobs()
  assert sum(one.continues for one in jobs) >= SEEDS  # measures what its training left
  job.write(tmp_path / 'jobs.json', jobs)
  assert job.read(tmp_path / 'jobs.json') == jobs


def taken(config) -> float:
  """Bytes of a chip that trains alone: state, gradients, and what a part of a step keeps."""
  functional, spec = FunctionalDecoder(config), Spec(**config['attention'])
  rows = config['optimizer']['batch'] // config['optimizer']['accumulate']
  part = lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)
  params, key = jax.eval_shape(functional.init), jax.random.key(0)

  def back(params, batch):
    loss = lambda p: train_step.token_loss(functional.bind(p), batch, spec, key)[0]
    return jax.vjp(loss, params)[1]

  kept = jax.eval_shape(back, params, jax.tree.map(part, batches.shapes(config, 0)))
  size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
  return size(kept) + 4 * size(params)


@pytest.mark.spread(3)
@pytest.mark.parametrize('claim', ['C01', 'C03', 'C31'])
def test_a_run_of_the_accelerators_scale_fits_a_small_chip(claim, tmp_path):
  planner, _ = runner.prepare([claims.CLAIMS[claim]], scales.ACCELERATOR, 1, tmp_path)
  kinds = {}
  for node in planner.nodes.values():
    if node.trains:
      kinds[node.config['length'], node.config['position']['name']] = node.config
  assert len(kinds) >= 1
  for config in kinds.values():
    assert 1e9 < taken(config) < 0.8 * 16e9


def test_the_guide_to_google_cloud_has_the_claims_own_numbers(tmp_path):
  claim = claims.CLAIMS['C01']
  planner, _ = runner.prepare([claim], scales.ACCELERATOR, claim.fewest_seeds, tmp_path)
  jobs = planner.jobs()
  trained = sum(not one.continues for one in jobs)
  guide = (run_fixtures.ROOT / 'launch' / 'GOOGLE_CLOUD.md').read_text()
  assert f'{trained} models of 12 layers' in guide and f'{trained} runs are' in guide
  assert f'# {len(jobs)} waiting: {trained} trainings' in guide
  own = int(re.search(r'^jobs = (\d+)', guide, re.MULTILINE)[1])
  words = {5: 'five', 6: 'six', 7: 'seven', 8: 'eight'}
  assert f'This requests {words[math.ceil(len(jobs) / own)]} machines' in guide
