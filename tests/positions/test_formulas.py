"""Each scheme against its paper's formula, written once more in a few lines of NumPy float64."""

import math
import re

import decoder_fixtures as fixtures
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import attention
from pe_research.positions import base, fixed_point, kerple, rotary
from pe_research.settings import configs

pytestmark = pytest.mark.usefixtures('extra_schemes')
turns_only = lambda scheme: isinstance(scheme, rotary.RoPE) and type(scheme).key is rotary.RoPE.key
ROTARY = [n for n in fixtures.NAMES if turns_only(fixtures.scheme(n)) and ',' not in n]
FAR = [0, 1, 511, 4096, 32_768, 1_234_567, 1_999_999, 2_000_000]
FARTHEST = 2**24 - 1


def build(name, width=32, heads=4, rotary=8, length=64, **arguments):
  dims = base.Dims(width=width, heads=heads, rotary=rotary, length=length)
  return positions.build(fixtures.position(name, rotary) | arguments, dims, nnx.Rngs(0))


def turned(x, pos, theta, pairs):
  """Rotates pairs of channels of x [L, R] by pos * theta, all in float64."""
  x, out = np.asarray(x, np.float64), np.array(x, np.float64)
  for i, (a, b) in enumerate(pairs):
    angle = np.asarray(pos, np.float64) * theta[i]
    out[:, a] = x[:, a] * np.cos(angle) - x[:, b] * np.sin(angle)
    out[:, b] = x[:, b] * np.cos(angle) + x[:, a] * np.sin(angle)
  return out


def rows(x, pos):
  """[L, R] and L positions as the hooks take them: [1, L, 1, R] and [1, L]."""
  return jnp.asarray(x)[None, :, None], jnp.asarray(pos, jnp.int32)[None]


@pytest.mark.parametrize('rope_base', [10_000.0, 500_000.0])
@pytest.mark.parametrize('layout', rotary.LAYOUTS)
@pytest.mark.parametrize('hook', ['query', 'key'])
def test_rope(rope_base, layout, hook):
  width = 16
  scheme = build('rope', rotary=width, base=rope_base, layout=layout)
  theta = [rope_base ** (-2 * i / width) for i in range(width // 2)]
  pairs = [(i, i + 8) if layout == 'half' else (2 * i, 2 * i + 1) for i in range(8)]
  x = np.random.default_rng(0).normal(size=(len(FAR), width)).astype(np.float32)
  got = getattr(scheme, hook)(*rows(x, FAR), 64)
  fixtures.close(got[0, :, 0], turned(x, FAR, theta, pairs), 2e-4)


@pytest.mark.parametrize('name', ROTARY)
@pytest.mark.parametrize('jitted', [False, True])
def test_angles_far_out(name, jitted):
  scheme = build(name, rotary=64)
  theta = np.asarray(scheme.frequencies(64))
  assert theta.dtype == np.float64 and theta.shape == (32,)
  pos = np.r_[np.random.default_rng(0).integers(0, FARTHEST, 500), FAR, FARTHEST]
  ones = np.tile(np.repeat([1.0, 0.0], 32).astype(np.float32), (pos.size, 1))
  query = lambda x, pos: scheme.query(x, pos, 64)
  got = (jax.jit(query) if jitted else query)(*rows(ones, pos))[0, :, 0]
  cos, sin = np.split(np.asarray(got, np.float64), 2, axis=-1)
  error = np.angle((cos + 1j * sin) * np.exp(-1j * pos[:, None] * theta))
  assert np.abs(error).max() < 1e-4


@pytest.mark.parametrize('name', ROTARY)
def test_a_bfloat16_query_is_turned_by_exact_angles(name):
  scheme = build(name, rotary=16)
  x = np.random.default_rng(0).normal(size=(len(FAR), 16)).astype(jnp.bfloat16)
  got = scheme.query(*rows(x, FAR), 64)
  assert got.dtype == jnp.bfloat16
  pairs = [(i, i + 8) for i in range(8)]
  want = turned(x.astype(np.float64), FAR, np.asarray(scheme.frequencies(64)), pairs)
  error = np.abs(np.asarray(got[0, :, 0], np.float64) - want)
  assert (error <= 2.0**-8 * np.abs(want) + 3e-4).all()  # half a unit in the last of 8 bits


@pytest.mark.parametrize('name', ROTARY)
def test_turning_keeps_norms(name):
  scheme = build(name)
  x = np.random.default_rng(0).normal(size=(1, len(FAR), 4, 8)).astype(np.float32)
  for hook in (scheme.query, scheme.key):
    out = hook(jnp.asarray(x), jnp.asarray([FAR]), 64)
    fixtures.close(np.linalg.norm(out, axis=-1), np.linalg.norm(x, axis=-1))


@pytest.mark.parametrize(
  'name', [n for n in fixtures.NAMES if fixtures.scheme(n).depends_on_length]
)
def test_a_length_known_only_in_the_program_gives_the_same_bits(name):
  scheme = build(name, rotary=16)
  x = np.random.default_rng(0).normal(size=(len(FAR), 16)).astype(np.float32)
  given = rows(x, FAR)
  lengths = np.array([[5], [6], [63], [64], [65], [1000], [2**24]], np.int32)
  together = [jnp.broadcast_to(g, (len(lengths), *g.shape[1:])) for g in given]
  got = jax.jit(scheme.query)(*together, lengths)
  scale = jnp.broadcast_to(scheme.logit_scale(together[1], jnp.asarray(lengths)), lengths.shape)
  for i, (length,) in enumerate(lengths.tolist()):
    fixtures.close(got[i], scheme.query(*given, length)[0], 2e-6)
    fixtures.close(scale[i, 0], scheme.logit_scale(given[1], length), 1e-6)


def test_layouts_give_the_same_scores_under_the_permutation():
  half, paired = (build('rope', rotary=16, layout=n) for n in ('half', 'interleaved'))
  order = np.r_[0:16:2, 1:16:2]
  q, k = np.random.default_rng(0).normal(size=(2, 1, 9, 1, 16)).astype(np.float32)
  pos = jnp.arange(9)[None] * 13
  scores = lambda s, q, k: jnp.einsum('bqhr,bkhr->bqk', s.query(q, pos, 9), s.key(k, pos, 9))
  fixtures.close(scores(half, q[..., order], k[..., order]), scores(paired, q, k))
  fixtures.close(half.query(q[..., order], pos, 9), paired.query(q, pos, 9)[..., order])


def test_partial_rotation():
  x = np.random.default_rng(0).normal(size=(len(FAR), 16)).astype(np.float32)
  whole = build('rope', rotary=16).query(*rows(x, FAR), 64)
  for kind in rotary.PARTIAL:
    same = build('rope', rotary=16, fraction=1.0, partial=kind).query(*rows(x, FAR), 64)
    np.testing.assert_array_equal(same, whole)
  # A narrower head's worth of channels rotates, at that head's frequencies.
  got = build('rope', rotary=16, fraction=0.5, partial='width').query(*rows(x, FAR), 64)
  theta = [10_000 ** (-2 * i / 8) for i in range(4)]
  want = turned(x, FAR, theta, [(i, i + 4) for i in range(4)])
  fixtures.close(got[0, :, 0], want, 2e-4)
  # All channels are paired at the whole head's frequencies, and the slow half stands still.
  got = build('rope', rotary=16, fraction=0.5, partial='frequencies').query(*rows(x, FAR), 64)
  theta = [10_000 ** (-2 * i / 16) if i < 4 else 0.0 for i in range(8)]
  want = turned(x, FAR, theta, [(i, i + 8) for i in range(8)])
  fixtures.close(got[0, :, 0], want, 2e-4)


def author_slopes(n):
  """The rule of the authors' code: powers of two, else the power below and every other above."""
  if math.log2(n).is_integer():
    start = 2 ** (-(2 ** -(math.log2(n) - 3)))
    return [start * start**i for i in range(n)]
  closest = 2 ** math.floor(math.log2(n))
  return author_slopes(closest) + author_slopes(2 * closest)[0::2][: n - closest]


@pytest.mark.parametrize('heads', [*range(1, 34), 40])
def test_alibi(heads):
  scheme = build('alibi', heads=heads)
  pos = np.array([0, 1, 5, 6, 1000])
  got = np.asarray(scheme.bias(pos[None], pos[None])[0])
  distance = pos[:, None] - pos[None, :]
  fixtures.close(got, -np.array(author_slopes(heads))[:, None, None] * distance, 1e-6)
  # From the last query outwards in time: no bias at distance 0, and steeper with each step.
  past = got[:, -1, ::-1]
  assert (past[:, 0] == 0).all() and (np.diff(past, axis=-1) < 0).all()
  if heads & (heads - 1) == 0:
    assert -got[0, 1, 0] == 2 ** (-8 / heads) and -got[-1, 1, 0] == 2**-8


def test_alibi_arguments():
  pos = np.arange(2)[None]
  steep = build('alibi', heads=4, max_bias=2.0).bias(pos, pos)
  fixtures.close(-steep[0, :, 1, 0], [2**-0.5, 2**-1, 2**-1.5, 2**-2], 1e-6)
  some = build('alibi', heads=4, biased_heads=2).bias(pos, pos)
  fixtures.close(-some[0, :, 1, 0], [2**-4, 2**-8, 0, 0], 1e-6)


def t5_bucket(distance, buckets, reach):
  """Raffel et al.'s rule in the causal case, and whether rounding could decide it."""
  exact = buckets // 2
  if distance < exact:
    return distance, False
  share = math.log(distance / exact) / math.log(reach / exact) * (buckets - exact)
  return min(buckets - 1, exact + int(share)), abs(share - round(share)) < 1e-4


@pytest.mark.parametrize('buckets, reach', [(32, 128), (8, 20), (16, 300), (7, 50), (2, 9)])
def test_t5_buckets(buckets, reach):
  scheme = build('t5', heads=2, buckets=buckets, max_distance=reach)
  scheme.table[...] = jnp.stack([jnp.arange(buckets), 100 + jnp.arange(buckets)], 1) * 1.0
  got = np.asarray(scheme.bias(jnp.array([[300]]), 300 - jnp.arange(301)[None])[0, :, 0])
  for distance in range(301):
    want, close = t5_bucket(distance, buckets, reach)
    if not close:
      assert got[:, distance].tolist() == [want, 100 + want], distance
  assert (got[0, reach:] == buckets - 1).all()
  if (buckets, reach) == (32, 128):
    assert got[0, 112] == 30 and got[0, 113] == 31


def test_t5_scale_and_notes():
  assert build('t5', rotary=16).logit_scale(None, 4) == 1
  assert build('t5', rotary=16, scale_logits=False).logit_scale(None, 4) == 4
  scheme = build('t5')
  assert scheme.notes(114) == []
  assert 'reach 31 of 32 buckets' in scheme.notes(113)[0]


@given(length=st.integers(2, 300), buckets=st.integers(2, 130))
@settings(max_examples=200, deadline=None)
def test_t5_advice_fits(length, buckets):
  def notes(max_distance):  # of shapes alone: a table of each size would be compiled
    make = lambda: build('t5', buckets=buckets, max_distance=max_distance)
    return nnx.eval_shape(make).notes(length)

  for said in notes(400):
    advised = re.search(r'max_distance (\d+) fits', said)
    if advised:
      assert notes(int(advised[1])) == []
    else:
      assert 'Fewer buckets' in said


@pytest.mark.parametrize('width', [4, 5, 7, 32, 33])
@pytest.mark.parametrize('layout', ['paper', 'tensor2tensor', 'concatenated'])
def test_sinusoidal(layout, width):
  pos = np.array([0, 1, 2, 77, 2_000_000])
  got = build('sinusoidal', width=width, layout=layout, scale=0.5).embed(
    jnp.ones((1, pos.size, width)), jnp.asarray(pos)[None]
  )
  want, half = np.zeros((pos.size, width)), width // 2
  sines = half if layout == 'tensor2tensor' else (width + 1) // 2
  for channel in range(sines + half):
    i, cosine = divmod(channel, sines)[::-1]
    if layout == 'paper':
      i, cosine = divmod(channel, 2)
    exponent = i / (half - 1) if layout == 'tensor2tensor' else 2 * i / width
    want[:, channel] = (np.cos if cosine else np.sin)(pos / 10_000**exponent)
  fixtures.close(got[0], 1 + 0.5 * want, 1e-4)


def test_learned():
  scheme = build('learned', length=6)
  x = jnp.ones((1, 3, 32))
  got = scheme.embed(x, jnp.array([[5, 0, 2]]))
  fixtures.close(got[0], 1 + np.sqrt(32) * np.asarray(scheme.table[...])[[5, 0, 2]])
  drawn = build('learned', width=64, length=500).table[...]
  assert abs(np.std(drawn) * 8 - 1) < 0.02  # unit variance once read


@pytest.mark.parametrize('name', fixtures.NAMES)
def test_hooks_keep_the_compute_dtype_and_bias_stays_float32(name):
  scheme = build(name)
  x, pos = jnp.ones((2, 5, 32), jnp.bfloat16), jnp.arange(5)[None]
  assert scheme.embed(x, pos).dtype == jnp.bfloat16
  heads = x.reshape(2, 5, 4, 8)
  assert scheme.query(heads, pos, 5).dtype == scheme.key(heads, pos, 5).dtype == jnp.bfloat16
  bias = scheme.bias(pos, pos)
  assert bias is None or bias.dtype == jnp.float32
  assert jnp.asarray(scheme.logit_scale(pos, 5)).dtype == jnp.float32


@pytest.mark.parametrize('name', ['ssmax', 'ssmax_rope'])
def test_ssmax_multiplies_logits_by_s_ln_n(name):
  scheme = build(name, length=64)
  pos = np.array([[0, 1, 9, 63]])
  got = scheme.logit_scale(jnp.asarray(pos), None)
  assert got.shape == (1, 4, 4)
  fixtures.close(got[0, -1], np.ones(4))  # softmax itself at the training length
  scheme.scale[...] = jnp.array([0.1, 0.2, 0.43, 1.0])
  want = np.log(pos[0] + 1)[:, None] * [0.1, 0.2, 0.43, 1.0]
  fixtures.close(scheme.logit_scale(jnp.asarray(pos), None)[0], want)


def test_log_n_counts_the_keys_of_each_query():
  scheme = build('log_n', train_length=8)
  got = scheme.logit_scale(jnp.array([[0, 7, 8, 63, 511]]), None)
  fixtures.close(got[0], [1, 1, np.log(9) / np.log(8), 2, 3])


@pytest.mark.parametrize(
  'name, want', [('ssmax', np.log), ('log_n', lambda n: np.log(n) / np.log(8))]
)
def test_keys_that_a_window_hides_are_not_counted(name, want):
  scheme = build(name, length=64) if name == 'ssmax' else build(name, train_length=8)
  if name == 'ssmax':
    scheme.scale[...] = jnp.ones(4)
  at = Tokens.contiguous(64)
  got = attention.scaled(jnp.ones((1, 64, 4, 8)), scheme, Spec(window=20), at, None, 1)
  fixtures.close(got[0, 30:, 0, 0], np.full(34, want(20.0)))
  fixtures.close(got[0, 10:20, 0, 0], want(np.arange(11.0, 21)))


@pytest.mark.parametrize('projection', ['mha', 'mla'])
def test_t5_can_leave_logits_undivided(projection):
  from configs import lm

  config = lm.get_config('position=t5')
  config.position.scale_logits = False
  config.model.projection = projection
  if projection == 'mla':
    config.model.latent, config.model.rotary_dim = 16, 4
  made = configs.resolve(config)
  scale = configs.scheme(made).logit_scale(None, None)
  assert scale / made['model']['head_dim'] ** 0.5 == 1  # T5 has no slice


@pytest.mark.parametrize('kernel, most', [('log', math.inf), ('power', 2.0)])
def test_kerple_stays_in_its_range_and_can_leave_the_edge(kernel, most):
  scheme = build('kerple', heads=2, kernel=kernel)
  pos = jnp.arange(5)[None]

  def bias(r1, r2):
    placed = nnx.clone(scheme)
    placed.r1[...], placed.r2[...] = r1, r2
    return placed.bias(pos, pos)[0, :, -1]

  outside, inside = (-1.0, 5.0), (kerple.LEAST, min(5.0, most))
  given_ = lambda pair: tuple(jnp.full(2, value) for value in pair)
  fixtures.close(bias(*given_(outside)), bias(*given_(inside)), 1e-6)
  low = lambda r2: bias(jnp.ones(2), r2).sum()
  fixtures.close(low(jnp.full(2, -3.0)), low(jnp.full(2, kerple.LEAST)), 1e-6)
  assert (np.asarray(jax.grad(low)(jnp.full(2, -3.0))) != 0).all()


def test_rotary_positions_are_integers():
  scheme = build('rope')
  with pytest.raises(ValueError, match='positions are float32'):
    scheme.query(jnp.ones((1, 3, 4, 8)), jnp.arange(3.0)[None], None)
  with pytest.raises(ValueError, match='positions are bfloat16'):
    fixed_point.angles(jnp.arange(3, dtype=jnp.bfloat16)[None], fixed_point.fixed_point(np.ones(4)))


def test_positions_beyond_those_of_a_scheme_are_refused():
  scheme = build('xpos')
  far = jnp.array([[0, scheme.max_length]])
  for hook in (scheme.query, scheme.key):
    with pytest.raises(ValueError, match=f'holds {scheme.max_length} positions'):
      hook(jnp.ones((1, 2, 4, 8)), far, None)
    assert np.isfinite(hook(jnp.ones((1, 2, 4, 8)), far - 1, None)[:, 1]).all()


def test_drope_stands_still_and_sharpens():
  x = np.random.default_rng(0).normal(size=(len(FAR), 8)).astype(np.float32)
  scheme = build('drope', factor=4.0, train_length=64)
  np.testing.assert_array_equal(scheme.query(*rows(x, FAR), None)[0, :, 0], x)
  assert scheme.logit_scale(None, None) == 1 + 0.412 * math.log(4)
  assert build('drope', factor=1.0, train_length=64).logit_scale(None, None) == 1


def test_rnope_turns_in_a_window_but_for_every_fourth_layer():
  x = np.random.default_rng(0).normal(size=(len(FAR), 8)).astype(np.float32)
  given = rows(x, FAR)
  turned = build('rope').query(*given, None)
  for layer in range(8):
    dims = base.Dims(width=32, heads=4, rotary=8, length=64, layer=layer)
    scheme = positions.build(positions.defaults('rnope'), dims, nnx.Rngs(0))
    free = layer in (3, 7)
    assert scheme.sees == (None if free else 32)
    np.testing.assert_array_equal(scheme.query(*given, None), given[0] if free else turned)
  smol = positions.build({'name': 'rnope', 'window': 0}, dims, nnx.Rngs(0))
  assert smol.sees is None


def test_p_rope_is_rope_whose_slow_pairs_stand():
  got = build('p_rope', rotary=16).frequencies(None)
  fixtures.close(got, [10_000 ** (-2 * i / 16) if i < 4 else 0.0 for i in range(8)])
  assert positions.defaults('p_rope')['fraction'] == 0.75
