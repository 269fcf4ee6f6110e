"""Text from a decoder, one token at a time through the cache."""

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens, slice_rows
from pe_research.model.transformer import Decoder


def choose(logits: jax.Array, key: jax.Array, temperature: float, top_p: float) -> jax.Array:
  """The next token of each row.

  Args:
    logits: float32 [B, V].
    key: randomness.
    temperature: divides the logits; 0 takes the likeliest token.
    top_p: samples from the likeliest tokens that together have this probability (nucleus sampling,
      arXiv:1904.09751); 1 keeps all.

  Returns:
    int32 [B].
  """
  if temperature == 0:
    return logits.argmax(-1).astype(jnp.int32)
  order = jnp.argsort(-logits, axis=-1)
  ranked = jnp.take_along_axis(logits, order, axis=-1) / temperature
  before = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1) - jax.nn.softmax(ranked, axis=-1)
  kept = jnp.where(before < top_p, ranked, -jnp.inf)
  rank = jax.random.categorical(key, kept, axis=-1)
  return jnp.take_along_axis(order, rank[:, None], axis=-1)[:, 0].astype(jnp.int32)


def generate(
  decoder: Decoder,
  prompt: jax.Array,
  tokens: int,
  *,
  key: jax.Array,
  lengths: jax.Array | None = None,
  temperature: float = 1.0,
  top_p: float = 1.0,
  spec: Spec | None = None,
) -> jax.Array:
  """Continues each prompt, one token at a time through the cache.

  Args:
    decoder: a trained model.
    prompt: int [B, P], P at least 1.
    tokens: how many to add.
    lengths: int [B], tokens of each prompt, the rest being padding; None for P.
    key: randomness.
    temperature: see `choose`.
    top_p: see `choose`.
    spec: how to attend; None is dense.

  Returns:
    int32 [B, tokens].

  Raises:
    ValueError: prompt and continuation are longer than the scheme's `max_length`.
  """
  spec, (batch, length) = spec or Spec(), prompt.shape
  cache = decoder.new_cache(batch, length + tokens - 1)
  at = Tokens.contiguous(length)
  if lengths is not None:
    lengths = jnp.asarray(lengths, jnp.int32)
    at = Tokens(at.pos, (at.pos < lengths[:, None]).astype(jnp.int32))
  features, cache = decoder.features(prompt, at, spec, cache)
  if lengths is not None:
    features = slice_rows(features, lengths - 1, 1)
  keys = jax.random.split(key, tokens)

  def pick(features, key):
    return choose(decoder.logits(features[:, -1:])[:, 0], key, temperature, top_p)

  def step(carry, key):
    token, cache = carry
    at = Tokens(cache.used[:, None])
    features, cache = decoder.features(token[:, None], at, spec, cache)
    following = pick(features, key)
    return (following, cache), following

  first = pick(features, keys[0])
  _, rest = lax.scan(step, (first, cache), keys[1:])
  return jnp.concatenate([first[:, None], rest.T], axis=1)
