"""The programs of the attention kernel: each has a tile of queries or keys and loops over the rest.

attention/pallas.py calls them over a grid. Their arguments after the plan are references to blocks.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from pe_research.attention.logits import MASKED


class QueryTokens(NamedTuple):
  """int32, [Lq, 1] each: indices among the keys, positions and documents of queries."""

  index: jax.Array
  pos: jax.Array
  segments: jax.Array

  def read(self, rows=slice(None)) -> 'QueryTokens':
    """Those of a slice of the queries, from references."""
    return QueryTokens(*(ref[rows, :] for ref in self))


class KeyTokens(NamedTuple):
  """int32, [1, Lk] each: positions and documents of keys."""

  pos: jax.Array
  segments: jax.Array

  def read(self, columns=slice(None)) -> 'KeyTokens':
    """Those of a slice of the keys, from references."""
    return KeyTokens(*(ref[:, columns] for ref in self))


class Bias(NamedTuple):
  """float32: the slope and the S jumps of every head, see positions.base.DistanceBias."""

  slopes: jax.Array
  jumps: jax.Array


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is fixed when the kernel is compiled, and what its programs share.

  Attributes:
    tile_q: queries of a tile.
    tile_k: keys of a tile.
    window: tokens that a query sees; None for all.
    segments: whether documents are told apart.
    biased: whether there is a bias.
    starts: distances at which the bias jumps.
    backend: 'tpu', 'gpu', or 'interpreted'.
  """

  tile_q: int
  tile_k: int
  window: int | None
  segments: bool
  biased: bool
  starts: tuple[int, ...]
  backend: str

  def call(self, kernel, **settings):
    """`pl.pallas_call` of a program that takes this plan first."""
    if self.backend == 'gpu':
      settings['compiler_params'] = triton.CompilerParams()  # Mosaic has no such blocks
    interpret = self.backend == 'interpreted'
    return pl.pallas_call(functools.partial(kernel, self), interpret=interpret, **settings)

  def bias(self, bias: Bias, head=...):
    """A head's slope [1, 1], and its jumps, from [1, S], one by one.

    GPU kernels only support shapes that are powers of two, so jumps are read one by one.
    """
    index = () if head is ... else (head,)
    slope = bias.slopes[head]
    return slope, [bias.jumps[*index, :, i : i + 1] for i in range(len(self.starts))]

  def logits(self, q, k, q_at: QueryTokens, k_at: KeyTokens, first_key, bias):
    """Masked float32 logits [tile_q, tile_k], and distances; `bias` as that of `Plan.bias`."""
    logits, distance = _dot(q, k, 1, 1), q_at.pos - k_at.pos
    slope, jumps = bias
    if self.biased:
      logits += slope * distance.astype(jnp.float32)
    for start, jump in zip(self.starts, jumps, strict=True):
      logits += jnp.where(distance >= start, jump, 0.0)
    ahead = q_at.index - (first_key + lax.broadcasted_iota(jnp.int32, (1, k.shape[0]), 1))
    seen = ahead >= 0
    if self.window is not None:
      seen &= ahead < self.window
    if self.segments:
      seen &= q_at.segments == k_at.segments
    return jnp.where(seen, logits, MASKED), distance

  def columns(self, index, tiles):
    """Tiles of keys that queries `index` see: the first, and one past the last."""
    end = jnp.minimum(lax.div(jnp.max(index), self.tile_k) + 1, tiles)
    if self.window is None:
      return 0, end
    return lax.div(jnp.maximum(jnp.min(index) - self.window + 1, 0), self.tile_k), end

  def rows(self, first_query, first_key, tiles):
    """Tiles of queries that see keys from `first_key` on; `first_query` is the first's index."""
    begin = lax.div(jnp.maximum(first_key - first_query, 0), self.tile_q)
    if self.window is None:
      return begin, tiles
    past_last = first_key + self.tile_k - 1 + self.window - first_query
    return begin, jnp.minimum(
      lax.div(jnp.maximum(past_last, 0) + self.tile_q - 1, self.tile_q), tiles
    )


def forward_program(plan, bias, q, k, v, q_at, k_at, out, lse):
  """Output [tile_q, V] and logsumexp [tile_q, 1] of a tile of queries, by online softmax."""
  q, q_at, bias = q[...], q_at.read(), plan.bias(bias)

  def add_tile(i, carry):
    total, weight, peak = carry
    part = pl.ds(i * plan.tile_k, plan.tile_k)
    at = k_at.read(part)
    logits, _ = plan.logits(q, k[part, :], q_at, at, i * plan.tile_k, bias)
    higher = jnp.maximum(peak, logits.max(1, keepdims=True))
    weights, shrink = jnp.exp(logits - higher), jnp.exp(peak - higher)
    values = v[part, :]
    added = _dot(weights.astype(values.dtype), values, 1, 0)
    return total * shrink + added, weight * shrink + weights.sum(1, keepdims=True), higher

  def column(value):
    return jnp.full((q.shape[0], 1), value, jnp.float32)

  begin, end = plan.columns(q_at.index, k.shape[0] // plan.tile_k)
  carry = jnp.zeros((q.shape[0], v.shape[1]), jnp.float32), column(0.0), column(MASKED)
  total, weight, peak = lax.fori_loop(begin, end, add_tile, carry)
  out[...] = (total / weight).astype(out.dtype)
  lse[...] = peak + jnp.log(weight)


def query_program(plan, bias, q, k, v, q_at, k_at, lse, delta, grad, q_grad, bias_grad):
  """Gradients of a tile of queries, and its share of those of its head's slope and jumps."""
  q, q_at, bias = q[...], q_at.read(), plan.bias(bias)
  lse, delta, grad = lse[...], delta[...], grad[...]

  def add_tile(i, carry):
    of_q, of_bias = carry
    part = pl.ds(i * plan.tile_k, plan.tile_k)
    at, keys = k_at.read(part), k[part, :]
    logits, distance = plan.logits(q, keys, q_at, at, i * plan.tile_k, bias)
    change = jnp.exp(logits - lse) * (_dot(grad, v[part, :], 1, 1) - delta)
    if plan.biased:
      parts = [change * distance.astype(jnp.float32)]
      parts += [jnp.where(distance >= start, change, 0.0) for start in plan.starts]
      sums = [x.sum(1, keepdims=True).sum(0, keepdims=True) for x in parts]
      of_bias = [a + b for a, b in zip(of_bias, sums, strict=True)]
    return of_q + _dot(change.astype(keys.dtype), keys, 1, 0), of_bias

  begin, end = plan.columns(q_at.index, k.shape[0] // plan.tile_k)
  zeros = [jnp.zeros((1, 1), jnp.float32)] * (1 + len(plan.starts) if plan.biased else 0)
  of_q, of_bias = lax.fori_loop(begin, end, add_tile, (jnp.zeros(q.shape, jnp.float32), zeros))
  q_grad[...] = of_q.astype(q_grad.dtype)
  if not plan.biased:
    bias_grad[...] = jnp.zeros(bias_grad.shape, jnp.float32)
  for i, part in enumerate(of_bias):
    bias_grad[:, i : i + 1] = part


def key_program(plan, bias, q, k, v, q_at, k_at, lse, delta, grad, k_grad, v_grad):
  """Gradients of a tile of keys and values, over all queries of the heads that share them."""
  k, v, k_at = k[...], v[...], k_at.read()
  first_key = pl.program_id(2) * plan.tile_k
  tiles = q.shape[1] // plan.tile_q
  begin, end = plan.rows(jnp.min(q_at.index[: plan.tile_q, :]), first_key, tiles)

  def add_head(head, carry):
    of_head = plan.bias(bias, head)

    def add_tile(i, carry):
      of_k, of_v = carry
      part = pl.ds(i * plan.tile_q, plan.tile_q)
      at = q_at.read(part)
      queries, grads = q[head, part, :], grad[head, part, :]
      logits, _ = plan.logits(queries, k, at, k_at, first_key, of_head)
      weights = jnp.exp(logits - lse[head, part, :])
      change = weights * (_dot(grads, v, 1, 1) - delta[head, part, :])
      of_k += _dot(change.astype(queries.dtype), queries, 0, 0)
      return of_k, of_v + _dot(weights.astype(grads.dtype), grads, 0, 0)

    return lax.fori_loop(begin, end, add_tile, carry)

  zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
  of_k, of_v = lax.fori_loop(0, q.shape[0], add_head, zeros)
  k_grad[...], v_grad[...] = of_k.astype(k_grad.dtype), of_v.astype(v_grad.dtype)


def _dot(a, b, contract_a, contract_b):
  axes = (((contract_a,), (contract_b,)), ((), ()))
  return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)
