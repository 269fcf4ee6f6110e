"""Decoding with a cache gives the logits of the full forward pass, for every scheme."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens

pytestmark = pytest.mark.usefixtures('extra_schemes')
CAPACITY = 16
FIXED = [n for n in tiny.NAMES if not tiny.scheme(n).depends_on_length]
LENGTHENED = [n for n in tiny.NAMES if n not in FIXED]
each_scheme = pytest.mark.parametrize('name', FIXED)
each_spec = pytest.mark.parametrize('spec', ['dense', 'tiled'])


def decode(decoder, at, spec, chunk):
  """Logits [B, L, V] of the tiny tokens, `chunk` at a time through a cache with room to spare."""
  filled = decoder.new_cache(tiny.BATCH, CAPACITY)
  # The last chunk is filled up with tokens that nothing looks back from.
  grow = lambda x: jnp.pad(jnp.asarray(x), ((0, 0), (0, -tiny.LENGTH % chunk)))
  tokens, at = grow(tiny.TOKENS), Tokens(grow(at.pos), grow(at.segments))
  logits = []
  for start in range(0, tiny.LENGTH, chunk):
    part = tokens[:, start : start + chunk], at.slice(start, chunk)
    out, filled = tiny.step(decoder, *part, spec, filled)
    logits.append(out)
  return jnp.concatenate(logits, axis=1)[:, : tiny.LENGTH]


def padded(pads):
  """Positions and documents of rows whose first tokens are padding."""
  ahead = np.arange(tiny.LENGTH) - np.array(pads)[:, None]
  return tiny.at(np.maximum(ahead, 0), ahead >= 0), ahead >= 0


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@pytest.mark.parametrize('kind, spec', tiny.CASES)
def test_one_token_at_a_time(name, kind, spec):
  decoder = tiny.decoder(name, kind)
  whole = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  tiny.close(decode(decoder, tiny.at(), spec, 1), whole)
  # With padding: what the first three tokens are must not matter.
  at, _ = padded((3, 0))
  shifted = np.stack([np.roll(tiny.TOKENS[0], -3), tiny.TOKENS[1]])
  whole = tiny.forward(decoder, shifted, tiny.at(), spec)
  logits = decode(decoder, at, spec, 1)
  tiny.close(logits[0, 3:], whole[0, :-3])
  tiny.close(logits[1], whole[1])


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@pytest.mark.parametrize('spec, chunk', [('dense window', 4), ('tiled window', 1)])
def test_under_a_sliding_window(name, spec, chunk):
  decoder = tiny.decoder(name)
  whole = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  tiny.close(decode(decoder, tiny.at(), spec, chunk), whole)
  unlimited = tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  window = tiny.WINDOW
  tiny.close(whole[:, :window], unlimited[:, :window])
  assert np.abs(whole - unlimited).max(-1)[:, window:].min() > 1e-4


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@each_spec
@pytest.mark.parametrize(
  'at', [tiny.at(), tiny.at(np.arange(13) + 17), padded((0, 5))[0]], ids=['0', '17', 'padded']
)
def test_in_chunks(name, spec, at):
  decoder = tiny.decoder(name)
  whole = tiny.forward(decoder, tiny.TOKENS, at, spec)
  true = np.asarray(at.segments) > 0
  tiny.close(decode(decoder, at, spec, 4)[true], whole[true])


@each_spec
def test_two_documents_in_one_cache(spec):
  decoder = tiny.decoder('rope')
  at = tiny.at(np.r_[0:6, 0:7], np.repeat([1, 2], [6, 7]))
  tiny.close(decode(decoder, at, spec, 4), tiny.forward(decoder, tiny.TOKENS, at, spec))


@pytest.mark.kinds
@pytest.mark.spread
@pytest.mark.parametrize('name', LENGTHENED)
@pytest.mark.parametrize(
  'kind, spec, chunk',
  [(*case, 1) for case in tiny.CASES] + [('gqa', 'dense', 4), ('gqa', 'tiled', 3)],
)
def test_the_whole_context_is_encoded_by_its_length(name, kind, spec, chunk):
  # Whatever was cached at shorter lengths, of every layer: L is 5, and chunks cross it.
  decoder = tiny.decoder(name, kind)
  logits = decode(decoder, tiny.at(), spec, chunk)
  for start in range(0, tiny.LENGTH, chunk):
    end = min(start + chunk, tiny.LENGTH)
    alone = decoder_alone(decoder, start + chunk)
    tiny.close(logits[:, start:end], alone[:, start:end])
  whole = tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  assert np.abs(logits - whole)[:, 1:3].max(-1).min() > 1e-4  # these were given as a short text


def decoder_alone(decoder, length):
  """Logits of the first `length` tokens as a text of their own, its length known beforehand."""
  at = Tokens.contiguous(min(length, tiny.LENGTH))
  return jax.jit(lambda one, tokens: one(tokens, at, Spec()))(decoder, tiny.TOKENS[:, :length])


@pytest.mark.kinds
@pytest.mark.spread
@pytest.mark.parametrize('name', LENGTHENED)
@each_spec
def test_rows_of_one_cache_have_their_own_lengths(name, spec):
  # The second row's text begins eight tokens later, so it is still short when the first is long.
  decoder = tiny.decoder(name)
  at, _ = padded((0, 8))
  logits = decode(decoder, at, spec, 1)
  rolled = np.roll(tiny.TOKENS[1], -8)[None]
  for t in (4, 5, 12):
    tiny.close(logits[0, t], decoder_alone(decoder, t + 1)[0, t])
  for t in (8, 12):
    alone = decoder(rolled[:, : t - 7], Tokens.contiguous(t - 7), Spec())
    tiny.close(logits[1, t], alone[0, -1])


@pytest.mark.kinds
@pytest.mark.parametrize('name', LENGTHENED)
def test_a_long_call_leaves_nothing_behind_for_a_short_one(name):
  decoder = tiny.decoder(name)
  short = decode(decoder, tiny.at(), 'dense', 1)[:, :4]
  tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  tiny.close(decoder_alone(decoder, 4), decoder_alone(tiny.decoder(name, seed=0), 4), 0)
  np.testing.assert_array_equal(decode(decoder, tiny.at(), 'dense', 1)[:, :4], short)


@pytest.mark.kinds
@pytest.mark.parametrize('name', LENGTHENED)
@each_spec
def test_a_prompt_at_once_is_the_forward_pass(name, spec):
  decoder = tiny.decoder(name)
  filled = decoder.new_cache(tiny.BATCH, CAPACITY)
  logits, _ = tiny.step(decoder, tiny.TOKENS, tiny.at(), spec, filled)
  tiny.close(logits, tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec))


@pytest.mark.parametrize('name', ['dynamic_ntk', 'longrope', 'owned'])
def test_capacity_changes_nothing(name):
  decoder = tiny.decoder(name)
  logits = [
    tiny.step(decoder, tiny.TOKENS, tiny.at(), 'dense', decoder.new_cache(2, capacity))[0]
    for capacity in (13, 31)
  ]
  tiny.close(*logits)


def test_a_call_leaves_its_cache_as_it_was():
  decoder = tiny.decoder('alibi')
  filled = decoder.new_cache(tiny.BATCH, CAPACITY)
  before = jax.tree.map(np.array, filled)
  first, later = tiny.step(decoder, tiny.TOKENS, tiny.at(), 'dense', filled)
  second, _ = tiny.step(decoder, tiny.TOKENS, tiny.at(), 'dense', filled)
  jax.tree.map(np.testing.assert_array_equal, filled, before)
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(later.used, [tiny.LENGTH] * tiny.BATCH)


def test_overflow_raises():
  decoder = tiny.decoder('nope')
  filled = decoder.new_cache(tiny.BATCH, tiny.LENGTH + 3)
  _, filled = tiny.step(decoder, tiny.TOKENS, tiny.at(), 'dense', filled)
  decoder.features(tiny.TOKENS[:, :3], Tokens.contiguous(3), Spec(), filled)
  with pytest.raises(ValueError, match=r'holds 16 tokens and has 13; 4 more'):
    decoder.features(tiny.TOKENS[:, :4], Tokens.contiguous(4), Spec(), filled)
