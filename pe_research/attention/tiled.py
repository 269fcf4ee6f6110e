"""Exact attention in tiles: online softmax, memory linear in length (arXiv:2205.14135)."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention.inputs import Inputs
from pe_research.attention.logits import MASKED, biased, indices, visible
from pe_research.attention.spec import Spec


@dataclasses.dataclass(frozen=True)
class Tiling:
  """What is fixed when a tiled program is compiled.

  Attributes:
    bias: computes that of a tile from the positions of its queries and keys and from parameters.
    spec: how to attend.
    tile_q: queries of a tile.
    tile_k: keys of a tile.
  """

  bias: Callable[..., jax.Array | None]
  spec: Spec
  tile_q: int
  tile_k: int

  @classmethod
  def of(cls, bias, spec: Spec, inputs: Inputs, tile_q: int, tile_k: int) -> tuple['Tiling', list]:
    """The tiling, and the parameters of the bias: as explicit arguments they get gradients."""
    pos = inputs.queries.pos[:, :tile_q], inputs.keys.pos[:, :tile_k]
    pure, parameters = jax.closure_convert(bias, *pos)
    return cls(pure, spec, tile_q, tile_k), parameters

  def cut(self, x: jax.Array, row) -> jax.Array:
    """x [B, G, H/G, Lq, ...] of the queries in one row of tiles."""
    return lax.dynamic_slice_in_dim(x, row * self.tile_q, self.tile_q, axis=3)

  def columns(self, inputs: Inputs, row, tiles_k: int):
    """Tiles of keys that a row of tiles sees: the first, the first masked one, and the end.

    `inputs` have the queries of that row.
    """
    window, segments = self.spec.window, inputs.queries.segments
    first_query = jnp.min(inputs.offset) + row * self.tile_q
    last_query = jnp.max(inputs.offset) + (row + 1) * self.tile_q - 1
    end = jnp.minimum(last_query // self.tile_k + 1, tiles_k)
    begin = jnp.int32(0)
    if window is not None:
      begin = jnp.maximum(first_query - window + 1, 0) // self.tile_k
    if window is not None or segments is not None:
      return begin, begin, end  # any tile may need the mask
    return begin, jnp.clip((first_query + 1) // self.tile_k, begin, end), end

  def logits(self, parameters, inputs: Inputs, row, column, masked: bool) -> jax.Array:
    """Logits of one tile, float32 [B, G, H/G, tile_q, tile_k]; `inputs` are those of the tile."""
    logits = biased(lambda q_pos, k_pos: self.bias(q_pos, k_pos, *parameters), inputs)
    if not masked:
      return logits
    q_index = indices(inputs.offset, row * self.tile_q, self.tile_q)
    k_index = column * self.tile_k + jnp.arange(self.tile_k)
    seen = visible(self.spec, inputs.queries, inputs.keys, q_index, k_index)
    return jnp.where(seen, logits, MASKED)


def attention(bias, spec: Spec, inputs: Inputs) -> jax.Array:
  """An implementation of attend.attend that computes the bias one tile at a time."""
  rows, sizes = inputs.q.shape[3], inputs.tile_sizes(spec.tile)
  inputs = inputs.pad(*sizes)
  tiling, parameters = Tiling.of(bias, spec, inputs, *sizes)
  inputs = dataclasses.replace(inputs, offset=jnp.asarray(inputs.offset, jnp.int32))
  return _tiled(tiling, parameters, inputs)[..., :rows, :]


def out_and_logsumexp(tiling: Tiling, parameters, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
  """Attention to these keys alone, float32, and the log of the sum of its weights.

  Queries and keys fill whole tiles. Where a query sees no tile, the log is minus infinity and the
  output undefined.
  """
  q, v = inputs.q, inputs.v
  tiles_q, tiles_k = q.shape[3] // tiling.tile_q, v.shape[2] // tiling.tile_k

  def row_of_tiles(row):
    q_row = tiling.cut(q, row)
    at = inputs.queries.slice(row * tiling.tile_q, tiling.tile_q)
    queries = dataclasses.replace(inputs, q=q_row, queries=at)
    begin, full, end = tiling.columns(queries, row, tiles_k)

    def add_tile(masked, column, carry):
      out, total, peak = carry
      tile = queries.slice_keys(column * tiling.tile_k, tiling.tile_k)
      logits = tiling.logits(parameters, tile, row, column, masked)
      higher = jnp.maximum(peak, logits.max(-1))
      weights = jnp.exp(logits - higher[..., None])
      shrink = jnp.exp(peak - higher)
      added = jnp.einsum(
        'bgrqk,bgkd->bgrqd', weights.astype(v.dtype), tile.v, preferred_element_type=jnp.float32
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
  return _joined(out), _joined(logsumexp)


def _joined(rows: jax.Array) -> jax.Array:
  """Rows of tiles [tiles, B, G, H/G, tile_q, ...] as [B, G, H/G, Lq, ...]."""
  rows = jnp.moveaxis(rows, 0, 3)
  return rows.reshape(*rows.shape[:3], -1, *rows.shape[5:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tiled(tiling: Tiling, parameters, inputs: Inputs) -> jax.Array:
  return _forward(tiling, parameters, inputs)[0]


def _forward(tiling: Tiling, parameters, inputs: Inputs):
  out, logsumexp = out_and_logsumexp(tiling, parameters, inputs)
  out = out.astype(inputs.v.dtype)
  return out, (parameters, inputs, out, logsumexp)


def _backward(tiling: Tiling, saved, grad):
  """Recomputes each tile's weights from the saved logsumexp (arXiv:2307.08691, alg. 2)."""
  parameters, inputs, out, logsumexp = saved
  q, k, v, tile_q, tile_k = inputs.q, inputs.k, inputs.v, tiling.tile_q, tiling.tile_k
  tiles_q, tiles_k = q.shape[3] // tile_q, k.shape[2] // tile_k
  delta = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
  einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

  def zeros(x):
    return jnp.zeros(x.shape, jnp.float32)

  def row_of_tiles(carry, row):
    rows = (tiling.cut(x, row) for x in (q, grad, delta, logsumexp))
    q_row, grad_row, delta_row, logsumexp_row = rows
    at = inputs.queries.slice(row * tile_q, tile_q)
    queries = dataclasses.replace(inputs, q=q_row, queries=at)
    begin, full, end = tiling.columns(queries, row, tiles_k)

    def add_tile(masked, column, carry):
      q_grad, k_grad, v_grad, parameter_grads = carry
      tile = queries.slice_keys(column * tile_k, tile_k)
      logits, pull = jax.vjp(lambda *p: tiling.logits(p, tile, row, column, masked), *parameters)
      weights = jnp.exp(logits - logsumexp_row[..., None])
      weights_grad = einsum('bgrqd,bgkd->bgrqk', grad_row, tile.v)
      logits_grad = weights * (weights_grad - delta_row[..., None])
      parameter_grads = [a + b for a, b in zip(parameter_grads, pull(logits_grad), strict=True)]
      narrow = logits_grad.astype(q.dtype)
      q_grad += einsum('bgrqk,bgkd->bgrqd', narrow, tile.k)

      def add(whole, part):
        start = column * tile_k
        total = lax.dynamic_slice_in_dim(whole, start, tile_k, axis=2) + part
        return lax.dynamic_update_slice_in_dim(whole, total, start, axis=2)

      k_grad = add(k_grad, einsum('bgrqk,bgrqd->bgkd', narrow, q_row))
      v_grad = add(v_grad, einsum('bgrqk,bgrqd->bgkd', weights.astype(v.dtype), grad_row))
      return q_grad, k_grad, v_grad, parameter_grads

    inner = (zeros(q_row), *carry)
    inner = lax.fori_loop(begin, full, functools.partial(add_tile, False), inner)
    q_grad, *carry = lax.fori_loop(full, end, functools.partial(add_tile, True), inner)
    return tuple(carry), q_grad

  carry = (zeros(k), zeros(v), [jnp.zeros_like(p) for p in parameters])
  (k_grad, v_grad, parameter_grads), q_grad = lax.scan(row_of_tiles, carry, jnp.arange(tiles_q))
  grads = _joined(q_grad).astype(q.dtype), k_grad.astype(k.dtype), v_grad.astype(v.dtype)
  return parameter_grads, Inputs(*grads, None, None, None)


_tiled.defvjp(_forward, _backward)
