"""The cache: its size, rows of several lengths, growth in blocks."""

import functools

import decoder_fixtures as fixtures
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from pe_research.attention.tokens import Tokens
from pe_research.model import generation, kv_cache, transformer

LENGTHS = np.array([3, 9, 1])
PROMPTS = np.random.default_rng(5).integers(0, fixtures.VOCAB, (3, 9))
EXTRA = 4


def shapes(name, **changes):
  config = fixtures.config(**changes)
  position = fixtures.position(name, config.rotary_dim or config.head_dim)
  make = lambda: transformer.Decoder(config, position, fixtures.TRAINED, key=jax.random.key(0))
  return nnx.eval_shape(make)


@hypothesis.given(
  layers=st.integers(1, 3),
  groups=st.integers(1, 4),
  repeats=st.integers(1, 3),
  head_dim=st.sampled_from([4, 6, 8]),
  latent=st.integers(1, 40),
  slice_=st.sampled_from([2, 4, 8]),
  dtype=st.sampled_from(['float32', 'bfloat16']),
)
@hypothesis.settings(deadline=None, max_examples=20)
def test_a_token_takes_what_the_formula_says(
  layers, groups, repeats, head_dim, latent, slice_, dtype
):
  size, heads = {'float32': 4, 'bfloat16': 2}[dtype], groups * repeats
  common = {'layers': layers, 'heads': heads, 'head_dim': head_dim, 'dtype': dtype}
  mla = {'projection': 'mla', 'kv_heads': heads, 'latent': latent, 'query_latent': 0}
  mla |= {'rotary_dim': slice_, 'value_dim': head_dim}
  wanted = [
    ({'projection': 'mha', 'kv_heads': heads}, 'rope', 2 * heads * head_dim),
    ({'projection': 'gqa', 'kv_heads': groups}, 'alibi', 2 * groups * head_dim),
    ({'projection': 'mqa', 'kv_heads': 1}, 'rope', 2 * head_dim),
    (mla, 'rope', latent + slice_),
    (mla, 'alibi', latent),
  ]
  for changes, name, numbers in wanted:
    filled = shapes(name, **common, **changes).new_cache(2, 5)
    assert filled.bytes_per_token() == numbers * layers * size
    assert sum(x.nbytes for x in jax.tree.leaves(filled.layers)) == numbers * layers * size * 2 * 5


@functools.partial(jax.jit, static_argnames='spec')
def step(decoder, tokens, at, spec, filled):
  features, filled = decoder.features(tokens, at, spec, filled)
  return decoder.logits(features), filled


@functools.partial(jax.jit, static_argnames='spec')
def forward(decoder, tokens, at, spec):
  return decoder(tokens, at, spec)


@pytest.mark.spread(2)
@pytest.mark.parametrize('kind', ['gqa', 'mla'])
@pytest.mark.parametrize('name', ['rope', 'alibi', 't5', 'learned', 'dynamic_ntk', 'longrope'])
@pytest.mark.parametrize('spec', ['dense', 'tiled'])
def test_prompts_of_several_lengths_in_one_batch(name, kind, spec):
  decoder, spec = fixtures.decoder(name, kind), fixtures.SPECS[spec]
  whole = np.random.default_rng(6).integers(0, fixtures.VOCAB, (3, LENGTHS.max() + EXTRA))
  pos = jnp.arange(LENGTHS.max())[None]
  at = Tokens(pos, (pos < LENGTHS[:, None]).astype(jnp.int32))
  logits, filled = step(decoder, whole[:, : LENGTHS.max()], at, spec, decoder.new_cache(3, 20))
  np.testing.assert_array_equal(filled.used, LENGTHS)
  following = [logits[np.arange(3), LENGTHS - 1]]
  for i in range(EXTRA):
    tokens = whole[np.arange(3), LENGTHS + i][:, None]
    logits, filled = step(decoder, tokens, Tokens(filled.used[:, None]), spec, filled)
    following.append(logits[:, 0])
  size = whole.shape[1]
  for i, got in enumerate(following):  # as if there were nothing after that token, and no other row
    last = LENGTHS + i
    seen = (np.arange(size) < last[:, None]).astype(np.int32)
    alone = forward(decoder, whole, Tokens(jnp.arange(size)[None], seen), spec)
    fixtures.close(got, alone[np.arange(3), last - 1])


def test_generation_from_prompts_of_several_lengths():
  decoder = fixtures.decoder('rope', 'mla')
  generate = functools.partial(generation.generate, decoder, key=jax.random.key(0), temperature=0)
  run = lambda *given, **more: jax.jit(lambda: generate(*given, **more))()
  together = run(PROMPTS, 5, lengths=LENGTHS)
  for row, length in enumerate(LENGTHS):
    np.testing.assert_array_equal(together[row], run(PROMPTS[row : row + 1, :length], 5)[0])


@pytest.mark.parametrize('name', ['rope', 'longrope'])
def test_a_grown_cache_goes_on(name):
  decoder, at = fixtures.decoder(name, 'mla'), Tokens.contiguous(fixtures.LENGTH)
  filled, logits = decoder.new_cache(fixtures.BATCH, 8), []
  for i in range(fixtures.LENGTH):
    filled = decoder.reserve(filled, 1)
    part = fixtures.TOKENS[:, i : i + 1], at.slice(i, 1)
    out, filled = step(decoder, *part, fixtures.SPECS['dense'], filled)
    logits.append(out)
    assert filled.capacity == (8 if i < 8 else kv_cache.BLOCK)
  last = forward(decoder, fixtures.TOKENS, at, fixtures.SPECS['dense'])[:, -1:]
  fixtures.close(logits[-1], last)


def test_no_room_is_made_past_what_a_scheme_reaches():
  decoder = fixtures.decoder('learned')
  filled = decoder.new_cache(1, 8)
  assert decoder.reserve(filled, fixtures.TRAINED).capacity == kv_cache.BLOCK
  with pytest.raises(ValueError, match=f'holds {fixtures.TRAINED} positions; asked for 33'):
    decoder.reserve(filled, fixtures.TRAINED + 1)


def test_room_is_made_in_whole_blocks_and_only_where_it_lacks():
  filled = kv_cache.empty(2, 4, [[(1, 3)]])
  assert filled.reserve(4) is filled
  grown = filled.reserve(kv_cache.BLOCK + 1)
  assert grown.capacity == 2 * kv_cache.BLOCK
  assert grown.layers[0][0].shape == (2, 2 * kv_cache.BLOCK, 1, 3)
  assert grown.tokens.shape == grown.at.pos.shape == (2, 2 * kv_cache.BLOCK)
