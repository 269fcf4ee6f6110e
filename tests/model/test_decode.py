"""Decoding with a cache gives the logits of the full forward pass, for every scheme."""

import decoder_fixtures as fixtures
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens

pytestmark = pytest.mark.usefixtures('extra_schemes')
CAPACITY = 16
FIXED = [n for n in fixtures.NAMES if not fixtures.scheme(n).depends_on_length]
LENGTHENED = [n for n in fixtures.NAMES if n not in FIXED]
each_scheme = pytest.mark.parametrize('name', FIXED)
each_spec = pytest.mark.parametrize('spec', ['dense', 'tiled'])


def decode(decoder, at, spec, chunk):
  """Logits [B, L, V] of the tiny tokens, `chunk` at a time through a cache with room to spare."""
  filled = decoder.new_cache(fixtures.BATCH, CAPACITY)
  # The last chunk is filled up with tokens that nothing looks back from.
  grow = lambda x: jnp.pad(jnp.asarray(x), ((0, 0), (0, -fixtures.LENGTH % chunk)))
  tokens, at = grow(fixtures.TOKENS), Tokens(grow(at.pos), grow(at.segments))
  logits = []
  for start in range(0, fixtures.LENGTH, chunk):
    part = tokens[:, start : start + chunk], at.slice(start, chunk)
    out, filled = fixtures.step(decoder, *part, spec, filled)
    logits.append(out)
  return jnp.concatenate(logits, axis=1)[:, : fixtures.LENGTH]


def padded(pads):
  """Positions and documents of rows whose first tokens are padding."""
  ahead = np.arange(fixtures.LENGTH) - np.array(pads)[:, None]
  return fixtures.at(np.maximum(ahead, 0), ahead >= 0), ahead >= 0


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@pytest.mark.parametrize('kind, spec', fixtures.CASES)
def test_one_token_at_a_time(name, kind, spec):
  decoder = fixtures.decoder(name, kind)
  whole = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  fixtures.close(decode(decoder, fixtures.at(), spec, 1), whole)
  # With padding: what the first three tokens are must not matter.
  at, _ = padded((3, 0))
  shifted = np.stack([np.roll(fixtures.TOKENS[0], -3), fixtures.TOKENS[1]])
  whole = fixtures.forward(decoder, shifted, fixtures.at(), spec)
  logits = decode(decoder, at, spec, 1)
  fixtures.close(logits[0, 3:], whole[0, :-3])
  fixtures.close(logits[1], whole[1])


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@pytest.mark.parametrize('spec, chunk', [('dense window', 4), ('tiled window', 1)])
def test_under_a_sliding_window(name, spec, chunk):
  decoder = fixtures.decoder(name)
  whole = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  fixtures.close(decode(decoder, fixtures.at(), spec, chunk), whole)
  unlimited = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), 'dense')
  window = fixtures.WINDOW
  fixtures.close(whole[:, :window], unlimited[:, :window])
  assert np.abs(whole - unlimited).max(-1)[:, window:].min() > 1e-4


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@each_spec
@pytest.mark.parametrize(
  'at',
  [fixtures.at(), fixtures.at(np.arange(13) + 17), padded((0, 5))[0]],
  ids=['0', '17', 'padded'],
)
def test_in_chunks(name, spec, at):
  decoder = fixtures.decoder(name)
  whole = fixtures.forward(decoder, fixtures.TOKENS, at, spec)
  true = np.asarray(at.segments) > 0
  fixtures.close(decode(decoder, at, spec, 4)[true], whole[true])


@each_spec
def test_two_documents_in_one_cache(spec):
  decoder = fixtures.decoder('rope')
  at = fixtures.at(np.r_[0:6, 0:7], np.repeat([1, 2], [6, 7]))
  fixtures.close(decode(decoder, at, spec, 4), fixtures.forward(decoder, fixtures.TOKENS, at, spec))


@pytest.mark.kinds
@pytest.mark.spread(2)
@pytest.mark.parametrize('name', LENGTHENED)
@pytest.mark.parametrize(
  'kind, spec, chunk',
  [(*case, 1) for case in fixtures.CASES] + [('gqa', 'dense', 4), ('gqa', 'tiled', 3)],
)
def test_the_whole_context_is_encoded_by_its_length(name, kind, spec, chunk):
  # Whatever was cached at shorter lengths, of every layer: L is 5, and chunks cross it.
  decoder = fixtures.decoder(name, kind)
  logits = decode(decoder, fixtures.at(), spec, chunk)
  one = {0, 4, 5, 6, fixtures.LENGTH - 1}  # token by token: beside L, and the ends
  for start in range(0, fixtures.LENGTH, chunk):
    if chunk == 1 and start not in one:
      continue
    end = min(start + chunk, fixtures.LENGTH)
    alone = decoder_alone(decoder, start + chunk)
    fixtures.close(logits[:, start:end], alone[:, start:end])
  whole = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), 'dense')
  assert np.abs(logits - whole)[:, 1:3].max(-1).min() > 1e-4  # these were given as a short text


def decoder_alone(decoder, length):
  """Logits of the first `length` tokens as a text of their own, its length known beforehand."""
  at = Tokens.contiguous(min(length, fixtures.LENGTH))
  return jax.jit(lambda one, tokens: one(tokens, at, Spec()))(decoder, fixtures.TOKENS[:, :length])


@pytest.mark.kinds
@pytest.mark.spread
@pytest.mark.parametrize('name', LENGTHENED)
@each_spec
def test_rows_of_one_cache_have_their_own_lengths(name, spec):
  # The second row's text begins eight tokens later, so it is still short when the first is long.
  decoder = fixtures.decoder(name)
  at, _ = padded((0, 8))
  logits = decode(decoder, at, spec, 1)
  rolled = np.roll(fixtures.TOKENS[1], -8)[None]
  for t in (4, 5, 12):
    fixtures.close(logits[0, t], decoder_alone(decoder, t + 1)[0, t])
  for t in (8, 12):
    alone = decoder(rolled[:, : t - 7], Tokens.contiguous(t - 7), Spec())
    fixtures.close(logits[1, t], alone[0, -1])


@pytest.mark.kinds
@pytest.mark.parametrize('name', LENGTHENED)
def test_a_long_call_leaves_nothing_behind_for_a_short_one(name):
  decoder = fixtures.decoder(name)
  short = decode(decoder, fixtures.at(), 'dense', 1)[:, :4]
  fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), 'dense')
  fixtures.close(decoder_alone(decoder, 4), decoder_alone(fixtures.decoder(name, seed=0), 4), 0)
  np.testing.assert_array_equal(decode(decoder, fixtures.at(), 'dense', 1)[:, :4], short)


@pytest.mark.kinds
@pytest.mark.parametrize('name', LENGTHENED)
@each_spec
def test_a_prompt_at_once_is_the_forward_pass(name, spec):
  decoder = fixtures.decoder(name)
  filled = decoder.new_cache(fixtures.BATCH, CAPACITY)
  logits, _ = fixtures.step(decoder, fixtures.TOKENS, fixtures.at(), spec, filled)
  fixtures.close(logits, fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec))


@pytest.mark.parametrize('name', ['dynamic_ntk', 'longrope', 'owned'])
def test_capacity_changes_nothing(name):
  decoder = fixtures.decoder(name)
  logits = [
    fixtures.step(decoder, fixtures.TOKENS, fixtures.at(), 'dense', decoder.new_cache(2, capacity))[
      0
    ]
    for capacity in (13, 31)
  ]
  fixtures.close(*logits)


def test_a_call_leaves_its_cache_as_it_was():
  decoder = fixtures.decoder('alibi')
  filled = decoder.new_cache(fixtures.BATCH, CAPACITY)
  before = jax.tree.map(np.array, filled)
  first, later = fixtures.step(decoder, fixtures.TOKENS, fixtures.at(), 'dense', filled)
  second, _ = fixtures.step(decoder, fixtures.TOKENS, fixtures.at(), 'dense', filled)
  jax.tree.map(np.testing.assert_array_equal, filled, before)
  np.testing.assert_array_equal(first, second)
  np.testing.assert_array_equal(later.used, [fixtures.LENGTH] * fixtures.BATCH)


def test_overflow_raises():
  decoder = fixtures.decoder('nope')
  filled = decoder.new_cache(fixtures.BATCH, fixtures.LENGTH + 3)
  _, filled = fixtures.step(decoder, fixtures.TOKENS, fixtures.at(), 'dense', filled)
  decoder.features(fixtures.TOKENS[:, :3], Tokens.contiguous(3), Spec(), filled)
  with pytest.raises(ValueError, match=r'holds 16 tokens and has 13; 4 more'):
    decoder.features(fixtures.TOKENS[:, :4], Tokens.contiguous(4), Spec(), filled)
