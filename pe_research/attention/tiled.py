"""Exact attention in tiles: online softmax, memory linear in length (arXiv:2205.14135)."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention.logits import MASKED, biased, indices, visible


def attention(bias, spec, q, k, v, queries, keys, offset):
  """One of the implementations of attend.attend, with the bias of one tile at a time."""
  rows, columns = q.shape[3], k.shape[2]
  tile_q, tile_k = min(spec.tile, rows), min(spec.tile, columns)
  padded_q, padded_k = (-(-n // t) * t for n, t in ((rows, tile_q), (columns, tile_k)))
  pad = lambda x, size: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, size - x.shape[-2]), (0, 0)])
  # A key past the end lies in the future of every true query, so causality masks the padding.
  q, k, v = pad(q, padded_q), pad(k, padded_k), pad(v, padded_k)
  queries, keys = queries.pad(padded_q), keys.pad(padded_k)
  # Parameters of the bias become explicit arguments, so that they get gradients.
  pure, parameters = jax.closure_convert(bias, queries.pos[:, :tile_q], keys.pos[:, :tile_k])
  out = _tiled(
    pure, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, jnp.asarray(offset, jnp.int32)
  )
  return out[..., :rows, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _tiled(bias, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, offset):
  return _forward(bias, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, offset)[0]


def _range(spec, tile_q, tile_k, tiles_k, row, offset, segments):
  """Tiles of keys that the row of query tiles sees: first, first unmasked, first masked, end."""
  first_query = jnp.min(offset) + row * tile_q
  last_query = jnp.max(offset) + (row + 1) * tile_q - 1
  end = jnp.minimum(last_query // tile_k + 1, tiles_k)
  begin = jnp.int32(0)
  if spec.window is not None:
    begin = jnp.maximum(first_query - spec.window + 1, 0) // tile_k
  if spec.window is not None or segments is not None:
    return begin, begin, end  # any tile may need the mask
  return begin, jnp.clip((first_query + 1) // tile_k, begin, end), end


def _tile(bias, spec, tile_q, tile_k, parameters, q, k, queries, keys, offset, row, column, masked):
  """Masked logits of one tile, float32 [B, G, H/G, tile_q, tile_k]."""
  keys = keys.slice(column * tile_k, tile_k)
  logits = biased(lambda a, b: bias(a, b, *parameters), q, k, queries.pos, keys.pos)
  if not masked:
    return logits
  q_index = indices(offset, row * tile_q, tile_q)
  seen = visible(spec, queries, keys, q_index, column * tile_k + jnp.arange(tile_k))
  return jnp.where(seen, logits, MASKED)


def _forward(bias, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, offset):
  out, logsumexp = partial(bias, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, offset)
  out = out.astype(v.dtype)
  return out, (parameters, q, k, v, queries, keys, offset, out, logsumexp)


def partial(bias, spec, tile_q, tile_k, parameters, q, k, v, queries, keys, offset):
  """Attention to these keys alone, float32, and the log of the sum of its weights.

  Queries and keys fill whole tiles. Where a query sees no tile, the log is minus infinity and the
  result undefined.
  """
  tiles_q, tiles_k = q.shape[3] // tile_q, k.shape[2] // tile_k

  def row_of_tiles(row):
    q_row = lax.dynamic_slice_in_dim(q, row * tile_q, tile_q, axis=3)
    at = queries.slice(row * tile_q, tile_q)
    begin, full, end = _range(spec, tile_q, tile_k, tiles_k, row, offset, at.segments)

    def add_tile(masked, column, carry):
      out, total, peak = carry
      k_tile = lax.dynamic_slice_in_dim(k, column * tile_k, tile_k, axis=2)
      v_tile = lax.dynamic_slice_in_dim(v, column * tile_k, tile_k, axis=2)
      logits = _tile(
        bias, spec, tile_q, tile_k, parameters, q_row, k_tile, at, keys, offset, row, column, masked
      )
      higher = jnp.maximum(peak, logits.max(-1))
      weights = jnp.exp(logits - higher[..., None])
      shrink = jnp.exp(peak - higher)
      added = jnp.einsum(
        'bgrqk,bgkd->bgrqd', weights.astype(v.dtype), v_tile, preferred_element_type=jnp.float32
      )
      return out * shrink[..., None] + added, total * shrink + weights.sum(-1), higher

    shape = q_row.shape[:4]
    carry = (
      jnp.zeros((*shape, v.shape[-1]), jnp.float32),
      jnp.zeros(shape, jnp.float32),
      jnp.full(shape, MASKED, jnp.float32),
    )
    carry = lax.fori_loop(begin, full, functools.partial(add_tile, False), carry)
    out, total, peak = lax.fori_loop(full, end, functools.partial(add_tile, True), carry)
    return out / total[..., None], peak + jnp.log(total)

  out, logsumexp = lax.map(row_of_tiles, jnp.arange(tiles_q))
  join = lambda x: jnp.moveaxis(x, 0, 3).reshape(*x.shape[1:4], q.shape[3], *x.shape[5:])
  return join(out), join(logsumexp)


def _backward(bias, spec, tile_q, tile_k, saved, grad):
  """Recomputes each tile's weights from the saved logsumexp (arXiv:2307.08691, alg. 2)."""
  parameters, q, k, v, queries, keys, offset, out, logsumexp = saved
  tiles_q, tiles_k = q.shape[3] // tile_q, k.shape[2] // tile_k
  delta = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
  zeros = lambda x: jnp.zeros(x.shape, jnp.float32)
  einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def row_of_tiles(carry, row):
    cut = lambda x: lax.dynamic_slice_in_dim(x, row * tile_q, tile_q, axis=3)
    q_row, grad_row, delta_row, logsumexp_row = map(cut, (q, grad, delta, logsumexp))
    at = queries.slice(row * tile_q, tile_q)
    begin, full, end = _range(spec, tile_q, tile_k, tiles_k, row, offset, at.segments)

    def add_tile(masked, column, carry):
      q_grad, k_grad, v_grad, parameter_grads = carry
      k_tile = lax.dynamic_slice_in_dim(k, column * tile_k, tile_k, axis=2)
      v_tile = lax.dynamic_slice_in_dim(v, column * tile_k, tile_k, axis=2)
      logits, pull = jax.vjp(
        lambda *p: _tile(
          bias, spec, tile_q, tile_k, p, q_row, k_tile, at, keys, offset, row, column, masked
        ),
        *parameters,
      )
      weights = jnp.exp(logits - logsumexp_row[..., None])
      weights_grad = einsum('bgrqd,bgkd->bgrqk', grad_row, v_tile)
      logits_grad = weights * (weights_grad - delta_row[..., None])
      parameter_grads = [a + b for a, b in zip(parameter_grads, pull(logits_grad), strict=True)]
      narrow = logits_grad.astype(q.dtype)
      q_grad += einsum('bgrqk,bgkd->bgrqd', narrow, k_tile)
      put = lambda whole, part: lax.dynamic_update_slice_in_dim(
        whole,
        lax.dynamic_slice_in_dim(whole, column * tile_k, tile_k, axis=2) + part,
        column * tile_k,
        axis=2,
      )
      k_grad = put(k_grad, einsum('bgrqk,bgrqd->bgkd', narrow, q_row))
      v_grad = put(v_grad, einsum('bgrqk,bgrqd->bgkd', weights.astype(v.dtype), grad_row))
      return q_grad, k_grad, v_grad, parameter_grads

    inner = (zeros(q_row), *carry)
    inner = lax.fori_loop(begin, full, functools.partial(add_tile, False), inner)
    q_grad, *carry = lax.fori_loop(full, end, functools.partial(add_tile, True), inner)
    return tuple(carry), q_grad

  carry = (zeros(k), zeros(v), [jnp.zeros_like(p) for p in parameters])
  (k_grad, v_grad, parameter_grads), q_grad = lax.scan(row_of_tiles, carry, jnp.arange(tiles_q))
  q_grad = jnp.moveaxis(q_grad, 0, 3).reshape(q.shape)
  grads = q_grad.astype(q.dtype), k_grad.astype(k.dtype), v_grad.astype(v.dtype)
  return parameter_grads, *grads, None, None, None


_tiled.defvjp(_forward, _backward)
