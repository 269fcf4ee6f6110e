"""What a scorer changes about attention, against inputs that are changed instead."""

import jax
import numpy as np
import pytest
import run_fixtures

from pe_research.common import sharding
from pe_research.evaluation import scoring
from pe_research.model.functional import FunctionalDecoder


@pytest.fixture(scope='module')
def ask(tmp_path_factory):
  """Losses of a model of one layer without positions, whose targets depend on keys alone."""
  corpus = run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')
  config = run_fixtures.config(corpus, 'nope', model__layers=1)
  functional = FunctionalDecoder(config)
  params = jax.jit(functional.init)()
  scorer = scoring.Scorer(functional, config, sharding.mesh({'data': 1, 'fsdp': 1, 'tensor': 1}))
  return lambda *given: scorer.nats(params, *given)


WINDOWS = np.random.default_rng(0).integers(0, 256, (3, 25))


@pytest.mark.parametrize('seen', [1, 5, 24, 40])
def test_a_window_of_one_layer_is_a_crop(ask, seen):
  cropped = ask(WINDOWS[:, -min(seen, 24) - 1 :], 1)
  np.testing.assert_allclose(ask(WINDOWS, 1, 1.0, seen), cropped, rtol=1e-5)


def test_a_query_keeps_the_keys_right_before_it(ask):
  whole = ask(WINDOWS, None, 1.0, 4)
  for end in (4, 11, 24):
    np.testing.assert_allclose(
      whole[:, end - 1], ask(WINDOWS[:, end - 4 : end + 1], 1)[:, 0], rtol=1e-5
    )
