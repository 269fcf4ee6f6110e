"""Logits of attention with their bias, and which keys a query may see."""

import jax
import jax.numpy as jnp

from pe_research.attention.tokens import Tokens

MASKED = -1e30  # finite, so that a row whose first tile is all masked stays free of NaN


def visible(spec, queries: Tokens, keys: Tokens, q_index, k_index) -> jax.Array:
  """bool [B or 1, 1, 1, Lq, Lk]: keys that each query may see; indices [B or 1, Lq] and [Lk]."""
  ahead = q_index[:, :, None] - k_index[None, None]
  seen = ahead >= 0
  if spec.window is not None:
    seen &= ahead < spec.window
  if queries.segments is not None:
    seen = seen & (queries.segments[:, :, None] == keys.segments[:, None, :])
  return seen[:, None, None]


def biased(bias, q, k, q_pos, k_pos) -> jax.Array:
  """q . k + bias, float32 [B, G, H/G, Lq, Lk], of q [B, G, H/G, Lq, D] and k [B, G, Lk, D].

  Raises:
    ValueError: the bias is not of these heads, queries and keys.
  """
  logits = jnp.einsum('bgrqd,bgkd->bgrqk', q, k, preferred_element_type=jnp.float32)
  added = bias(q_pos, k_pos)
  if added is None:
    return logits
  groups, repeats, rows, columns = logits.shape[1:]
  if added.shape[1:] != (groups * repeats, rows, columns):
    raise ValueError(
      f'the bias has shape {added.shape}; [B or 1, {groups * repeats}, {rows}, {columns}] is '
      'expected.'
    )
  return logits + added.reshape(-1, groups, repeats, rows, columns)


def masked(bias, spec, q, k, queries, keys, offset) -> jax.Array:
  """`biased`, and MASKED where a query does not see the key."""
  logits = biased(bias, q, k, queries.pos, keys.pos)
  q_index, k_index = indices(offset, 0, q.shape[3]), jnp.arange(k.shape[2])
  return jnp.where(visible(spec, queries, keys, q_index, k_index), logits, MASKED)


def indices(offset, first, size: int) -> jax.Array:
  """Indices of queries first .. first + size - 1 among the keys, [B or 1, size]."""
  return jnp.atleast_1d(offset)[:, None] + first + jnp.arange(size)[None]
