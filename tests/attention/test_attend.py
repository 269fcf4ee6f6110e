"""Attention against a NumPy float64 loop, and tiles against dense: values, gradients, memory."""

import dataclasses
import functools
from collections.abc import Callable

import decoder_fixtures as fixtures
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from pe_research import positions
from pe_research.attention import attend
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import transformer
from pe_research.positions import base

pytestmark = pytest.mark.usefixtures('extra_schemes')
IN_XLA = ('dense', 'tiled')
HERE = (*IN_XLA, 'interpreted')
WIDTH, VALUES, HEADS = 6, 5, 4
SLOPES = np.array([0.7, 0.2, -0.1, 0.05], np.float32)
# queries, keys, offset, groups, tile, window, documents
CASES = {
  'one tile': (7, 7, 0, 4, 16, None, False),
  'mha': (13, 13, 0, 4, 5, None, False),
  'gqa': (16, 16, 0, 2, 4, None, False),
  'mqa': (11, 11, 0, 1, 4, None, False),
  'window': (13, 13, 0, 2, 4, 6, False),
  'narrow window': (17, 17, 0, 2, 5, 3, False),
  'documents': (13, 13, 0, 4, 5, None, True),
  'documents and window': (14, 14, 0, 1, 3, 4, True),
  'offset': (3, 17, 14, 2, 4, None, False),
  'offset and room': (5, 19, 9, 2, 4, None, True),
  'offset and window': (7, 17, 8, 4, 3, 5, False),
  'one query': (1, 9, 8, 1, 4, None, False),
}
each_case = pytest.mark.parametrize('case', CASES.values(), ids=CASES)


def inputs(queries, keys, offset, groups, documents, seed=0):
  """q, k, v, and where the queries and keys stand: two documents a row, cut differently."""
  draw = np.random.default_rng(seed)
  normal = lambda *shape: draw.normal(size=shape).astype(np.float32)
  q, k = normal(2, queries, HEADS, WIDTH), normal(2, keys, groups, WIDTH)
  v = normal(2, keys, groups, VALUES)
  pos = np.sort(draw.integers(0, 40, size=(2, keys))).astype(np.int32)
  segments = 1 + (np.arange(keys) >= np.array([[keys // 2], [keys // 3]])).astype(np.int32)
  cut = lambda x: x[:, offset : offset + queries]
  if not documents:
    return q, k, v, Tokens(cut(pos)), Tokens(pos)
  return q, k, v, Tokens(cut(pos), cut(segments)), Tokens(pos, segments)


def slope_bias(slopes, q_pos, k_pos):
  """A bias with parameters: minus slope times distance, [B, H, Lq, Lk]."""
  distance = q_pos[:, None, :, None] - k_pos[:, None, None, :]
  return -slopes[None, :, None, None] * jnp.abs(distance).astype(jnp.float32)


@dataclasses.dataclass
class Biased:
  """What `attend` asks of a scheme; `slope_bias` is a line over the keys that a query may see."""

  bias: Callable
  slopes: jax.Array | None = None
  sees: int | None = None

  def distance_bias(self):
    return base.DistanceBias(-self.slopes, jnp.zeros((HEADS, 0)), ())


@functools.partial(jax.jit, static_argnames='spec')
def run(slopes, given, offset, spec):
  """Attention of what `inputs` gives."""
  bias = Biased(functools.partial(slope_bias, slopes), slopes)
  return attend.attend(*given, scheme=bias, spec=spec, offset=offset)


@functools.partial(jax.jit, static_argnames='spec')
def pull_back(cotangent, slopes, given, offset, spec):
  """Output, and gradients with respect to slopes, q, k and v: one program for both tests."""
  q, k, v, *at = given
  out, pull = jax.vjp(lambda s, *qkv: run(s, (*qkv, *at), offset, spec), slopes, q, k, v)
  return out, pull(cotangent)


def reference(q, k, v, queries, keys, offset, window):
  """The definition, one query of one head at a time, in float64."""
  q, k, v = (x.astype(np.float64) for x in (q, k, v))
  out = np.zeros((*q.shape[:3], v.shape[-1]))
  for b, i, h in np.ndindex(*q.shape[:3]):
    g = h * k.shape[2] // HEADS
    logits = {}
    for j in range(i + offset + 1):
      near = window is None or i + offset - j < window
      same = queries.segments is None or queries.segments[b, i] == keys.segments[b, j]
      if near and same:
        distance = abs(int(queries.pos[b, i]) - int(keys.pos[b, j]))
        logits[j] = q[b, i, h] @ k[b, j, g] - float(SLOPES[h]) * distance
    weights = np.array(list(logits.values()))
    weights = np.exp(weights - weights.max())
    out[b, i, h] = weights / weights.sum() @ v[b, list(logits), g]
  return out


def both_ways(case):
  """Output and gradients of each implementation."""
  queries, keys, offset, groups, tile, window, documents = case
  given = inputs(queries, keys, offset, groups, documents)
  cotangent = np.random.default_rng(1).normal(size=(2, queries, HEADS, VALUES)).astype(np.float32)
  specs = [Spec(name, window, tile) for name in IN_XLA]
  return given, [pull_back(cotangent, SLOPES, given, offset, spec) for spec in specs]


@each_case
def test_the_definition(case):
  given, results = both_ways(case)
  _, _, offset, _, _, window, _ = case
  want = reference(*given, offset, window)
  for out, _ in results:
    fixtures.close(out, want, 2e-5)


@each_case
def test_tiles_give_the_gradients_of_dense(case):
  _, [(_, dense), (_, tiled)] = both_ways(case)
  for got, want in zip(tiled, dense, strict=True):
    fixtures.close(got, want, 5e-5)
    assert np.abs(want).max() > 1e-2


@pytest.mark.spread(5)
@each_case
def test_parts_of_the_queries_give_what_all_at_once_give(case, monkeypatch):
  queries, keys, offset, groups, _, window, documents = case
  given = inputs(queries, keys, offset, groups, documents)
  q, k, v, *at = given
  cotangent = np.random.default_rng(1).normal(size=(2, queries, HEADS, VALUES)).astype(np.float32)
  spec, sizes = Spec('dense', window), []
  whole = pull_back(cotangent, SLOPES, given, offset, spec)
  monkeypatch.setattr(attend, 'MIN_CHUNK', 2)
  one = attend._dense_part
  part = lambda bias, spec, given: sizes.append(given.k.shape[2]) or one(bias, spec, given)
  monkeypatch.setattr(attend, '_dense_part', part)
  constant = lambda s, *qkv: run.__wrapped__(s, (*qkv, *at), offset, spec)
  out, pull = jax.vjp(constant, SLOPES, q, k, v)
  parts = -(-queries // max(2, -(-queries // attend.QUERY_CHUNKS)))
  assert len(sizes) == parts and sizes[-1] == offset + queries
  jax.tree.map(functools.partial(fixtures.close, tolerance=2e-5), (out, pull(cotangent)), whole)


@hypothesis.given(
  keys=st.integers(1, 24),
  short=st.integers(0, 23),
  room=st.integers(0, 5),
  tile=st.integers(1, 9),
  window=st.none() | st.integers(1, 12),
  documents=st.booleans(),
)
@hypothesis.settings(max_examples=12)
def test_any_sizes(keys, short, room, tile, window, documents):
  offset = min(short, keys - 1)
  queries = max(1, keys - offset - room)
  given = inputs(queries, keys, offset, 2, documents)
  got = run(SLOPES, given, offset, Spec('tiled', window, tile))
  fixtures.close(got, reference(*given, offset, window), 2e-5)


def test_t5_table_gradient_against_finite_differences():
  dims = base.Dims(width=8, heads=HEADS, rotary=WIDTH, length=32)
  arguments = {'name': 't5', 'buckets': 6, 'max_distance': 12, 'init_std': 1.0}
  scheme = positions.build(arguments, dims, nnx.Rngs(0))
  q, k, v, *at = inputs(13, 13, 0, 2, False)
  out = np.random.default_rng(2).normal(size=(2, 13, HEADS, VALUES)).astype(np.float32)

  @functools.partial(jax.jit, static_argnums=1)
  def value(table, name):
    placed = nnx.clone(scheme)
    placed.table[...] = table
    spec = Spec(name, tile=4)
    return (attend.attend(q, k, v, *at, scheme=placed, spec=spec) * out).sum()

  table = scheme.table[...]
  grads = [jax.grad(value)(table, name) for name in IN_XLA]
  fixtures.close(grads[1], grads[0], 5e-5)
  nudge = 2e-2
  for at_entry in np.ndindex(*table.shape):
    up, down = (value(table.at[at_entry].add(s * nudge), 'dense') for s in (1, -1))
    assert abs((up - down) / (2 * nudge) - grads[1][at_entry]) < 2e-3
  assert np.abs(grads[1]).min() > 5e-3


def largest(function, *arguments):
  """Elements of the largest array that any equation makes."""
  jaxpr = jax.make_jaxpr(function)(*arguments)
  return max(v.aval.size for e in fixtures.equations(jaxpr) for v in e.outvars)


@pytest.mark.parametrize('window, documents', [(None, False), (20, True)])
def test_tiles_never_hold_all_logits(window, documents):
  sizes = {}
  for name in IN_XLA:
    for length in (128, 256):
      q, k, v, *at = inputs(length, length, 0, 2, documents)
      spec = Spec(name, window, tile=16)
      value = lambda s, *qkv, at=at, spec=spec: run(s, (*qkv, *at), 0, spec).sum()
      sizes[name, length] = largest(jax.grad(value, argnums=(0, 1, 2, 3)), SLOPES, q, k, v)
      assert sizes[name, length] >= largest(value, SLOPES, q, k, v)
  # A [2, H, 128, 128] array is what dense makes; tiles stay linear in the length.
  assert sizes['dense', 128] == 2 * HEADS * 128**2
  assert sizes['tiled', 128] < 128**2
  assert sizes['tiled', 256] <= 2 * sizes['tiled', 128]


@pytest.mark.kinds
@pytest.mark.parametrize('name', fixtures.NAMES)
def test_training_in_tiles_never_holds_all_logits(name):
  length = 256
  config = fixtures.config(remat='block', mlp_width=48)
  position = {k: None if k == 'train_length' else v for k, v in fixtures.position(name).items()}
  decoder = transformer.Decoder(config, position, length, key=jax.random.key(0))
  tokens, at = np.zeros((1, length), np.int32), Tokens.contiguous(length)
  sizes = {}
  for implementation in IN_XLA:
    spec = Spec(implementation, tile=8)
    value = lambda d, at, spec=spec: d.features(tokens, at, spec)[0].sum()
    sizes[implementation] = largest(jax.grad(value), decoder, at)
  hidden = length * 48  # of the MLP: what attention has to stay below
  assert sizes['tiled'] <= hidden < length**2 <= sizes['dense']


@pytest.mark.parametrize('implementation', HERE)
def test_softmax_is_float32_under_bfloat16(implementation):
  q, k, v, *at = inputs(13, 13, 0, 2, True)
  # Logits of about 40: rounded to bfloat16, they would be off by more than a tenth.
  narrow = [x.astype(jnp.bfloat16) for x in (10 * q, k, v)]
  spec = Spec(implementation, tile=5)
  jaxpr = jax.make_jaxpr(lambda *x: run(SLOPES, (*x, *at), 0, spec))(*narrow)
  exps = [e for e in fixtures.equations(jaxpr) if e.primitive.name in ('exp', 'exp2')]
  assert exps and all(e.invars[0].aval.dtype == jnp.float32 for e in exps)
  out = run(SLOPES, (*narrow, *at), 0, spec)
  assert out.dtype == jnp.bfloat16
  want = reference(*(np.asarray(x, np.float32) for x in narrow), *at, 0, None)
  fixtures.close(out.astype(np.float32), want, 2e-2)


@pytest.mark.parametrize('implementation', HERE)
def test_sums_are_float32_under_bfloat16(implementation):
  """A thousand equal keys: each weight, 1/1024, would vanish beside a bfloat16 sum of 1."""
  at, ones = Tokens.contiguous(1024), jnp.ones((1, 1024, 1, 8), jnp.bfloat16)
  values = jnp.broadcast_to(jnp.arange(1024)[None, :, None, None] % 2, ones.shape)
  given = 0 * ones, ones, values.astype(jnp.bfloat16)
  spec = Spec(implementation, tile=128)
  out = attend.attend(*given, at, at, scheme=fixtures.scheme('nope'), spec=spec)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(out[0, -1], np.float32), 0.5, rtol=2e-3)


@pytest.mark.parametrize('implementation', HERE)
def test_huge_logits_stay_finite(implementation):
  q, k, v, *at = inputs(13, 13, 0, 2, True)
  spec = Spec(implementation, tile=5)
  value = lambda q: run(SLOPES, (q, k, v, *at), 0, spec).sum()
  assert np.isfinite(jax.grad(value)(1e4 * q)).all()
  large = 1e3 * q, k, v, *at
  fixtures.close(run(SLOPES, large, 0, spec), reference(*large, 0, None), 1e-3)


@pytest.mark.parametrize('implementation', HERE)
def test_rows_that_agree_may_share_positions(implementation):
  q, k, v, _, at = inputs(13, 13, 0, 2, True)
  one = Tokens(at.pos[:1], at.segments[:1])
  both = Tokens(np.tile(one.pos, (2, 1)), np.tile(one.segments, (2, 1)))
  spec = Spec(implementation, tile=5)
  shared, apart = (run(SLOPES, (q, k, v, at, at), 0, spec) for at in (one, both))
  fixtures.close(shared, apart)


def test_cutting_and_padding_tokens():
  at = Tokens(jnp.arange(6)[None] + 3, jnp.array([[1, 1, 1, 2, 2, 2]]))
  part = at.slice(jnp.int32(2), 3).pad(5)
  assert part.pos.tolist() == [[5, 6, 7, 0, 0]]
  assert part.segments.tolist() == [[1, 2, 2, 0, 0]]
  bare = Tokens.contiguous(4)
  assert bare.pos.tolist() == [[0, 1, 2, 3]] and bare.pad(6).segments is None


@pytest.mark.parametrize(
  'arguments, words',
  [
    ({'implementation': 'flash'}, ['flash', 'implementation', 'dense, tiled']),
    ({'window': 0}, ['window', '0', 'at least 1']),
    ({'tile': -2}, ['tile', '-2', 'at least 1']),
  ],
)
def test_a_bad_spec_is_refused(arguments, words):
  with pytest.raises(ValueError) as error:
    Spec(**arguments)
  assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize('implementation', IN_XLA)
def test_a_bias_must_not_broadcast(implementation):
  q, k, v, *at = inputs(7, 7, 0, 2, False)
  spec = Spec(implementation, tile=4)
  for bias in (
    lambda q_pos, k_pos: slope_bias(SLOPES, q_pos[:, :1], k_pos),
    lambda q_pos, k_pos: slope_bias(SLOPES[:1], q_pos, k_pos),
  ):
    with pytest.raises(ValueError, match='bias has shape'):
      attend.attend(q, k, v, *at, scheme=Biased(bias), spec=spec)
