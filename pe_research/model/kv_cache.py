"""The KV cache: what every layer keeps of each token, and the tokens, positions and documents."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention.tokens import Tokens

BLOCK = 256  # tokens that a cache grows by


@dataclasses.dataclass(frozen=True)
class KVCache:
  """Preallocated slots, each row filled from its left. N is the capacity in tokens.

  Attributes:
    layers: the arrays that each layer keeps, [B, N, ...]; keys are encoded already.
    tokens: int32 [B, N], from which the layers can be recomputed.
    at: positions and documents of the slots, [B, N]; document 0 marks an empty slot or padding.
    used: int32 [B], filled slots.
  """

  layers: tuple[tuple[jax.Array, ...], ...]
  tokens: jax.Array
  at: Tokens
  used: jax.Array

  @property
  def capacity(self) -> int:
    """N."""
    return self.at.pos.shape[1]

  def place(self, tokens: jax.Array, at: Tokens) -> 'KVCache':
    """Writes new tokens, their positions and documents into the next slots of each row.

    It does not advance `used`; see `used_after`.

    Raises:
      ValueError: they do not fit; checked only outside of jit. See `reserve`.
    """
    size = at.pos.shape[1]
    if not isinstance(self.used, jax.core.Tracer):
      used = int(self.used.max())
      if used + size > self.capacity:
        raise ValueError(
          f'the cache holds {self.capacity} tokens and has {used}; {size} more do not fit. Create '
          'it with a larger capacity, or reserve room in it.'
        )
    segments = jnp.ones_like(at.pos) if at.segments is None else at.segments
    placed = Tokens(
      _write(self.at.pos, at.pos, self.used), _write(self.at.segments, segments, self.used)
    )
    return dataclasses.replace(self, tokens=_write(self.tokens, tokens, self.used), at=placed)

  def append(self, slots: Sequence[jax.Array], new: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """One layer's slots [B, N, ...] with [B or 1, L, ...] written after the filled ones."""
    return tuple(_write(old, part, self.used) for old, part in zip(slots, new, strict=True))

  def used_after(self, at: Tokens) -> jax.Array:
    """Filled slots after appending these tokens, int32 [B]; padding on the right does not count.

    So the rows may be prompts of several lengths: what follows a prompt overwrites its padding.
    """
    size = at.pos.shape[1]
    if at.segments is None:
      return self.used + size
    index = jnp.where(at.segments > 0, jnp.arange(1, size + 1)[None], 0)
    return self.used + index.max(1)

  def reserve(self, tokens: int) -> 'KVCache':
    """The cache, grown by whole blocks until each row has room for `tokens` more; not under jit."""
    needed = int(self.used.max()) + tokens
    if needed <= self.capacity:
      return self
    capacity = -(-needed // BLOCK) * BLOCK

    def grow(x):
      return jnp.pad(x, [(0, 0), (0, capacity - x.shape[1])] + [(0, 0)] * (x.ndim - 2))

    grown = jax.tree.map(grow, (self.layers, self.tokens, self.at))
    return KVCache(*grown, self.used)

  def bytes_per_token(self) -> int:
    """Bytes of the layers' allocated arrays per token."""
    slots = jax.tree.leaves(self.layers)
    return sum(x.nbytes for x in slots) // (self.at.pos.shape[0] * self.capacity)


jax.tree_util.register_dataclass(KVCache, ['layers', 'tokens', 'at', 'used'], [])


def empty(
  batch: int, capacity: int, layers: Sequence[Sequence[tuple[int, ...]]], dtype=jnp.float32
) -> KVCache:
  """A cache of `capacity` tokens; `layers` has the shapes that each layer keeps of a token."""
  slots = tuple(
    tuple(jnp.zeros((batch, capacity, *shape), dtype) for shape in shapes) for shapes in layers
  )
  ids = jnp.zeros((batch, capacity), jnp.int32)
  return KVCache(slots, ids, Tokens(ids, ids), jnp.zeros(batch, jnp.int32))


def _write(slots: jax.Array, new: jax.Array, used: jax.Array) -> jax.Array:
  """Writes [B or 1, L, ...] into [B, N, ...], row b from slot used[b] on, where it must fit."""
  new = jnp.broadcast_to(new, (slots.shape[0], *new.shape[1:])).astype(slots.dtype)
  write = functools.partial(lax.dynamic_update_slice_in_dim, axis=0)
  return jax.vmap(write)(slots, new, used)
