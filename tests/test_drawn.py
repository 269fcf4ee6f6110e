"""Positions that training draws: what is drawn, and that nothing else draws."""

import collections

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from flax import nnx
from hypothesis import strategies as st

from pe_research import attend, positions, scoring, sharding, train
from pe_research.blueprint import Blueprint
from pe_research.positions import base, drawn

DRAWN = [name for name, scheme in positions.SCHEMES.items() if scheme.draws_positions]
DIMS = base.Dims(width=32, heads=4, rotary=8, length=16)


def build(name, **arguments):
  return positions.build({'name': name} | arguments, DIMS, nnx.Rngs(0))


@hypothesis.given(length=st.integers(1, 20), more=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_subset_is_ascending_distinct_and_in_range(length, more, seed):
  got = np.asarray(drawn.subset(jax.random.key(seed), 5, length, length + more))
  assert got.shape == (5, length) and got.dtype == np.int32
  assert (np.diff(got, axis=1) > 0).all() and got.min() >= 0 and got.max() < length + more


def test_every_subset_is_as_likely():
  got = np.asarray(drawn.subset(jax.random.key(0), 6000, 2, 4))
  counts = collections.Counter(map(tuple, got.tolist()))
  assert len(counts) == 6
  assert all(abs(count - 1000) < 120 for count in counts.values())  # four standard deviations


@hypothesis.given(
  length=st.integers(2, 20), more=st.integers(0, 60), chunks=st.integers(2, 5),
  seed=st.integers(0, 99),
)  # fmt: skip
def test_chunks_skip_ahead_and_stay_in_range(length, more, chunks, seed):
  chunks = min(chunks, length)
  got = np.asarray(drawn.skips(jax.random.key(seed), 8, length, length + more, chunks))
  steps = np.diff(got, axis=1)
  assert (got[:, 0] == 0).all() and (steps >= 0).all() and got.max() <= more
  assert ((steps > 0).sum(1) <= chunks - 1).all()


def test_two_chunks_reach_every_distance_up_to_the_target():
  pos = np.arange(16)[None] + np.asarray(drawn.skips(jax.random.key(0), 4000, 16, 64, 2))
  seen = {int(b - a) for row in pos for a in row for b in row if b > a}
  assert seen == set(range(1, 64))
  skipped = pos[:, -1] - 15
  assert abs(skipped.mean() - 24) < 1 and skipped.min() == 0 and skipped.max() == 48


def test_schemes_draw_in_their_range():
  pos, key = jnp.arange(16)[None], jax.random.key(0)
  ranges = {
    'randomized': build('randomized', span=40),
    'rand_pos': build('rand_pos', factor=4.0),
    'pose': build('pose', factor=4.0),
  }
  assert ranges.keys() == set(DRAWN)
  for name, scheme in ranges.items():
    got = np.asarray(scheme.draw_positions(pos, 2000, key))
    assert got.shape == (2000, 16) and (np.diff(got, axis=1) > 0).all()
    assert got.min() == 0 and got.max() == (39 if name == 'randomized' else 63)
  few = build('pose', factor=1.0).draw_positions(pos, 5, key)
  np.testing.assert_array_equal(few, np.tile(np.arange(16), (5, 1)))


@pytest.mark.parametrize('name', DRAWN)
def test_loss_is_that_of_the_drawn_positions(name, tmp_path):
  given = {} if name == 'randomized' else {'position__factor': 4.0}
  config = small.config(small.write_corpus(tmp_path / 'text'), name, **given)
  blueprint, key = Blueprint(config), jax.random.key(7)
  decoder = blueprint.bind(jax.jit(blueprint.init)())
  tokens = np.random.default_rng(0).integers(0, 256, (3, 17))
  pos = blueprint.scheme.draw_positions(jnp.arange(16)[None], 3, key)
  logits = decoder(tokens[:, :-1], attend.Tokens(pos), attend.Spec())
  want = -jax.nn.log_softmax(logits)[np.arange(3)[:, None], np.arange(16)[None], tokens[:, 1:]]
  total, count = train.token_loss(decoder, {'tokens': tokens}, attend.Spec(), key)
  assert count == 48
  np.testing.assert_allclose(total, want.sum(), rtol=1e-5)


@pytest.mark.parametrize('name', DRAWN)
def test_evaluation_counts_on_from_0(name, tmp_path):
  given = {} if name == 'randomized' else {'position__factor': 4.0}
  config = small.config(small.write_corpus(tmp_path / 'text'), name, **given)
  blueprint = Blueprint(config)
  params = jax.jit(blueprint.init)()
  scorer = scoring.Scorer(blueprint, config, sharding.mesh({'data': 1, 'fsdp': 1, 'tensor': 1}))
  windows = np.random.default_rng(0).integers(0, 256, (3, 17))
  logits = blueprint.bind(params)(
    windows[:, :-1], attend.Tokens(jnp.arange(16)[None]), attend.Spec()
  )
  want = -jax.nn.log_softmax(logits)[np.arange(3)[:, None], np.arange(16)[None], windows[:, 1:]]
  np.testing.assert_allclose(scorer.nats(params, windows), want, rtol=2e-5)


def test_a_run_that_is_stopped_goes_on_with_the_positions_of_its_steps(tmp_path):
  corpus = small.write_corpus(tmp_path / 'text')
  whole = small.config(corpus, 'randomized', steps=8, run__save_every=4)
  train.train(whole, tmp_path / 'whole')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train.Stop, 'agreed', lambda self, step: step == 4)
    assert train.train(whole, tmp_path / 'parted') is None
  train.train(whole, tmp_path / 'parted')
  assert small.losses(tmp_path / 'parted') == small.losses(tmp_path / 'whole')
