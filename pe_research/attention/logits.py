"""Logits of attention with their bias, and which keys a query may see."""

import jax
import jax.numpy as jnp

from pe_research.attention.inputs import Inputs
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


def biased(bias, inputs: Inputs) -> jax.Array:
  """q . k + bias(q_pos, k_pos), float32 [B, G, H/G, Lq, Lk].

  Raises:
    ValueError: the bias does not have the shape of these heads, queries and keys.
  """
  logits = jnp.einsum('bgrqd,bgkd->bgrqk', inputs.q, inputs.k, preferred_element_type=jnp.float32)
  added = bias(inputs.queries.pos, inputs.keys.pos)
  if added is None:
    return logits
  groups, repeats, rows, columns = logits.shape[1:]
  if added.shape[1:] != (groups * repeats, rows, columns):
    raise ValueError(
      f'the bias has shape {added.shape}; [B or 1, {groups * repeats}, {rows}, {columns}] is '
      'expected.'
    )
  return logits + added.reshape(-1, groups, repeats, rows, columns)


def masked(bias, spec, inputs: Inputs) -> jax.Array:
  """`biased`, with MASKED where a query does not see the key."""
  logits = biased(bias, inputs)
  q_index, k_index = indices(inputs.offset, 0, logits.shape[3]), jnp.arange(logits.shape[4])
  return jnp.where(visible(spec, inputs.queries, inputs.keys, q_index, k_index), logits, MASKED)


def indices(offset, first, size: int) -> jax.Array:
  """Indices of queries first .. first + size - 1 among the keys, [B or 1, size]."""
  return jnp.atleast_1d(offset)[:, None] + first + jnp.arange(size)[None]
