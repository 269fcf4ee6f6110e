"""Stretched RoPE: every formula written once more in NumPy, and what each scheme reduces to."""

import math

import decoder_fixtures as fixtures
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from pe_research import positions
from pe_research.positions import base as base_lib
from pe_research.positions import by_parts
from pe_research.positions import rotary as rotary_lib

# Rotated width R, base b, training length L, factor s.
SIZES = {
  'LLaMA-2': (128, 10_000.0, 4096, 16.0),
  'Llama 3': (128, 500_000.0, 8192, 8.0),
  'short': (64, 10_000.0, 128, 4.0),
  'matched base': (16, 27.09, 64, 2.5),
  'no slow pair': (8, 10.0, 1024, 3.0),
  'no ramp': (8, 10_000.0, 6, 2.0),
}
BY_PARTS = [('ntk_by_parts', {'ramp': ramp}) for ramp in by_parts.RAMPS] + [('llama3', {})]
POS = np.r_[0:6, 100, 511, 4097, 70_001]
VECTOR = np.random.default_rng(0).normal(size=64).astype(np.float32)
widths = st.sampled_from([4, 16, 64])
bases = st.floats(2, 1e6)
lengths = st.integers(8, 10_000)
factors = st.floats(1, 64)


def build(name, rotary=64, base=10_000.0, length=128, **arguments):
  dims = base_lib.Dims(width=32, heads=4, rotary=rotary, length=length)
  return positions.build({'name': name, 'base': base} | arguments, dims, nnx.Rngs(0))


def turn(scheme, length, pos=POS, rotary=64):
  """One vector as the query of each position: [1, N, 1, R]."""
  pos = jnp.asarray(pos, jnp.int32)[None]
  return scheme.query(jnp.broadcast_to(VECTOR[:rotary], (*pos.shape, 1, rotary)), pos, length)


def theta(rotary, base):
  return np.array([base ** (-2 * i / rotary) for i in range(rotary // 2)])


def by_rotations(rotary, base, length, s, slow=1.0, fast=32.0):
  """arXiv:2309.00071, eqs. 17, 18 and 20."""

  def stretched(own):
    ratio = length / (2 * np.pi / own)
    gamma = 0 if ratio < slow else 1 if ratio > fast else (ratio - slow) / (fast - slow)
    return (1 - gamma) * own / s + gamma * own

  return np.array([stretched(own) for own in theta(rotary, base)])


def by_pairs(rotary, base, length, s, slow=1.0, fast=32.0, truncate=True):
  """transformers' yarn: ramps in the pair's index, between indices cut to 0 .. R - 1."""
  low, high = (
    rotary * math.log(length / (beta * 2 * math.pi)) / (2 * math.log(base)) for beta in (fast, slow)
  )
  if truncate:
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, rotary - 1)
  high += 0.001 if low == high else 0
  ramp = np.array([min(max((i - low) / (high - low), 0), 1) for i in range(rotary // 2)])
  return theta(rotary, base) / s * ramp + theta(rotary, base) * (1 - ramp)


def by_wavelength(rotary, base, length, s, low=1.0, high=4.0):
  """transformers' llama3."""
  out = []
  for own in theta(rotary, base):
    wavelength = 2 * np.pi / own
    smooth = (length / wavelength - low) / (high - low)
    between = (1 - smooth) * own / s + smooth * own
    out.append(
      own if wavelength < length / high else own / s if wavelength > length / low else between
    )
  return np.array(out)


def formulas(rotary, base, length, s):
  """Schemes with frequencies and what multiplies q and k, at a document of 2.5 length tokens."""
  size, own, far = (rotary, base, length), theta(rotary, base), 2.5
  given, grown = {'factor': s}, np.geomspace(1, s, rotary // 2)
  ntk = lambda scale: theta(rotary, base * scale ** (rotary / (rotary - 2)))
  warm = lambda s, weight=1.0: 0.1 * weight * math.log(s) + 1
  yield 'pi', given, own / s, 1
  yield 'pi', {'target_length': int(s * length)}, own / s, 1
  yield 'ntk', given, ntk(s), 1
  yield 'dynamic_ntk', {}, ntk(far), 1
  yield 'dynamic_ntk', {'factor': 3}, ntk(3 * far - 2), 1
  yield 'abf', {'new_base': s * base}, theta(rotary, s * base), 1
  yield 'abf', {}, theta(rotary, 500_000.0), 1
  yield 'ntk_by_parts', given | {'ramp': 'rotations'}, by_rotations(*size, s), 1
  betas = {'beta_slow': 0.5, 'beta_fast': 5.0}
  yield 'ntk_by_parts', given | betas | {'ramp': 'rotations'}, by_rotations(*size, s, 0.5, 5.0), 1
  yield 'ntk_by_parts', given, by_pairs(*size, s), 1
  yield 'ntk_by_parts', given | betas, by_pairs(*size, s, 0.5, 5.0), 1
  unrounded = by_pairs(*size, s, 0.5, 5.0, truncate=False)
  yield 'ntk_by_parts', given | betas | {'ramp': 'unrounded'}, unrounded, 1
  yield 'llama3', given, by_wavelength(*size, s), 1
  bounds = {'low_freq_factor': 2.0, 'high_freq_factor': 3.0}
  yield 'llama3', given | bounds, by_wavelength(*size, s, 2.0, 3.0), 1
  yield 'yarn', given, by_pairs(*size, s), warm(s)
  deepseek = {'mscale': 0.707, 'mscale_all_dim': 1.5}
  yield 'yarn', given | deepseek, by_pairs(*size, s), warm(s, 0.707) / warm(s, 1.5)
  yield 'yarn', given | deepseek | {'attention_factor': 0.9}, by_pairs(*size, s), 0.9
  yield 'dynamic_yarn', {}, by_pairs(*size, far), warm(far)
  yield 'dynamic_yarn', {'factor': 4.0}, by_pairs(*size, 4.0), warm(4.0)
  yield 'dynamic_yarn', {'attention_factor': 0.9}, by_pairs(*size, far), 0.9
  given = given | {'long_factor': grown}
  yield 'longrope', given | {'short_factor': grown**0.5}, own / grown, 1
  yield 'longrope', given | {'temperature': 'yarn'}, own / grown, warm(s)
  su = math.sqrt(1 + math.log(s) / math.log(length))
  yield 'longrope', given | {'temperature': 'su'}, own / grown, su
  yield 'longrope', given | {'temperature': 'su', 'attention_factor': 0.9}, own / grown, 0.9


@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_formulas(size):
  rotary, base, length, _ = size
  for name, arguments, want, factor in formulas(*size):
    scheme = build(name, rotary, base, length, **arguments)
    got = scheme.frequencies(5 * length // 2)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-12, err_msg=f'{name} {arguments}')
    scale = scheme.logit_scale(jnp.arange(3)[None], 5 * length // 2)
    assert scale == pytest.approx(factor**2, rel=1e-12), (name, arguments)


def test_ramps_of_llama_2():
  given = dict(rotary=128, length=4096, factor=16)
  rotations, pairs = (build('yarn', ramp=ramp, **given) for ramp in ('rotations', 'pairs'))
  assert pairs.bounds() == (20, 46)
  assert pairs.temperature(16) == pytest.approx(1.2773, abs=5e-5)
  interpolation = np.array([theta(128, 1e4) / s.frequencies(None) for s in (rotations, pairs)])
  want = [[3.4, 9.6, 16], [1.6, 3.2, 10]]
  np.testing.assert_allclose(interpolation[:, [30, 39, 45]], want, atol=0.05, rtol=0.015)


def test_ramps_at_a_short_training_length():
  gamma = {r: build('yarn', length=128, factor=4, ramp=r).gamma() for r in by_parts.RAMPS}
  assert gamma['rotations'][0] == pytest.approx(0.625, abs=5e-4)
  assert gamma['pairs'][0] == gamma['unrounded'][0] == 1


def test_temperatures():
  for s, want in {2: 1.143, 4: 1.297, 8: 1.459, 16: 1.631, 32: 1.813}.items():
    searched = build('longrope', factor=s, long_factor=[s] * 32, temperature='yarn')
    for scheme in (build('yarn', factor=s), searched):
      assert scheme.logit_scale(None, None) == pytest.approx(want, abs=6e-4)
  su = build('longrope', length=4096, factor=16, long_factor=[1] * 32, temperature='su')
  assert su.attention_factor == pytest.approx(1.1547, abs=5e-5)


def test_dynamic_ntk_of_the_paper_and_of_code():
  for f, scale in {1: 2, 2: 3}.items():
    got = build('dynamic_ntk', factor=f, length=128).frequencies(256)
    np.testing.assert_array_equal(got, build('ntk', factor=scale).frequencies(None))


# Name and arguments at base b and rotated width r.
PLAIN = {
  'pi': lambda b, r: ('pi', {'factor': 1}),
  'ntk': lambda b, r: ('ntk', {'factor': 1}),
  'pairs': lambda b, r: ('ntk_by_parts', {'factor': 1}),
  'unrounded': lambda b, r: ('ntk_by_parts', {'factor': 1, 'ramp': 'unrounded'}),
  'rotations': lambda b, r: ('ntk_by_parts', {'factor': 1, 'ramp': 'rotations'}),
  'yarn': lambda b, r: ('yarn', {'factor': 1}),
  'yarn, mscale': lambda b, r: ('yarn', {'factor': 1, 'mscale': 1.0, 'mscale_all_dim': 0.5}),
  'llama3': lambda b, r: ('llama3', {'factor': 1}),
  'abf': lambda b, r: ('abf', {'new_base': b}),
  'su': lambda b, r: (
    'longrope',
    {'factor': 1, 'long_factor': [1] * (r // 2), 'temperature': 'su'},
  ),
  'longrope, short': lambda b, r: (
    'longrope',
    {'factor': 8, 'long_factor': [8] * (r // 2), 'short_factor': [1] * (r // 2)},
  ),
  'dynamic_ntk': lambda b, r: ('dynamic_ntk', {}),
  'dynamic_ntk, 3.3': lambda b, r: ('dynamic_ntk', {'factor': 3.3}),
  'dynamic_yarn': lambda b, r: ('dynamic_yarn', {'ramp': 'rotations'}),
}


@pytest.mark.parametrize('case', PLAIN)
@hypothesis.given(rotary=widths, base=bases, length=lengths, data=st.data())
def test_unstretched_is_rope_bit_for_bit(case, rotary, base, length, data):
  name, arguments = PLAIN[case](base, rotary)
  scheme = build(name, rotary, base, length, **arguments)
  now = data.draw(st.integers(1, length) | st.just(length))
  rope = build('rope', rotary, base, length)
  np.testing.assert_array_equal(turn(scheme, now, rotary=rotary), turn(rope, now, rotary=rotary))
  assert scheme.logit_scale(POS[None], now) == 1


@hypothesis.given(base=bases, length=lengths, s=st.integers(1, 64))
def test_interpolated_positions_are_those_of_training(base, length, s):
  near, far = np.arange(9) * 97, np.arange(9) * 97 * s
  got = turn(build('pi', 64, base, length, factor=s), None, far)
  fixtures.close(got, turn(build('rope', 64, base, length), None, near), 1e-5)
  equal = build('longrope', 64, base, length, factor=s, long_factor=[s] * 32)
  np.testing.assert_array_equal(turn(equal, None, far), got)


@hypothesis.given(rotary=widths, base=bases, s=factors)
@hypothesis.settings(max_examples=40)
def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest(rotary, base, s):
  own, got = theta(rotary, base), build('ntk', rotary, base, factor=s).frequencies(None)
  assert got[0] == own[0] == 1
  assert got[-1] == pytest.approx(own[-1] / s, rel=1e-12)
  assert (np.diff(own / got) > -1e-9).all()


@hypothesis.given(rotary=widths, base=bases, length=lengths, s=factors)
@hypothesis.settings(max_examples=40)
def test_llama3_is_the_ramp_in_rotations(rotary, base, length, s):
  one = build('llama3', rotary, base, length, factor=s)
  other = {'ramp': 'rotations', 'beta_slow': 1.0, 'beta_fast': 4.0}
  other = build('ntk_by_parts', rotary, base, length, factor=s, **other)
  np.testing.assert_array_equal(one.frequencies(None), other.frequencies(None))


@pytest.mark.parametrize('name, given', BY_PARTS)
@hypothesis.given(rotary=widths, base=bases, length=lengths, s=factors, data=st.data())
@hypothesis.settings(max_examples=40)
def test_by_parts_stays_between_rope_and_interpolation(name, given, rotary, base, length, s, data):
  slow = data.draw(st.floats(0.1, length / 7))  # the fastest pair turns more often
  fast = data.draw(st.floats(slow * 1.01, slow * 100).filter(lambda x: length / (7 * x) < base))
  low, high = ('beta_slow', 'beta_fast') if given else ('low_freq_factor', 'high_freq_factor')
  given = given | {low: slow, high: fast}
  scheme = build(name, rotary, base, length, factor=s, **given)
  own, got, gamma = theta(rotary, base), scheme.frequencies(None), scheme.gamma()
  assert ((own / s * (1 - 1e-12) <= got) & (got <= own * (1 + 1e-12))).all()
  assert ((gamma >= 0) & (gamma <= 1)).all() and (np.diff(gamma) <= 0).all()
  turns = own * length / (2 * np.pi)
  np.testing.assert_allclose(got[turns > fast * 1.001], own[turns > fast * 1.001], rtol=1e-9)
  np.testing.assert_allclose(got[turns < slow / 1.001], own[turns < slow / 1.001] / s, rtol=1e-9)


@hypothesis.given(s=factors, weight=st.floats(0.01, 4), given=st.floats(0.1, 4))
@hypothesis.settings(max_examples=40)
def test_which_temperature_counts(s, weight, given):
  scheme = lambda **arguments: build('yarn', length=4096, rotary=128, factor=s, **arguments)
  scale = lambda **arguments: scheme(**arguments).logit_scale(None, None)
  assert scale(mscale=weight, mscale_all_dim=weight) == 1
  assert scale(attention_factor=given) == scale(attention_factor=given, mscale=weight) == given**2
  for one, other in (('mscale', 'mscale_all_dim'), ('mscale_all_dim', 'mscale')):
    assert scale(**{one: weight}) == scale(**{one: weight, other: 0.0}) == scale()
    (note,) = scheme(**{one: weight}).notes(4096)
    assert note.startswith(f'{one} alone is ignored')
    (note,) = scheme(**{one: weight}, attention_factor=given).notes(4096)
    assert note == f'attention_factor is given, so {one} changes nothing.'
  assert scheme(mscale=weight, mscale_all_dim=weight).notes(4096) == []


# One of each kind, for L = 100.
STRETCHED = {
  **{name: {'factor': 2.5} for name in ('pi', 'ntk', 'ntk_by_parts', 'yarn', 'llama3')},
  'longrope': {'factor': 2.5, 'long_factor': np.geomspace(1, 2.5, 32), 'temperature': 'su'},
  'dynamic_ntk': {'factor': 1.5},
  'dynamic_yarn': {},
}


@pytest.mark.parametrize('name, given', STRETCHED.items())
def test_fine_tuning_keeps_the_length_of_training(name, given):
  here, tuned = (build(name, length=n, train_length=100, **given) for n in (100, 250))
  assert build(name, length=100, **given).train_length == 100
  for length in (1, 100, 101, 250):
    np.testing.assert_array_equal(turn(tuned, length), turn(here, length))
    assert tuned.logit_scale(POS[None], length) == here.logit_scale(POS[None], length)


@pytest.mark.parametrize('name, given', STRETCHED.items())
def test_a_part_of_the_head_is_stretched(name, given):
  half = given | ({'long_factor': given['long_factor'][:16]} if 'long_factor' in given else {})
  narrow = build(name, fraction=0.5, **half).frequencies(300)  # as a head of that width
  np.testing.assert_array_equal(narrow, build(name, rotary=32, **half).frequencies(300))
  slow = build(name, fraction=0.5, partial='frequencies', **given).frequencies(300)
  whole = build(name, **given).frequencies(300)
  np.testing.assert_array_equal(slow, whole * (np.arange(32) < 16))


@pytest.mark.parametrize('name, given', STRETCHED.items())
@hypothesis.given(length=st.integers(1, 1000), layout=st.sampled_from(rotary_lib.LAYOUTS))
def test_turning_keeps_norms(name, given, length, layout):
  out = turn(build(name, layout=layout, **given), length)
  fixtures.close(np.linalg.norm(out, axis=-1), np.full(out.shape[:-1], np.linalg.norm(VECTOR)))


def test_factor_and_target_follow_from_each_other():
  for given in ({'factor': 2.5}, {'target_length': 160}, {'factor': 2.5, 'target_length': 160}):
    scheme = build('pi', length=64, **given)
    assert (scheme.factor, scheme.target_length) == (2.5, 160)
  assert build('pi', length=64, factor=1.01).target_length == 65
  assert build('dynamic_yarn', length=64).factor == 1
