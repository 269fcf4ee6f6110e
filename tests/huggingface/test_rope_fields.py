"""Positions in a config.json: what is written reads back as the same scheme, in old names too."""

import math

import jax.numpy as jnp
import numpy as np
import published
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from pe_research import positions
from pe_research.huggingface import exporting, positions_read, positions_write
from pe_research.positions.base import Dims
from pe_research.settings import configs

ROTARY = [n for n, (p, _, _) in published.CASES.items() if p not in ('learned', 'alibi')]
FIELDS = {
  'yarn': {'factor': 4.0, 'original_max_position_embeddings': 64},
  'linear': {'factor': 4.0},
  'dynamic': {'factor': 2.0},
  'default': {},
}


def built(position, *, width=8, sliced=False, length=16):
  dims = Dims(32, 4, width, length, sliced)
  return positions.build(position, dims, nnx.Rngs(0))


def same(a, b, width, lengths=(8, 16, 17, 40)):
  """Whether two schemes do the same to queries, keys and logits."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(1, 6, 2, width)), jnp.float32)
  for length in lengths:
    pos = jnp.arange(length - 6, length)[None]
    scale = [np.sqrt(s.logit_scale(pos, length)) for s in (a, b)]
    q, k = ([getattr(s, hook)(x, pos, length) for s in (a, b)] for hook in ('query', 'key'))
    for one, other in (q, k):
      np.testing.assert_allclose(scale[0] * one, scale[1] * other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('said, factor', [({'factor': 2.0}, 2), ({}, 8)])
def test_a_factor_that_is_said_goes_before_the_lengths(said, factor):
  """transformers 5.23.0, modeling_rope_utils.py: _compute_longrope_parameters."""
  fields = {'rope_type': 'longrope', 'rope_theta': 1e4, 'original_max_position_embeddings': 16}
  fields |= {'short_factor': [1.0] * 4, 'long_factor': [1.0, 1.5, 2.0, 2.5]} | said
  for sliced in (False, True):
    position = positions_read.read_rope(fields, most=128, sliced=sliced)
    scheme = built(position, length=16, sliced=sliced)
    assert scheme.factor == factor
    temperature = math.sqrt(scheme.logit_scale(None, 17)) * scheme.slice_factor
    assert temperature == pytest.approx(math.sqrt(1 + math.log(factor) / math.log(16)))


@pytest.mark.parametrize('name', ROTARY)
def test_what_is_written_reads_back(name):
  config = published.config(name)
  scheme, model = configs.scheme(config), config['model']
  width, sliced = model['rotary_dim'] or model['head_dim'], model['projection'] == 'mla'
  partial = scheme.rotated < width
  written = positions_write.write_rope(
    scheme, width=width, length=16, layouts=(scheme.layout,), partial=partial, sliced=sliced
  )
  fields, most = written['rope_parameters'], written['max_position_embeddings']
  assert most >= 16
  position = positions_read.read_rope(fields, most=most, layout=scheme.layout, sliced=sliced)
  same(scheme, built(position, width=width, sliced=sliced, length=16), width)


@pytest.mark.parametrize('kind', FIELDS)
def test_older_releases_keep_the_same_fields_elsewhere(kind):
  fields = FIELDS[kind]
  current = {'rope_parameters': {'rope_type': kind, 'rope_theta': 500.0} | fields}
  older = {'rope_theta': 500.0, 'rope_scaling': {'type': kind} | fields}
  both = {'rope_theta': 500, 'rope_scaling': {'type': kind, 'rope_type': kind} | fields}
  found = [positions_read.read_rope(positions_read.rope_fields(c), most=256)
           for c in (current, older, both)]  # fmt: skip
  assert found[0] == found[1] == found[2]
  assert found[0]['base'] == 500.0


def test_defaults_of_old_configs():
  assert positions_read.rope_fields({}) == {'rope_type': 'default', 'rope_theta': 10_000.0}
  old = {'rotary_pct': 0.25, 'rotary_emb_base': 500.0, 'rope_theta': 1e4}
  neox = positions_read.rope_fields(old, 'rotary_emb_base', 'rotary_pct')
  llama = positions_read.rope_fields(old)
  assert llama == {'rope_type': 'default', 'rope_theta': 1e4}
  assert neox == {'rope_type': 'default', 'rope_theta': 500.0, 'partial_rotary_factor': 0.25}
  phi = {'original_max_position_embeddings': 16, 'rope_scaling': {'type': 'longrope'}}
  assert positions_read.rope_fields(phi)['original_max_position_embeddings'] == 16


@pytest.mark.parametrize(
  'said, ramp',
  [({}, 'pairs'), ({'truncate': True}, 'pairs')]
  + [({'truncate': value}, 'unrounded') for value in (False, None)],
)
def test_truncate_of_null_is_no(said, ramp):
  fields = {'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 4.0} | said
  found = positions_read.rope_fields({'rope_parameters': fields})
  assert positions_read.read_rope(found, most=64)['ramp'] == ramp


YARN = {'rope_type': 'yarn', 'factor': 4.0, 'original_max_position_embeddings': 32}
LINEAR = {'type': 'linear', 'factor': 4.0}


@pytest.mark.parametrize('config, names', [
  ({'rope_scaling': YARN | {'type': 'linear'}},
   ["rope_scaling.rope_type is 'yarn'", "rope_scaling.type is 'linear'"]),
  ({'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4}, 'rope_scaling': LINEAR},
   ["rope_parameters.rope_type is 'default'", "rope_scaling.rope_type is 'linear'"]),
  ({'rope_parameters': YARN | {'beta_fast': 8}, 'rope_scaling': YARN},
   ['rope_parameters.beta_fast is 8', "rope_scaling.beta_fast is 'absent'"]),
  ({'rope_parameters': YARN | {'rope_theta': 5e5}, 'rope_scaling': YARN},
   ['rope_parameters.rope_theta is 500000', "rope_scaling.rope_theta is 'absent'"]),
  ({'rope_parameters': YARN | {'rope_theta': 5e5}, 'rope_theta': 1e4},
   ['rope_parameters.rope_theta is 500000', 'rope_theta is 10000']),
  ({'rope_scaling': YARN | {'rope_theta': 5e5}, 'rope_theta': 1e4},
   ['rope_scaling.rope_theta is 500000', 'rope_theta is 10000']),
  ({'rope_scaling': YARN, 'original_max_position_embeddings': 64},
   ['original_max_position_embeddings is 64']),
  ({'rope_parameters': {'full_attention': YARN, 'sliding_attention': {'rope_theta': 1e4}}},
   ['rope_parameters is given per layer type', 'full_attention, sliding_attention']),
  ({'rope_scaling': YARN | {'original_max_position_embeddings': 32.5}}, ['32.5', 'whole number']),
  ({'rope_scaling': YARN | {'factor': [4]}}, ['rope_scaling.factor']),
  ({'rope_scaling': 'linear'}, ["rope_scaling is 'linear'", 'object']),
  ({'rope_scaling': YARN | {'factor': math.nan}}, ['rope_scaling.factor is nan', 'number']),
])  # fmt: skip
def test_two_rules_and_what_is_no_number_are_refused(config, names):
  with pytest.raises(ValueError) as error:
    positions_read.read_rope(positions_read.rope_fields(config), most=64)
  assert all(name in str(error.value) for name in names), str(error.value)


@pytest.mark.parametrize('config', [
  {'rope_theta': '1e4', 'rope_scaling': YARN | {'original_max_position_embeddings': 32.0}},
  {'rope_parameters': YARN | {'rope_theta': 10000}, 'rope_theta': 1e4, 'rope_scaling': YARN},
  {'rope_parameters': YARN | {'rope_theta': 1e4}, 'rope_theta': '1e4', 'rope_scaling': YARN},
  {'rope_scaling': YARN | {'type': 'yarn'}, 'original_max_position_embeddings': 32},
])  # fmt: skip
def test_two_ways_to_say_one_rule_are_that_rule(config):
  wanted = positions_read.rope_fields({'rope_parameters': YARN | {'rope_theta': 1e4}})
  assert positions_read.rope_fields(config) == wanted
  assert isinstance(positions_read.read_rope(wanted, most=128)['train_length'], int)


def test_what_is_about_positions_and_is_not_understood_is_found():
  config = {
    'rope_theta': 1e4, 'rope_scaling': {'rope_type': 'default'}, 'sliding_window': 512,
    'no_rope_layers': [1, 0], 'layer_types': ['full_attention', 'sliding_attention'],
    'use_sliding_window': False, 'attn_logit_softcapping': None, 'attn': {'alibi': True},
    'attention_sinks': 4, 'query_scaling': 2.0, 'europe': 1, 'hidden_size': 8,
  }  # fmt: skip
  found = dict(positions_read.unknown(config, positions_read.ROPE))
  assert sorted(found) == ['attention_sinks', 'attn.alibi', 'layer_types', 'no_rope_layers',
                           'query_scaling', 'sliding_window']  # fmt: skip
  plain = {'layer_types': ['full_attention'] * 2}
  assert not dict(positions_read.unknown(plain, positions_read.ROPE))


@pytest.mark.parametrize('name', ROTARY)
def test_transformers_4_finds_the_same_rule_in_its_own_fields(name):
  config = published.config(name)
  fields = exporting.plan(config).fields
  rope = fields['rope_parameters']
  neox = fields['model_type'] == 'gpt_neox'
  theta, share = (
    ('rotary_emb_base', 'rotary_pct') if neox else ('rope_theta', 'partial_rotary_factor')
  )
  assert fields[theta] == rope['rope_theta']
  assert fields.get(share) == rope.get('partial_rotary_factor')
  scaling = fields.get('rope_scaling') or {'rope_type': 'default'}
  left_out = 'rope_theta', 'partial_rotary_factor'
  assert scaling == {k: v for k, v in rope.items() if k not in left_out}
  original = 'original_max_position_embeddings'
  if rope['rope_type'] == 'longrope':
    assert fields[original] == rope[original]
  if rope['rope_type'] == 'yarn':
    assert fields['max_position_embeddings'] / rope[original] == rope['factor']


def test_a_factor_that_transformers_4_would_not_compute_is_not_exported():
  scheme = configs.scheme(published.config('yarn'))
  with pytest.raises(positions_write.NotExportable, match='transformers 4 computes the factor'):
    positions_write.write_rope(scheme, width=8, length=40, layouts=('half',), partial=False)


@given(most=st.integers(4, 5000), factor=st.floats(1, 40))
@settings(max_examples=100, deadline=None)
def test_a_linear_factor_serves_what_the_model_is_for(most, factor):
  fields = {'rope_type': 'linear', 'rope_theta': 1e4, 'factor': factor}
  position = positions_read.read_rope(fields, most=most)
  length = positions_read.served(position, most)
  scheme = built(position, length=length)
  assert length <= most <= scheme.target_length + 1
  np.testing.assert_allclose(scheme.frequencies(1) * factor, 1e4 ** -(np.arange(4) / 4), rtol=1e-9)


@given(
  factor=st.floats(1, 64),
  mscale=st.none() | st.floats(0.1, 2),
  all_dim=st.none() | st.floats(0.1, 2),
  attention=st.none() | st.floats(0.5, 2),
)
@settings(max_examples=200, deadline=None)
def test_deepseek_scales_the_slice_and_the_logit(factor, mscale, all_dim, attention):
  """transformers 5.23.0, modeling_deepseek_v3.py: scaling and cos, sin."""
  fields = {'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': factor}
  fields['original_max_position_embeddings'] = 64
  given_ = {'mscale': mscale, 'mscale_all_dim': all_dim, 'attention_factor': attention}
  fields |= {name: value for name, value in given_.items() if value is not None}
  m = lambda weight: 0.1 * weight * math.log(factor) + 1
  turned = attention
  if turned is None:
    turned = m(mscale) / m(all_dim) if mscale and all_dim else m(1)
  whole = m(all_dim) if all_dim else 1.0
  scheme = built(positions_read.read_rope(fields, most=4096, sliced=True), sliced=True)
  assert math.sqrt(scheme.logit_scale(None, 64)) == pytest.approx(whole)
  assert scheme.slice_factor == pytest.approx(turned)
  # A whole head that rotates has both in one.
  scheme = built(positions_read.read_rope(fields, most=4096))
  assert math.sqrt(scheme.logit_scale(None, 64)) * scheme.slice_factor == pytest.approx(turned)


@pytest.mark.parametrize(
  'kind, more, want',
  [
    ('yarn', {}, 0.1 * math.log(4) + 1),
    ('yarn', {'attention_factor': 1.3, 'mscale': 2.0, 'mscale_all_dim': 0.5}, 1.3),
    (
      'yarn',
      {'mscale': 2.0, 'mscale_all_dim': 0.5},
      (0.2 * math.log(4) + 1) / (0.05 * math.log(4) + 1),
    ),
    ('longrope', {'short_factor': [1, 1], 'long_factor': [1, 4]}, math.sqrt(1.5)),
  ],
)
def test_a_part_that_rotates_is_scaled_alone(kind, more, want):
  fields = {'rope_type': kind, 'rope_theta': 1e4, 'factor': 4.0, 'partial_rotary_factor': 0.5}
  fields |= {'original_max_position_embeddings': 16} | more
  scheme = built(positions_read.read_rope(fields, most=64))
  assert scheme.logit_scale(None, 64) == 1
  ones, pos = jnp.ones((1, 1, 1, 8)), jnp.zeros((1, 1), jnp.int32)
  np.testing.assert_allclose(scheme.query(ones, pos, 16)[0, 0, 0], [want] * 4 + [1] * 4, rtol=1e-6)


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'rope_type': 'ntk'}, ["'ntk'", 'yarn', 'longrope']),
    ({'rope_type': 'linear', 'factor': 2, 'beta': 3}, ["'linear'", 'beta', 'factor']),
    ({'rope_type': 'llama3', 'factor': 8.0}, ["'llama3'", 'low_freq_factor']),
    ({'rope_type': 'longrope', 'factor': 2.0}, ["'longrope'", 'short_factor']),
  ],
)
def test_a_bad_field_is_named(fields, words):
  with pytest.raises(ValueError) as error:
    positions_read.read_rope({'rope_theta': 1e4} | fields, most=64)
  assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
  'position, given_, words',
  [
    ('nope', {}, ['NoPE']),
    ('t5', {}, ['T5 bias']),
    ('sinusoidal', {}, ['Sinusoidal']),
    ('dynamic_yarn', {}, ['Dynamic YaRN']),
    ('yarn', {'factor': 4.0, 'ramp': 'rotations'}, ['position.ramp']),
    ('longrope', {'factor': 4.0, 'long_factor': [1, 1, 1, 2], 'start_tokens': 2}, ['start_tokens']),
    (
      'longrope',
      {'factor': 4.0, 'long_factor': [1, 1, 1, 2], 'short_factor': [1] * 4, 'switch_length': 9},
      ['position.switch_length'],
    ),
    ('rope', {'layout': 'interleaved'}, ["'interleaved'", "'half'"]),
    ('rope', {'fraction': 0.5}, ['4 of 8', 'LlamaForCausalLM', 'GPTNeoXForCausalLM', 'model.norm']),
    ('yarn', {'factor': 4.0, 'fraction': 0.5, 'partial': 'frequencies'}, ['do not rotate']),
    ('alibi', {}, ['BloomForCausalLM', 'MptForCausalLM', 'model.norm', "'rms'"]),
    ('alibi', {'biased_heads': 3}, ['BloomForCausalLM']),
    ('learned', {}, ['GPT2LMHeadModel', 'model.mlp', 'model.attention_bias']),
  ],
)
def test_what_no_class_holds_is_not_exportable(position, given_, words):
  from pe_research.huggingface import exporting

  config = published.resolved(position, given_, {})
  with pytest.raises(ValueError) as error:
    exporting.plan(config)
  assert str(error.value).startswith('not exportable, because ')
  assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
  'position, given_, model, words',
  [
    ('alibi', {'biased_heads': 3}, published.CASES['mpt'][2], ['3 of 4 heads']),
    ('alibi', {'max_bias': 16.0}, published.CASES['mpt'][2], ['max_bias is 16', '8']),
    ('alibi', {'max_bias': 4.0}, published.CASES['bloom'][2], ['max_bias is 4', '8']),
    ('alibi', {}, published.CASES['bloom'][2] | {'mlp_width': 64}, ['mlp_width is 64', '128']),
    ('learned', {}, published.CASES['gpt2'][2] | {'head_dim': 12}, ['model.head_dim', '32']),
    ('rope', {}, {'qk_norm': True}, ['model.qk_norm']),
    ('rope', {}, {'mlp': 'squared_relu'}, ['model.mlp', "'squared_relu'"]),
    ('longrope', {'factor': 4.0, 'long_factor': [1, 2], 'temperature': 'su'},
     published.LLAMA | published.MLA, ['whole logits']),
    ('yarn', {'factor': 4.0, 'attention_factor': 0.5}, published.LLAMA | published.MLA,
     ['at least 1']),
    ('yarn', {'factor': 1.0, 'attention_factor': 1.3}, published.LLAMA | published.MLA,
     ['multiplied by 1.69', 'factor 1']),
  ],
)  # fmt: skip
def test_what_a_class_does_not_do_is_said(position, given_, model, words):
  from pe_research.huggingface import exporting

  with pytest.raises(positions_write.NotExportable) as error:
    exporting.plan(published.resolved(position, given_, model))
  assert all(word in str(error.value) for word in words), str(error.value)
