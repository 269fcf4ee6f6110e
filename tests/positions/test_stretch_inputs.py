"""What stretched schemes refuse, the file of factors, presets, and notes on them."""

import hashlib
import json
import re

import numpy as np
import pytest
from flax import nnx

from configs import lm
from pe_research import positions
from pe_research.positions import base as base_lib
from pe_research.positions import longrope_file
from pe_research.settings import configs

DIMS = base_lib.Dims(width=32, heads=4, rotary=8, length=64)
FILE = {
  'kind': longrope_file.KIND,
  'base': 10_000.0,
  'rotated': 8,
  'train_length': 64,
  'target_length': 256,
  'long_factor': [1.0, 1.5, 3.0, 4.25],
  'start_tokens': 4,
}
NAN, INF = float('nan'), float('inf')
FACTORS = {'factor': 4, 'long_factor': [1, 2, 3, 4]}


def refusal(name, dims=DIMS, **arguments):
  with pytest.raises(ValueError) as error:
    positions.build({'name': name} | arguments, dims, nnx.Rngs(0))
  assert '\n' not in str(error.value)
  return str(error.value)


@pytest.mark.parametrize('name', ['pi', 'ntk', 'ntk_by_parts', 'yarn', 'llama3', 'longrope'])
@pytest.mark.parametrize(
  'arguments, words',
  [
    ({}, ['position.factor', '64 tokens', 'position.target_length']),
    ({'factor': 4, 'target_length': 300}, ['position.factor 4', '256', '300', 'give one']),
    ({'factor': 4, 'target_length': 257}, ['position.factor 4', '256', '257', 'give one']),
    ({'factor': 4, 'target_length': 255}, ['position.factor 4', '256', '255', 'give one']),
    ({'factor': 0.5}, ['0.5', 'position.factor', 'at least 1']),
    ({'factor': -2}, ['-2', 'position.factor', 'at least 1']),
    ({'factor': NAN}, ['nan', 'position.factor', 'at least 1']),
    ({'factor': INF}, ['inf', 'position.factor', 'at least 1']),
    ({'target_length': 63}, ['0.98', 'position.target_length', '64 tokens', 'at least 1']),
    ({'factor': 4, 'train_length': 0}, ['position.train_length', '0', 'at least 1']),
    (
      {'factor': 4, 'original_max_position_embeddings': 64},
      ['position.original_max_position_embeddings', 'train_length', 'target_length'],
    ),
    ({'factor': 4, 'scale': 2}, ['position.scale']),
    ({'factor': 4, 'factr': 2}, ['position.factr', 'Did you mean factor']),
  ],
)
def test_how_far_to_stretch(name, arguments, words):
  said = refusal(name, **arguments | ({'long_factor': [1] * 4} if name == 'longrope' else {}))
  for word in words:
    assert word in said


@pytest.mark.parametrize('name', ['pi', 'ntk', 'ntk_by_parts', 'yarn', 'llama3', 'longrope'])
def test_a_length_beyond_the_target(name):
  given = {'factor': 4, 'train_length': 15}
  given |= {'long_factor': [1] * 4} if name == 'longrope' else {}
  if name == 'llama3':  # published so: factor 8 of 8,192 for 131,072
    assert positions.build({'name': name} | given, DIMS, nnx.Rngs(0)).target_length == 60
    return
  said = refusal(name, **given)
  assert all(word in said for word in ('64 tokens', '15', '60', 'position.factor'))


@pytest.mark.parametrize(
  'name, arguments, words',
  [
    ('dynamic_ntk', {'factor': 0.5}, ['position.factor', '0.5', 'at least 1']),
    ('dynamic_ntk', {'factor': NAN}, ['position.factor', 'nan', 'at least 1']),
    ('dynamic_ntk', {'factor': INF}, ['position.factor', 'inf', 'at least 1']),
    ('dynamic_ntk', {'train_length': 0}, ['position.train_length', '0', 'at least 1']),
    ('dynamic_yarn', {'factor': 0.5}, ['position.factor', '0.5', 'at least 1']),
    ('dynamic_yarn', {'target_length': 32}, ['0.5', 'position.target_length', 'at least 1']),
    ('abf', {'new_base': 1.0}, ['position.new_base', '1', 'above 1']),
    ('abf', {'new_base': NAN}, ['position.new_base', 'nan', 'above 1']),
    ('yarn', {'ramp': 'pair'}, ['position.ramp', "'pair'", 'pairs, unrounded, rotations']),
    ('yarn', {'beta_slow': 32.0}, ['position.beta_slow', '32', 'position.beta_fast', 'below']),
    ('yarn', {'beta_slow': 40.0}, ['position.beta_slow', '40', 'position.beta_fast', 'below']),
    ('yarn', {'beta_slow': 0.0}, ['position.beta_slow', '0', 'positive']),
    ('yarn', {'beta_fast': NAN}, ['position.beta_fast', 'nan']),
    ('yarn', {'beta_fast': INF}, ['position.beta_fast', 'inf', 'finite']),
    ('yarn', {'attention_factor': 0.0}, ['position.attention_factor', '0', 'positive']),
    ('yarn', {'attention_factor': NAN}, ['position.attention_factor', 'nan', 'positive']),
    ('llama3', {'low_freq_factor': 4.0}, ['position.low_freq_factor', '4', 'high_freq_factor']),
    ('llama3', {'low_freq_factor': 0.0}, ['position.low_freq_factor', '0', 'positive']),
    ('longrope', {'long_factor': None}, ['position.file', 'position.long_factor', '4 numbers']),
    ('longrope', {'long_factor': [1, 2, 3]}, ['position.long_factor', '3 factors', '4 pairs']),
    ('longrope', {'long_factor': [1] * 5}, ['position.long_factor', '5 factors', '4 pairs']),
    ('longrope', {'short_factor': [1, 2]}, ['position.short_factor', '2 factors', '4 pairs']),
    ('longrope', {'long_factor': [1, 3, 2, 4]}, ['position.long_factor', '3.0 to 2.0', 'pair 2']),
    ('longrope', {'short_factor': [2, 1, 1, 1]}, ['position.short_factor', '2.0 to 1.0', 'pair 1']),
    ('longrope', {'long_factor': [0, 1, 2, 3]}, ['position.long_factor[0]', '0.0', 'positive']),
    ('longrope', {'long_factor': [1, 1, 1, -3]}, ['position.long_factor', '-3']),
    ('longrope', {'long_factor': [1, 1, 1, NAN]}, ['position.long_factor', 'nan']),
    ('longrope', {'long_factor': [1, 1, 1, INF]}, ['position.long_factor[3]', 'inf', 'positive']),
    ('longrope', {'temperature': 'ntk'}, ['position.temperature', "'ntk'", 'none, su, yarn']),
    ('longrope', {'attention_factor': -1.0}, ['position.attention_factor', '-1', 'positive']),
    ('longrope', {'start_tokens': -1}, ['position.start_tokens', '-1', 'tokens']),
    ('longrope', {'short_start_tokens': -1}, ['position.short_start_tokens', '-1', 'tokens']),
    ('longrope', {'switch_length': -1}, ['position.switch_length', '-1', 'tokens']),
    ('longrope', {'short_factor': [1] * 4, 'switch_length': 0}, ['switch_length', '0', '1 to 256']),
    ('longrope', {'short_factor': [1] * 4, 'switch_length': 257}, ['switch_length', '257', '256']),
  ],
)
def test_a_bad_value_is_named_with_its_limit(name, arguments, words):
  needed = {'yarn': {'factor': 4}, 'llama3': {'factor': 4}, 'longrope': FACTORS}.get(name, {})
  said = refusal(name, **needed | arguments)
  for word in words:
    assert word in said


@pytest.mark.parametrize('name', ['ntk', 'dynamic_ntk'])
def test_one_pair_is_both_the_fastest_and_the_slowest(name):
  dims = base_lib.Dims(width=8, heads=4, rotary=2, length=64)
  for arguments in ({'dims': dims}, {'fraction': 0.25}):
    said = refusal(name, factor=2, **arguments)
    for word in ('two pairs', '2 channels', 'model.head_dim', 'position.fraction'):
      assert word in said


def write(path, changes=None):
  content = {k: v for k, v in (FILE | (changes or {})).items() if v is not None}
  path.write_text(json.dumps(content))
  return path


@pytest.mark.parametrize(
  'changes, arguments, words',
  [
    ({'base': 500.0}, {}, ['factors.json', 'rotary base', '500', '10000']),
    ({}, {'base': 500.0}, ['factors.json', 'rotary base', '10000', '500']),
    ({'rotated': 16, 'long_factor': [1.0] * 8}, {}, ['factors.json', 'head width', '16', '8']),
    ({'train_length': 32}, {}, ['factors.json', 'training length', '32', '64']),
    ({}, {'train_length': 32}, ['factors.json', 'training length', '64', '32']),
    ({}, {'factor': 8}, ['factors.json', 'target length', '256', '512']),
    ({}, {'target_length': 128}, ['factors.json', 'target length', '256', '128']),
    ({'kind': 'LoRA'}, {}, ['factors.json', 'LongRoPE factors']),
    ({'kind': None}, {}, ['factors.json', 'LongRoPE factors']),
    ({'long_factor': [1.0, 2.0, 1.0, 2.0]}, {}, ['long_factor', '2.0 to 1.0']),
    ({'long_factor': [1.0, 2.0]}, {}, ['long_factor', '2 factors', '4 pairs']),
    ({}, {'long_factor': [1] * 4}, ['factors.json', 'position.long_factor', 'one of them']),
    ({}, {'short_factor': [1] * 4}, ['factors.json', 'position.short_factor', 'one of them']),
    ({}, {'start_tokens': 0}, ['factors.json', 'position.start_tokens', 'one of them']),
  ],
)
def test_a_file_of_other_factors(tmp_path, changes, arguments, words):
  path = write(tmp_path / 'factors.json', changes)
  said = refusal('longrope', file=str(path), **arguments)
  for word in words:
    assert word in said


@pytest.mark.parametrize(
  'content, words',
  [
    (None, ['does not exist', 'python -m pe_research.search']),
    ('{"kind": ', ['cannot be read']),
    ('\xff', ['cannot be read']),
    ('[1, 2]', ['does not hold LongRoPE factors']),
    ('"LongRoPE factors"', ['does not hold LongRoPE factors']),
  ],
)
def test_a_file_that_holds_none(tmp_path, content, words):
  path = tmp_path / 'factors.json'
  if content is not None:
    path.write_bytes(content.encode('latin-1'))
  said = refusal('longrope', file=str(path))
  for word in [*words, f'position.file {path}']:
    assert word in said


@pytest.mark.parametrize(
  'more', [{}, {'short_factor': [1.0, 1.0, 1.0, 1.5], 'switch_length': 80, 'temperature': 'su'}]
)
def test_a_config_holds_what_the_file_held(tmp_path, more):
  given = lm.get_config('position=longrope,length=64')
  given.model.head_dim = 8
  path = write(tmp_path / 'factors.json', more)
  given.position.file = str(path)
  config = configs.resolve(given)
  position = config['position']
  for field in ('long_factor', 'start_tokens', 'target_length', *more):
    assert position[field] == (FILE | more)[field], field
  assert position['factor'] == 4 and position['train_length'] == 64
  assert position['file'] == ''
  sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
  assert position['lineage'] == f'factors.json sha256:{sha256}'
  path.unlink()
  assert configs.resolve(json.loads(json.dumps(config))) == config
  one, other = (positions.build(p, DIMS, nnx.Rngs(0)) for p in (position, _by_hand(more)))
  for length in (1, 64, 80, 81, 256):
    np.testing.assert_array_equal(one.frequencies(length), other.frequencies(length))
    assert one.logit_scale(None, length) == other.logit_scale(None, length)
    assert one.regime(length) == other.regime(length)
  assert one.start_tokens == other.start_tokens == 4


def test_a_config_may_choose_another_temperature_than_the_search(tmp_path):
  path = write(tmp_path / 'factors.json', {'temperature': 'su'})
  for given, want in ({}, 'su'), ({'temperature': 'none'}, 'none'):
    position = {'name': 'longrope', 'file': str(path)} | given
    assert positions.build(position, DIMS, nnx.Rngs(0)).temperature == want


def _by_hand(more):
  named = {k: FILE[k] for k in ('long_factor', 'start_tokens', 'target_length')}
  return {'name': 'longrope'} | named | more


@pytest.mark.parametrize('length', [64, 128])
def test_presets(length):
  given = lambda name, preset: lm.get_config(
    f'position={name},length={length},preset={preset}'
  ).position.to_dict()
  for name in ('rope', 'yarn', 't5'):
    published, matched = given(name, 'published'), given(name, 'matched')
    assert published == positions.defaults(name)
    changed = {k for k in published if published[k] != matched[k]}
    assert (
      changed == {'rope': {'base'}, 'yarn': {'base', 'beta_fast'}, 't5': {'max_distance'}}[name]
    )
  base, beta_fast = {64: (27, 3.5), 128: (73, 5.0)}[length]
  assert matched['max_distance'] < length
  for name in ('rope', 'yarn'):
    got = given(name, 'matched')
    assert got['base'] == pytest.approx(base, abs=0.5)
    assert got['base'] == pytest.approx((length / (2 * np.pi)) ** 1.4214, rel=1e-3)
  assert got['beta_fast'] == pytest.approx(beta_fast, abs=0.05)
  assert got['beta_fast'] == pytest.approx((length / (2 * np.pi)) ** 0.535, rel=2e-3)


def notes(name, length, rotary=64, **arguments):
  dims = base_lib.Dims(width=32, heads=4, rotary=rotary, length=length)
  return positions.build({'name': name} | arguments, dims, nnx.Rngs(0)).notes(length)


def test_notes_on_a_ramp_outside_the_pairs():
  for name in ('ntk_by_parts', 'yarn', 'dynamic_yarn'):
    said = notes(name, 128, factor=4)
    assert len(said) == 2 and re.search(r'^11 of 32 .* 128 .*10000.* base 72\.57', said[0])
    for word in ('beta_fast is 32', '20.4 times', '128 tokens', 'beta_fast 5.02'):
      assert word in said[1]
    assert notes(name, 4096, rotary=128, factor=16) == []
    assert notes(name, 128, factor=4, base=72.57, beta_fast=5.02) == []
    outside, nothing = notes(name, 4, factor=2)[-2:]
    assert outside.endswith('outside the pairs.') and 'leaves every pair as it is' in nothing


def test_notes_speak_of_the_length_of_training():
  (_, said) = notes('yarn', 256, train_length=128, factor=4)
  assert '20.4 times' in said and '128 tokens' in said and 'beta_fast 5.02' in said


def test_the_matched_presets_leave_nothing_to_say():
  for length in (64, 128, 512):
    for name in ('rope', 'yarn', 't5'):
      matched = positions.scheme(name).matched(length)
      assert notes(name, length, **matched | ({'factor': 4} if name == 'yarn' else {})) == []
  assert '27 of 32' in notes('t5', 64)[0] and '48' in notes('t5', 64)[0]
