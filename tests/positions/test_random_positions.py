"""Positions that training draws: what is drawn, and that nothing else draws."""

import collections

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_fixtures
from flax import nnx
from hypothesis import strategies as st

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.common import sharding
from pe_research.data import batches
from pe_research.evaluation import scoring
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions import base, random_positions
from pe_research.training import loop, train_step

DRAWN = [name for name, scheme in positions.SCHEMES.items() if scheme.draws_positions]
DIMS = base.Dims(width=32, heads=4, rotary=8, length=16)
# Pinned: what `skips` gives three rows of eight tokens, in three chunks, with a span of 40.
SKIPS = [
  [0, 0, 0, 0, 0, 0, 0, 17], [0, 0, 15, 15, 15, 26, 26, 26], [0, 0, 0, 12, 14, 14, 14, 14],
]  # fmt: skip


def build(name, **arguments):
  return positions.build({'name': name} | arguments, DIMS, nnx.Rngs(0))


@hypothesis.given(length=st.integers(1, 20), more=st.integers(0, 40), seed=st.integers(0, 99))
def test_a_subset_is_ascending_distinct_and_in_range(length, more, seed):
  got = np.asarray(random_positions.subset(jax.random.key(seed), 5, length, length + more))
  assert got.shape == (5, length) and got.dtype == np.int32
  assert (np.diff(got, axis=1) > 0).all() and got.min() >= 0 and got.max() < length + more


def test_every_subset_is_as_likely():
  got = np.asarray(random_positions.subset(jax.random.key(0), 6000, 2, 4))
  counts = collections.Counter(map(tuple, got.tolist()))
  assert len(counts) == 6
  assert all(abs(count - 1000) < 120 for count in counts.values())  # four standard deviations


@hypothesis.given(
  length=st.integers(2, 20), more=st.integers(0, 60), chunks=st.integers(2, 5),
  seed=st.integers(0, 99),
)  # fmt: skip
def test_chunks_skip_ahead_and_stay_in_range(length, more, chunks, seed):
  chunks = min(chunks, length)
  got = np.asarray(random_positions.skips(jax.random.key(seed), 8, length, length + more, chunks))
  steps = np.diff(got, axis=1)
  assert (got[:, 0] == 0).all() and (steps >= 0).all() and got.max() <= more
  assert ((steps > 0).sum(1) <= chunks - 1).all()


def test_two_chunks_reach_every_distance_up_to_the_target():
  pos = np.arange(16)[None] + np.asarray(random_positions.skips(jax.random.key(0), 4000, 16, 64, 2))
  seen = {int(b - a) for row in pos for a in row for b in row if b > a}
  assert seen == set(range(1, 64))
  skipped = pos[:, -1] - 15
  assert abs(skipped.mean() - 24) < 1 and skipped.min() == 0 and skipped.max() == 48


def places(chunks, rows, length, more, key, room=None):
  """Where in its text PoSE finds each token of a sequence, [rows, length + 1].

  `room` of the `more` tokens after a window are in its document; None: all.
  """
  text = np.broadcast_to(np.arange(length + 1 + more, dtype=np.int32), (rows, length + 1 + more))
  room = np.broadcast_to(more if room is None else room, rows)
  text = np.where(text < length + 1 + room[:, None], text, -1)
  dims = base.Dims(width=32, heads=4, rotary=8, length=length)
  given = {'name': 'pose', 'target_length': length + more, 'chunks': chunks}
  scheme = positions.build(given, dims, nnx.Rngs(0))
  assert scheme.reads_beyond == more
  pos = scheme.draw_positions(jnp.arange(length)[None], rows, key)
  place = scheme.draw_text(text[:, : length + 1], text[:, length + 1 :], key)
  return np.asarray(place), np.asarray(pos)


@hypothesis.given(
  sizes=st.sampled_from([(2, 1), (5, 60), (16, 48)]), chunks=st.integers(2, 4),
  seed=st.integers(0, 99), data=st.data(),
)  # fmt: skip
def test_text_and_positions_are_parted_at_the_same_places(sizes, chunks, seed, data):
  (length, more), rows = sizes, 8
  chunks = min(chunks, length)
  room = np.array(data.draw(st.lists(st.integers(0, more), min_size=rows, max_size=rows)))
  place, pos = places(chunks, rows, length, more, jax.random.key(seed), room)
  assert place.shape == (rows, length + 1) and place.dtype == np.int32
  text, skipped = np.diff(place, axis=1), np.diff(pos, axis=1)
  assert (place[:, 0] == 0).all() and (text >= 1).all() and (place[:, -1] <= length + room).all()
  assert (((text[:, :-1] > 1) | (skipped > 1)).sum(1) <= chunks - 1).all()
  assert (text[:, -1] == 1).all()  # the last target follows its input


def test_what_text_leaves_out_is_uniform_and_apart_from_what_positions_skip():
  rows, more = 9800, 48
  place, pos = places(2, rows, 16, more, jax.random.key(1))
  left, skipped = place[:, -1] - 16, pos[:, -1] - 15
  for drawn_ in (left, skipped):
    counts = np.bincount(drawn_, minlength=more + 1)
    assert len(counts) == 49 and (abs(counts - 200) < 70).all()  # five standard deviations
  assert abs(np.corrcoef(left, skipped)[0, 1]) < 0.04
  cut = (np.diff(place, axis=1) > 1).argmax(1)[left > 0]
  assert set(cut) == set(range(15))  # chunks of every size
  distances = {int(b - a) for row in place[:4000] for a in row for b in row if b > a}
  assert distances == set(range(1, 16 + more + 1))


def test_each_chunk_leaves_out_at_least_what_the_one_before_does():
  """Eq. 5 with three chunks and room for two: the first is uniform, the next on what is left."""
  rows = 9000
  place, _ = places(3, rows, 3, 2, jax.random.key(2))  # a token a chunk
  found = collections.Counter(map(tuple, (place[:, 1:3] - [1, 2]).tolist()))
  chances = {(0, 0): 9, (0, 1): 9, (0, 2): 9, (1, 1): 6, (1, 2): 6, (2, 2): 3}
  assert found.keys() == chances.keys()
  for pair, of in chances.items():
    assert abs(found[pair] - rows / of) < 5 * np.sqrt(rows / of)


def test_what_is_left_of_a_document_bounds_what_is_left_out():
  room = np.arange(6000) % 3
  place, _ = places(2, 6000, 4, 9, jax.random.key(4), room)
  for most in range(3):
    counts = np.bincount(place[room == most, -1] - 4)
    assert len(counts) == most + 1 and (abs(counts - 2000 / (most + 1)) < 130).all()


def test_whole_text_skips_positions_alone():
  found = random_positions.skips(jax.random.key(3), 3, 8, 40, 3)
  assert found.tolist() == SKIPS
  key, pos = jax.random.key(5), jnp.arange(16)[None]
  whole, parted = (build('pose', factor=4.0, text=text) for text in ('whole', 'parted'))
  assert (whole.reads_beyond, parted.reads_beyond) == (0, 48)
  for scheme in (whole, parted):
    want = pos + random_positions.skips(key, 7, 16, 64, 2)
    np.testing.assert_array_equal(scheme.draw_positions(pos, 7, key), want)


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
  config = run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'), name, **given)
  functional, key = FunctionalDecoder(config), jax.random.key(7)
  decoder = functional.bind(jax.jit(functional.init)())
  tokens = np.random.default_rng(0).integers(0, 256, (3, 17))
  pos = functional.scheme.draw_positions(jnp.arange(16)[None], 3, key)
  logits = decoder(tokens[:, :-1], Tokens(pos), Spec())
  want = -jax.nn.log_softmax(logits)[np.arange(3)[:, None], np.arange(16)[None], tokens[:, 1:]]
  total, count = train_step.token_loss(decoder, {'tokens': tokens}, Spec(), key)
  assert count == 48
  np.testing.assert_allclose(total, want.sum(), rtol=1e-5)


@pytest.mark.parametrize('name', DRAWN)
def test_evaluation_counts_on_from_0(name, tmp_path):
  given = {} if name == 'randomized' else {'position__factor': 4.0}
  config = run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'), name, **given)
  functional = FunctionalDecoder(config)
  params = jax.jit(functional.init)()
  scorer = scoring.Scorer(functional, config, sharding.mesh({'data': 1, 'fsdp': 1, 'tensor': 1}))
  windows = np.random.default_rng(0).integers(0, 256, (3, 17))
  logits = functional.bind(params)(windows[:, :-1], Tokens(jnp.arange(16)[None]), Spec())
  want = -jax.nn.log_softmax(logits)[np.arange(3)[:, None], np.arange(16)[None], windows[:, 1:]]
  np.testing.assert_allclose(scorer.nats(params, windows), want, rtol=2e-5)


def test_loss_is_that_of_the_chunks_put_together(tmp_path):
  config = run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'), 'pose')
  functional, key = FunctionalDecoder(config), jax.random.key(7)
  decoder, scheme = functional.bind(jax.jit(functional.init)()), functional.scheme
  text = np.random.default_rng(0).integers(0, 256, (3, 17 + scheme.reads_beyond), np.int32)
  place, pos = places(2, 3, 16, scheme.reads_beyond, key)
  assert (place[:, -1] > 16).all()
  tokens = np.stack([row[p] for row, p in zip(text, place, strict=True)])
  logits = decoder(tokens[:, :-1], Tokens(pos), Spec())
  want = -jax.nn.log_softmax(logits)[np.arange(3)[:, None], np.arange(16)[None], tokens[:, 1:]]
  batch = {'tokens': text[:, :17], 'beyond': text[:, 17:]}
  total, count = train_step.token_loss(decoder, batch, Spec(), key)
  assert count == 48
  np.testing.assert_allclose(total, want.sum(), rtol=1e-5)


@pytest.mark.parametrize(
  ('setting', 'value'), [('task', 'copy'), ('packing', True), ('needles', 0.5)]
)
def test_text_that_belongs_together_is_not_parted(setting, value, tmp_path, monkeypatch):
  config = run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'), 'pose')
  config['data'] |= {setting: value}
  monkeypatch.setattr(loop.texts, 'load', None)  # nothing is read before
  with pytest.raises(ValueError, match=rf"data\.{setting} is .*position\.text='whole'"):
    loop.train(config, tmp_path / 'run')
  with pytest.raises(ValueError, match=rf'unset data\.{setting}'):
    loop.train_all({tmp_path / 'run': config})
  config['position'] |= {'text': 'whole'}
  batches.check(config, FunctionalDecoder(config).scheme.reads_beyond)


@pytest.mark.usefixtures('without_proof')
@pytest.mark.parametrize('name', ['pose', pytest.param('randomized', marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_goes_on_with_what_its_steps_draw(name, tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  whole = run_fixtures.config(corpus, name, steps=8, run__save_every=4)
  loop.train(whole, tmp_path / 'whole')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.Stop, 'agreed', lambda self, step: step == 4)
    assert loop.train(whole, tmp_path / 'parted') is None
  loop.train(whole, tmp_path / 'parted')
  assert run_fixtures.losses(tmp_path / 'parted') == run_fixtures.losses(tmp_path / 'whole')
