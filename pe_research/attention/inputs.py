"""Inputs of all attention implementations: query heads in groups, one for each key head."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention.tokens import Tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
  """Queries, keys and values, and the positions and documents of their tokens.

  Attributes:
    q: [B, G, H/G, Lq, D], scaled already.
    k: [B, G, Lk, D].
    v: [B, G, Lk, V]; None where only the weights are computed.
    queries: positions and documents of the queries.
    keys: positions and documents of the keys.
    offset: index of the first query among the keys; [B] where rows differ in it.
  """

  q: jax.Array
  k: jax.Array
  v: jax.Array | None
  queries: Tokens
  keys: Tokens
  offset: jax.Array | int

  @classmethod
  def grouped(cls, q, k, v, queries: Tokens, keys: Tokens, offset) -> 'Inputs':
    """From q [B, Lq, H, D], k [B, Lk, G, D] and v [B, Lk, G, V]."""
    groups = k.shape[2]
    q = q.reshape(*q.shape[:2], groups, q.shape[2] // groups, q.shape[-1])
    v = None if v is None else v.swapaxes(1, 2)
    return cls(q.transpose(0, 2, 3, 1, 4), k.swapaxes(1, 2), v, queries, keys, offset)

  def tile_sizes(self, tile: int) -> tuple[int, int]:
    """Queries and keys of a tile: `tile`, or fewer where there are not as many."""
    return min(tile, self.q.shape[3]), min(tile, self.k.shape[2])

  def pad(self, tile_q: int, tile_k: int) -> 'Inputs':
    """Padded to whole tiles.

    The padded keys come after every real query, so the causal mask hides them.
    """
    sizes = (self.q.shape[3], tile_q), (self.k.shape[2], tile_k)
    rows, columns = (-(-n // t) * t for n, t in sizes)

    def pad(x, size):
      return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, size - x.shape[-2]), (0, 0)])

    q, k, v = pad(self.q, rows), pad(self.k, columns), pad(self.v, columns)
    return Inputs(q, k, v, self.queries.pad(rows), self.keys.pad(columns), self.offset)

  def slice_keys(self, start, size: int) -> 'Inputs':
    """With keys and values start .. start + size - 1 alone."""
    k, v = (lax.dynamic_slice_in_dim(x, start, size, axis=2) for x in (self.k, self.v))
    return dataclasses.replace(self, k=k, v=v, keys=self.keys.slice(start, size))
