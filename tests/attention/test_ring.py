"""A sequence that devices share is read as one device reads it, whatever the scheme."""

import json

import context_case
import pytest
import run_fixtures
from jax.sharding import AbstractMesh

from pe_research.attention import ring
from pe_research.attention.spec import Spec
from pe_research.common import sharding

EIGHT = '--xla_force_host_platform_device_count=8'
# A bias that is learned, one under a window, a rotation, and one by the length of the text.
FIRST = ('t5', 'alibi, window', 'rope, mla', 'dynamic_yarn')
OTHERS = [case for case in (*context_case.CASES, 't5, long') if case not in FIRST]


def measured(cases):
  done = run_fixtures.run('tests/context_case.py', *cases, timeout=900, XLA_FLAGS=EIGHT)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.fixture(scope='module')
def first():
  return measured([*FIRST, 'memory'])


@pytest.fixture(scope='module')
def others():
  return measured(OTHERS)


def check(found):
  assert max(found['all'], found['last']) < 2e-5 and found['scale'] > 0.05


@pytest.mark.parametrize('case', FIRST)
def test_shared_sequences_equal_whole_ones(case, first):
  check(first[case])


@pytest.mark.slow
@pytest.mark.parametrize('case', OTHERS)
def test_shared_sequences_of_every_scheme_equal_whole_ones(case, others):
  check(others[case])


def test_a_device_holds_its_share_of_a_long_sequence(first):
  held = {int(devices): size for devices, size in first['memory'].items()}
  assert sorted(held) == [1, 2, 4, 8]
  assert held[1] > 1.7 * held[2] > 1.7**2 * held[4] > 1.7**3 * held[8]


def spec(implementation='tiled', devices=4):
  mesh = AbstractMesh((1, 1, devices, 1), sharding.AXES)
  return Spec(implementation=implementation, mesh=mesh)


def test_what_cannot_be_shared_is_refused_by_name():
  ring.check(spec(), 64)
  ring.check(spec('dense', 1), 63)
  with pytest.raises(ValueError, match=r'63 tokens do not split over run\.mesh\.context=4'):
    ring.check(spec(), 63)
  with pytest.raises(ValueError, match="='tiled'; it is 'dense'"):
    ring.check(spec('dense'), 64)


def test_training_and_unknown_axes_are_refused(tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  command = ('-m', 'pe_research.main', *run_fixtures.flags(corpus), f'--workdir={tmp_path / "run"}')
  done = run_fixtures.run(*command, '--config.run.mesh.context=8', XLA_FLAGS=EIGHT)
  assert done.returncode == 2 and 'sequences are shared in evaluation alone' in done.stderr
  command = ('-m', 'pe_research.evaluate', f'--workdir={tmp_path / "run"}')
  done = run_fixtures.run(*command, '--mesh=contxt=8')
  assert done.returncode == 2 and "'contxt=8' is not understood" in done.stderr
