"""The position and the document of each token."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Positions and documents of consecutive tokens. B is 1 where all rows of the batch share them.

  Attributes:
    pos: int32 [B, L], positions that the scheme gets.
    segments: int32 [B, L], the document that a token belongs to (0: padding), or None for a single
      one. The tokens of a document are adjacent and their positions increase.
    span: length of the single document, if static.
  """

  pos: jax.Array
  segments: jax.Array | None = None
  span: int | None = None

  @classmethod
  def contiguous(cls, length: int) -> 'Tokens':
    """A single document: positions 0 .. length - 1, for all rows."""
    return cls(jnp.arange(length)[None], span=length)

  def lengths(self) -> int | jax.Array:
    """Positions that each token's document spans: `span`, or int32 [B or 1, L or 1]."""
    if self.span is not None:
      return self.span
    if self.segments is None:
      pos = jnp.asarray(self.pos)
      return pos.max(1, keepdims=True) - pos.min(1, keepdims=True) + 1
    index = jnp.broadcast_to(jnp.arange(self.pos.shape[1])[None], self.segments.shape)
    pos = jnp.broadcast_to(self.pos, self.segments.shape)
    begins = jnp.pad(self.segments[:, 1:] != self.segments[:, :-1], ((0, 0), (1, 0)))
    ends = jnp.roll(begins, -1, axis=1)
    first = lax.cummax(jnp.where(begins, index, 0), axis=1)
    last = lax.cummin(jnp.where(ends, index, index.shape[1] - 1), axis=1, reverse=True)
    end = jnp.take_along_axis(pos, last, axis=1)
    return end - jnp.take_along_axis(pos, first, axis=1) + 1

  def slice(self, start, size: int) -> 'Tokens':
    """Tokens start .. start + size - 1; `start` may be traced, for all rows or [B]."""
    pos = slice_rows(self.pos, start, size)
    return Tokens(pos, None if self.segments is None else slice_rows(self.segments, start, size))

  def pad(self, size: int) -> 'Tokens':
    """Appends padding up to a length of `size`."""
    width = (0, 0), (0, size - self.pos.shape[1])
    segments = None if self.segments is None else jnp.pad(self.segments, width)
    return Tokens(jnp.pad(self.pos, width), segments)


jax.tree_util.register_dataclass(Tokens, ['pos', 'segments'], ['span'])


def slice_rows(x: jax.Array, start, size: int) -> jax.Array:
  """[B, size, ...] of x [B, N, ...] from `start` on; the start is for all rows, or [B]."""
  if not jnp.ndim(start):
    return lax.dynamic_slice_in_dim(x, start, size, axis=1)
  return jax.vmap(lambda row, first: lax.dynamic_slice_in_dim(row, first, size))(x, start)


def last_tokens(x, size: int | None):
  """The last `size` tokens of a tree of arrays [B, L, ...]; all if `size` is None.

  Numbers, and arrays [B, 1] that all tokens share, stay as they are.
  """
  if size is None:
    return x
  return jax.tree.map(lambda leaf: leaf[:, -size:] if jnp.ndim(leaf) > 1 else leaf, x)
