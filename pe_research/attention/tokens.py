"""Where tokens stand: the position and the document of each."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Where a run of tokens stands. B is 1 where all rows of the batch agree.

  Attributes:
    pos: int32 [B, L], positions as the scheme sees them.
    segments: int32 [B, L], the document that a token belongs to (0: padding), or None for one.
      The tokens of a document follow each other, and so do their positions.
    span: positions that the one document spans, where that is known when a program is compiled.
  """

  pos: jax.Array
  segments: jax.Array | None = None
  span: int | None = None

  @classmethod
  def contiguous(cls, length: int) -> 'Tokens':
    """One document from its first token on: positions 0 .. length - 1, for all rows."""
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
    at = lambda i: jnp.take_along_axis(pos, i, axis=1)
    return at(last) - at(first) + 1

  def slice(self, start, size: int) -> 'Tokens':
    """Tokens start .. start + size - 1; `start` may be traced, and [B]: one a row."""
    cut = lambda x: None if x is None else slice_rows(x, start, size)
    return Tokens(cut(self.pos), cut(self.segments))

  def pad(self, size: int) -> 'Tokens':
    """Appends tokens of no document up to a length of `size`."""
    grow = lambda x: None if x is None else jnp.pad(x, ((0, 0), (0, size - x.shape[1])))
    return Tokens(grow(self.pos), grow(self.segments))


def slice_rows(x: jax.Array, start, size: int) -> jax.Array:
  """x [B, N, ...] from `start` on, [B, size, ...]; a start for all rows, or [B]."""
  if not jnp.ndim(start):
    return lax.dynamic_slice_in_dim(x, start, size, axis=1)
  return jax.vmap(lambda row, first: lax.dynamic_slice_in_dim(row, first, size))(x, start)


def ending(x, size: int | None):
  """The last `size` tokens of arrays [B, L, ...], or of a tree of them; all where it is None.

  What all tokens share, [B, 1] or a number, stays as it is.
  """
  if size is None:
    return x
  return jax.tree.map(lambda leaf: leaf[:, -size:] if jnp.ndim(leaf) > 1 else leaf, x)


jax.tree_util.register_dataclass(Tokens, ['pos', 'segments'], ['span'])
