"""A scheme's contract with users: documented arguments, limits that raise, errors that help."""

import dataclasses
import inspect
import json
import re

import decoder_fixtures as fixtures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.positions import base

pytestmark = pytest.mark.usefixtures('extra_schemes')
DIMS = base.Dims(width=32, heads=4, rotary=8, length=16)
each_scheme = pytest.mark.parametrize('name', fixtures.NAMES)


@each_scheme
def test_every_argument_is_documented(name):
  cls = type(fixtures.scheme(name))
  documented = '\n'.join(inspect.getdoc(c.__init__) or '' for c in cls.__mro__ if c is not object)
  for argument, parameter in positions.arguments(fixtures.position(name)['name']).items():
    assert re.search(rf'^ *{argument}: \S', documented, re.M), argument
    assert parameter.default is not parameter.empty, argument
    assert parameter.annotation is not parameter.empty, argument


@each_scheme
def test_label_and_paper_are_set(name):
  cls = type(fixtures.scheme(name))
  assert cls.label and cls.__doc__
  assert re.match(r'arXiv:\d{4}\.\d{5}', cls.paper)


def test_labels_are_unique():
  labels = [cls.label for cls in positions.SCHEMES.values()]
  assert len(set(labels)) == len(labels)


@each_scheme
def test_defaults_build_the_scheme(name):
  kind, given = fixtures.position(name)['name'], fixtures.ARGUMENTS.get(name, {})
  config = json.loads(json.dumps(fixtures.position(name)))
  assert config == fixtures.position(name)
  assert config.keys() - {'name'} == positions.arguments(kind).keys()
  one = positions.build(config, DIMS, nnx.Rngs(0))
  given = {k: v for k, v in config.items() if k in given or k.endswith('factor')}
  other = positions.build({'name': kind} | given, DIMS, nnx.Rngs(0))
  assert type(one) is positions.scheme(kind)
  assert nnx.graphdef(one) == nnx.graphdef(other)
  jax.tree.map(np.testing.assert_array_equal, nnx.state(one), nnx.state(other))


@pytest.mark.parametrize(
  'config, words',
  [
    ({'name': 'rop'}, ["'rop'", 'Did you mean rope', 'alibi']),
    ({'name': 'qqqq'}, ["'qqqq'", 'Choose one of nope, learned']),
    ({'name': 'rope', 'bsae': 1.0}, ['position.bsae', "'rope'", 'Did you mean base']),
    ({'name': 'alibi', 'base': 2.0}, ['position.base', "'alibi'", 'max_bias, biased_heads']),
    ({'name': 'nope', 'base': 2.0}, ['position.base', "'nope'", 'nothing']),
    ({'name': 'learned', 'max_length': 0}, ['position.max_length', '0', 'at least 1']),
    ({'name': 'sinusoidal', 'layout': 'gpt'}, ['position.layout', "'gpt'", 'tensor2tensor']),
    ({'name': 'rope', 'layout': 'neox'}, ['position.layout', "'neox'", 'half, interleaved']),
    ({'name': 'rope', 'partial': 'all'}, ['position.partial', "'all'", 'width, frequencies']),
    ({'name': 'rope', 'fraction': 1.5}, ['position.fraction', '1.5', '(0, 1]']),
    ({'name': 'rope', 'fraction': 0.0}, ['position.fraction', '0.0', '(0, 1]']),
    ({'name': 'rope', 'fraction': 0.4}, ['rotated width', '3', 'position.fraction (0.4)']),
    (
      {'name': 'rope', 'fraction': 0.1, 'partial': 'frequencies'},
      ['position.fraction', '0.1', 'no pair of 4'],
    ),
    ({'name': 'rope', 'base': 1.0}, ['position.base', '1.0', 'above 1']),
    ({'name': 'alibi', 'max_bias': 0.0}, ['position.max_bias', '0.0', 'positive']),
    ({'name': 'alibi', 'biased_heads': 5}, ['position.biased_heads', '5', '4 heads']),
    ({'name': 'alibi', 'biased_heads': 0}, ['position.biased_heads', '0', '4 heads']),
    ({'name': 't5', 'buckets': 1}, ['position.buckets', '1', 'at least 2']),
    ({'name': 't5', 'max_distance': 16}, ['position.max_distance', '16', 'above half']),
    ({'name': 'kerple', 'kernel': 'exp'}, ['position.kernel', "'exp'", 'log, power']),
    ({'name': 'fire', 'threshold': 0.0}, ['position.threshold 0.0', 'positive']),
    ({'name': 'xpos', 'scale_base': -1.0}, ['position.scale_base', '-1.0', 'positive']),
    ({'name': 'rnope', 'period': 0}, ['position.period', '0', 'at least 1']),
    ({'name': 'rnope', 'window': -1}, ['position.window', '-1', '0']),
    ({'name': 'ssmax', 'initial': 0.0}, ['position.initial', '0.0', 'positive']),
    ({'name': 'log_n', 'train_length': 1}, ['position.train_length', '1']),
    ({'name': 'randomized', 'span': 15}, ['position.span', '15', '16 tokens']),
    ({'name': 'pose', 'factor': 2.0, 'chunks': 1}, ['position.chunks', '1', '2 to 16']),
    ({'name': 'pose', 'factor': 2.0, 'text': 'hole'}, ['position.text', "'hole'", 'parted, whole']),
    ({'name': 'drope', 'coefficient': -1.0}, ['position.coefficient', '-1.0', 'at least 0']),
  ],
)
def test_a_bad_value_is_named_with_its_field(config, words):
  with pytest.raises(ValueError) as error:
    positions.build(config, DIMS, nnx.Rngs(0))
  for word in words:
    assert word in str(error.value)


def test_sizes_that_a_scheme_cannot_take():
  with pytest.raises(ValueError, match=r'rotated width of a head is 7 .* even'):
    positions.build({'name': 'rope'}, dataclasses.replace(DIMS, rotary=7), nnx.Rngs(0))
  with pytest.raises(ValueError, match='width of at least 4; got 3'):
    positions.build({'name': 'sinusoidal'}, dataclasses.replace(DIMS, width=3), nnx.Rngs(0))


def limited():
  decoder = fixtures.decoder('learned')
  assert decoder.position[0].max_length == fixtures.TRAINED
  return decoder


def test_past_max_length_raises():
  decoder, long = limited(), fixtures.TRAINED + 1
  tokens = np.zeros((1, long), np.int32)
  with pytest.raises(ValueError, match=r"'Learned' holds 32 positions; asked for 33"):
    decoder(tokens, Tokens.contiguous(long), Spec())
  with pytest.raises(ValueError, match='asked for 33'):
    jax.eval_shape(lambda: decoder(tokens, Tokens.contiguous(long), Spec()))
  with pytest.raises(ValueError, match='asked for 33'):
    decoder.new_cache(1, long)
  decoder.new_cache(1, fixtures.TRAINED)
  with pytest.raises(ValueError, match='asked for 33'):
    decoder.position[0].embed(jnp.ones((1, 1, 32)), jnp.array([[32]]))
  decoder.position[0].embed(jnp.ones((1, 1, 32)), jnp.array([[31]]))


def test_past_max_length_inside_a_program_reads_nan():
  decoder = limited()
  pos = np.stack([np.arange(19, 32), np.arange(20, 33)])
  rows = jax.jit(decoder.position[0].embed)(jnp.zeros((2, 13, 32)), pos)
  assert np.isnan(rows[1, -1]).all()
  assert np.isfinite(rows[0]).all() and np.isfinite(rows[1, :-1]).all()
  logits = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(pos), 'dense')
  assert np.isnan(logits[1, -1]).all() and np.isfinite(logits[0]).all()


def test_positions_may_be_constants_of_a_program():
  decoder, at = limited(), fixtures.at()
  got = jax.jit(lambda tokens: decoder(tokens, at, Spec()))(fixtures.TOKENS)
  fixtures.close(got, fixtures.forward(decoder, fixtures.TOKENS, at, 'dense'))


@pytest.mark.parametrize('jitted', [False, True])
def test_a_position_before_the_first_reads_no_row(jitted):
  scheme = limited().position[0]
  embed = jax.jit(scheme.embed) if jitted else scheme.embed
  try:
    rows = embed(jnp.zeros((1, 2, 32)), jnp.array([[-1, 0]]))
  except ValueError:
    assert not jitted
    return
  assert np.isnan(rows[0, 0]).all() and np.isfinite(rows[0, 1]).all()


@pytest.mark.parametrize(
  'token',
  [
    fixtures.VOCAB,
    -1,
  ],
)
def test_a_token_outside_the_vocabulary_reads_no_row(token):
  tokens = fixtures.TOKENS.copy()
  tokens[0, 5] = token
  logits = fixtures.forward(fixtures.decoder('nope'), tokens, fixtures.at(), 'dense')
  assert np.isnan(logits[0, 5:]).all() and np.isfinite(logits[1]).all()
