"""The KV cache: keys and values of every layer, with the positions and documents of its slots."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from pe_research import attend


@dataclasses.dataclass(frozen=True)
class KVCache:
  """Preallocated slots, filled from the left. C is the capacity in tokens.

  Attributes:
    layers: a (keys, values) pair a layer, each [B, C, G, D]; keys are encoded already.
    tokens: int32 [B, C], from which all of it can be computed anew.
    at: positions and documents of the slots, [B, C]; document 0 marks an empty slot or padding.
    used: int32 scalar, slots filled.
  """

  layers: tuple[tuple[jax.Array, jax.Array], ...]
  tokens: jax.Array
  at: attend.Tokens
  used: jax.Array

  @property
  def capacity(self) -> int:
    """Tokens that fit."""
    return self.at.pos.shape[1]

  def place(self, tokens: jax.Array, at: attend.Tokens) -> 'KVCache':
    """Writes new tokens, their positions and documents into the next slots."""
    size = at.pos.shape[1]
    if not isinstance(self.used, jax.core.Tracer) and int(self.used) + size > self.capacity:
      raise ValueError(
        f'the cache holds {self.capacity} tokens and has {int(self.used)}; {size} more do not '
        'fit. Create it with a larger capacity.'
      )
    segments = jnp.ones_like(at.pos) if at.segments is None else at.segments
    placed = attend.Tokens(
      put(self.at.pos, at.pos, self.used), put(self.at.segments, segments, self.used)
    )
    return dataclasses.replace(self, tokens=put(self.tokens, tokens, self.used), at=placed)


jax.tree_util.register_dataclass(KVCache, ['layers', 'tokens', 'at', 'used'], [])


def empty(
  batch: int, capacity: int, layers: int, groups: int, head_dim: int, dtype=jnp.float32
) -> KVCache:
  """A cache of `capacity` tokens for `layers` layers of `groups` key heads."""
  slots = jnp.zeros((batch, capacity, groups, head_dim), dtype)
  ids = jnp.zeros((batch, capacity), jnp.int32)
  at = attend.Tokens(ids, ids)
  return KVCache(((slots, slots),) * layers, ids, at, jnp.zeros((), jnp.int32))


def put(slots: jax.Array, new: jax.Array, used: jax.Array) -> jax.Array:
  """Writes [B or 1, L, ...] into [B, C, ...] from slot `used` on; the caller sees that it fits."""
  new = jnp.broadcast_to(new, (slots.shape[0], *new.shape[1:])).astype(slots.dtype)
  return lax.dynamic_update_slice_in_dim(slots, new, used, axis=1)
