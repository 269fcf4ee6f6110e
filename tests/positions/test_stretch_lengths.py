"""Schemes that follow the length of a document: where they change, and what a document spans."""

import decoder_fixtures as fixtures
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from pe_research import positions
from pe_research.attention.tokens import Tokens
from pe_research.positions import base as base_lib
from pe_research.positions import fixed_point

L, R = 100, 16
POS = np.r_[0:8, 40, 99, 1000]
LONG, SHORT = np.geomspace(1, 8, R // 2), np.geomspace(1, 1.5, R // 2)
SEARCHED = {'factor': 8, 'long_factor': LONG, 'short_factor': SHORT}
# Arguments, and the first length that is encoded otherwise than those below it.
FOLLOWING = {
  'longrope': (SEARCHED | {'temperature': 'su'}, L + 1),
  'longrope, early': (SEARCHED | {'switch_length': 40}, 41),
  'longrope, first tokens': (SEARCHED | {'start_tokens': 5, 'short_start_tokens': 2}, L + 1),
  'longrope, first tokens alone': (SEARCHED | {'short_factor': LONG, 'start_tokens': 5}, L + 1),
  'dynamic_ntk': ({}, L + 1),
  'dynamic_ntk, of code': ({'factor': 2.5}, L + 1),
  'dynamic_yarn': ({'beta_fast': 8.0}, L + 1),
  'dynamic_yarn, tuned': ({'factor': 1.25, 'beta_fast': 8.0}, 126),
  'dynamic_yarn, deepseek': ({'mscale': 0.7, 'mscale_all_dim': 1.2, 'beta_fast': 8.0}, L + 1),
}
each_following = pytest.mark.parametrize('name', FOLLOWING)
AROUND = (-2, -1, 0, 1, 2, 300)
tokens = st.integers(1, 5 * L)


def build(name, **arguments):
  dims = base_lib.Dims(width=32, heads=4, rotary=R, length=L)
  return positions.build({'name': name, 'base': 1000.0} | arguments, dims, nnx.Rngs(0))


def following(name):
  return build(name.split(',')[0], **FOLLOWING[name][0])


def turn(scheme, length, pos=POS):
  """Queries [B or 1, N, 1, R] at positions [N] or [B, N], all of them one vector."""
  pos = jnp.atleast_2d(jnp.asarray(pos, jnp.int32))
  q = np.random.default_rng(0).normal(size=R).astype(np.float32)
  return scheme.query(jnp.broadcast_to(q, (*pos.shape, 1, R)), pos, length)


def encoding(scheme, length):
  return (
    *scheme.frequencies(length),
    float(scheme.logit_scale(None, length)),
    *turn(scheme, length),
  )


@each_following
def test_what_changes_and_where(name):
  scheme, edge = following(name), FOLLOWING[name][1]
  assert scheme.depends_on_length
  first = turn(scheme, 1)
  for length in (2, edge // 2, edge - 2, edge - 1):
    np.testing.assert_array_equal(turn(scheme, length), first)
    assert scheme.logit_scale(None, length) == scheme.logit_scale(None, 1)
    assert scheme.regime(length) == scheme.regime(1) != scheme.regime(edge)
  assert np.abs(turn(scheme, edge) - first).max() > 1e-3


def test_longrope_has_long_factors_past_the_switch_alone():
  short, long = (build('longrope', factor=8, long_factor=f) for f in (SHORT, LONG))
  for at in (40, L):
    scheme = build('longrope', **SEARCHED, switch_length=at)
    for length, of in ((1, short), (at - 1, short), (at, short), (at + 1, long), (5 * L, long)):
      np.testing.assert_array_equal(turn(scheme, length), turn(of, None))
  assert build('longrope', **SEARCHED).switch_length == L


@each_following
def test_a_length_may_be_known_only_in_the_program(name):
  scheme, edge = following(name), FOLLOWING[name][1]
  lengths = [edge + step for step in AROUND]
  turned = jax.jit(lambda pos, length: turn(scheme, length, pos))
  scale = jax.jit(lambda length: jnp.asarray(scheme.logit_scale(None, length)))
  want = np.concatenate([turn(scheme, length) for length in lengths])
  scales = np.array([[scheme.logit_scale(None, length)] for length in lengths])
  # A row for each length, and one row in which each token's document has its own.
  rows = np.array(lengths, np.int32)[:, None]
  got = turned(np.tile(POS, (len(lengths), 1)), rows)
  fixtures.close(got, want, 2e-6)
  fixtures.close(np.broadcast_to(scale(rows), scales.shape), scales, 1e-6)
  pos, row = np.tile(POS, len(lengths))[None], np.repeat(rows, len(POS))[None]
  fixtures.close(turned(pos, row)[0], want.reshape(-1, 1, R), 2e-6)
  fixtures.close(np.broadcast_to(scale(row), row.shape), np.repeat(scales, len(POS))[None], 1e-6)


@each_following
@hypothesis.given(length=tokens)
@hypothesis.settings(max_examples=20)
def test_frequencies_in_the_program_are_those_of_numpy(name, length):
  scheme = following(name)
  with fixed_point.float64():
    got = scheme.frequencies(jnp.full((1, 1), length))
    got = np.asarray(jnp.broadcast_to(got, (1, 1, R // 2))[0, 0])
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, scheme.frequencies(length), rtol=1e-14)


@each_following
@pytest.mark.parametrize('jitted', [False, True])
def test_a_long_call_leaves_nothing_behind_for_a_short_one(name, jitted):
  run = lambda scheme: jax.jit(lambda n: turn(scheme, n)) if jitted else lambda n: turn(scheme, n)
  used, length = run(following(name)), lambda n: jnp.full((1, 1), n) if jitted else n
  used(length(5 * L))
  short = used(length(L // 2))
  np.testing.assert_array_equal(short, run(following(name))(length(L // 2)))


@each_following
@hypothesis.given(pair=st.tuples(tokens, tokens).map(sorted))
@hypothesis.settings(max_examples=30)
def test_one_regime_is_one_encoding(name, pair):
  scheme, (a, b) = following(name), pair
  same = bool(scheme.regime(a) == scheme.regime(b))
  traced = scheme.regime(jnp.asarray(pair)[:, None])
  assert bool(traced[0, 0] == traced[1, 0]) == same
  if same:
    np.testing.assert_array_equal(scheme.frequencies(a), scheme.frequencies(b))
    assert scheme.logit_scale(None, a) == scheme.logit_scale(None, b)
    np.testing.assert_array_equal(turn(scheme, a), turn(scheme, b))
  else:
    assert np.abs(turn(scheme, a) - turn(scheme, b)).max() > 0


@hypothesis.given(starts=st.tuples(*[st.integers(0, 50)] * 2), length=tokens)
@hypothesis.settings(max_examples=20)
def test_the_first_tokens_turn_as_in_rope(starts, length):
  long, short = starts
  scheme = build('longrope', **SEARCHED, start_tokens=long, short_start_tokens=short)
  bare = turn(build('longrope', **SEARCHED), length, np.arange(60))
  own = turn(build('rope'), None, np.arange(60))
  first = np.arange(60)[:, None, None] < (short if length <= L else long)
  want = np.where(first, own, bare)
  np.testing.assert_array_equal(turn(scheme, length, np.arange(60)), want)
  traced = turn(scheme, jnp.full((1, 60), length), np.arange(60))
  fixtures.close(traced, want, 2e-6)
  pos = jnp.arange(60)[None]
  keys = scheme.key(jnp.ones((1, 60, 2, R)), pos, length)
  np.testing.assert_array_equal(keys, scheme.query(jnp.ones((1, 60, 2, R)), pos, length))


@pytest.mark.parametrize(
  'short, starts, relative, follows',
  [
    (None, (None, None), True, False),
    (None, (2, None), False, False),
    (SHORT, (None, None), True, True),
    (SHORT, (2, None), False, True),
    (SHORT, (None, 2), False, True),
    (LONG, (None, None), True, False),
    (LONG, (None, 2), False, True),
    (LONG, (2, 2), False, False),
  ],
)
def test_longrope_knows_whether_it_is_relative(short, starts, relative, follows):
  given = {'short_factor': short, 'start_tokens': starts[0], 'short_start_tokens': starts[1]}
  scheme = build('longrope', factor=8, long_factor=LONG, **given)
  assert (scheme.relative, scheme.depends_on_length) == (relative, follows)
  scores = {}
  for length in (L, L + 1):
    for begin in (0, 30):
      turned = turn(scheme, length, begin + np.arange(9))
      scores[length, begin] = np.einsum('bqhr,bkhr->qk', turned, turned)
  moved = [np.abs(scores[n, 0] - scores[n, 30]).max() > 1e-3 for n in (L, L + 1)]
  assert any(moved) == (not relative)
  assert (np.abs(scores[L, 0] - scores[L + 1, 0]).max() > 1e-3) == follows


def spans(pos, segments):
  """The definition: of a token, the positions from the first to the last of its document."""
  out = np.zeros_like(pos)
  for b, i in np.ndindex(*pos.shape):
    same = [int(pos[b, j]) for j in range(pos.shape[1]) if segments[b, j] == segments[b, i]]
    out[b, i] = max(same) - min(same) + 1
  return out


SIZE = 13
lengths_of = jax.jit(lambda pos, segments: Tokens(pos, segments).lengths())
# Tokens of a row's documents and the position at which each begins; 0 or more of padding before.
packed = st.tuples(
  st.integers(0, SIZE - 1), st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3000)), max_size=5)
)


@hypothesis.given(rows=st.tuples(packed, packed))
@hypothesis.settings(max_examples=60)
def test_what_a_document_spans(rows):
  pos, segments = np.zeros((2, 2, SIZE), np.int32)
  for b, (pad, documents) in enumerate(rows):
    at = pad
    for number, (size, begin) in enumerate(documents):
      end = min(at + size, SIZE)
      pos[b, at:end], segments[b, at:end] = begin + np.arange(end - at), number + 1
      at = end
  true = segments > 0
  np.testing.assert_array_equal(lengths_of(pos, segments)[true], spans(pos, segments)[true])


@hypothesis.given(pads=st.tuples(*[st.integers(0, SIZE - 1)] * 2), begin=st.integers(0, 3000))
def test_rows_may_share_their_positions(pads, begin):
  pos = begin + jnp.arange(SIZE)[None]
  assert Tokens(pos).lengths().tolist() == [[SIZE]]
  segments = (np.arange(SIZE) >= np.array(pads)[:, None]).astype(np.int32)
  got = lengths_of(pos, segments)
  for row, pad in zip(got, pads, strict=True):
    assert set(row[pad:].tolist()) == {SIZE - pad}


def test_a_span_known_beforehand_is_a_constant():
  assert Tokens.contiguous(7).lengths() == 7
  seen = []
  jax.jit(lambda at: seen.append(at.lengths()))(Tokens.contiguous(7))
  assert seen == [7]
  part = Tokens.contiguous(7).slice(2, 3)
  assert part.lengths().tolist() == [[3]]
