"""What one program of the attention kernel does: a tile of queries or keys, and all it sees."""

import dataclasses
import functools

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from pe_research.attention.logits import MASKED


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is fixed when the kernel is compiled, and what its programs do alike.

  Attributes:
    tile_q: queries of a tile.
    tile_k: keys of a tile.
    window: tokens that a query sees; None for all.
    segments: whether documents are told apart.
    biased: whether there is a bias.
    starts: distances at which it jumps.
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
      settings['compiler_params'] = triton.CompilerParams()  # its other compiler has no such blocks
    interpret = self.backend == 'interpreted'
    return pl.pallas_call(functools.partial(kernel, self), interpret=interpret, **settings)

  def logits(self, q, k, q_at, k_at, first_key, slope, jumps):
    """Masked float32 logits [tile_q, tile_k], and distances; slope and each jump are [1, 1]."""
    index, q_pos, q_segment = q_at
    k_pos, k_segment = k_at
    logits = _dot(q, k, 1, 1)
    distance = q_pos - k_pos
    if self.biased:
      logits += slope * distance.astype(jnp.float32)
    for i, start in enumerate(self.starts):
      logits += jnp.where(distance >= start, jumps[i], 0.0)
    ahead = index - (first_key + lax.broadcasted_iota(jnp.int32, (1, k.shape[0]), 1))
    seen = ahead >= 0
    if self.window is not None:
      seen &= ahead < self.window
    if self.segments:
      seen &= q_segment == k_segment
    return jnp.where(seen, logits, MASKED), distance

  def each(self, jumps, *head):
    """The jumps of a head, from [1, S], one by one: GPU code has arrays of powers of two alone."""
    return [jumps[*head, :, i : i + 1] for i in range(len(self.starts))]

  def columns(self, index, tiles):
    """Tiles of keys from the first to the one past the last that queries `index` see."""
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


def _dot(a, b, contract_a, contract_b):
  axes = (((contract_a,), (contract_b,)), ((), ()))
  return lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def forward_program(plan, slope, jumps, q, k, v, index, q_pos, q_seg, k_pos, k_seg, out, lse):
  """Output [tile_q, V] and logsumexp [tile_q, 1] of a tile of queries, by online softmax."""
  q, q_at = q[...], (index[...], q_pos[...], q_seg[...])
  slope, jumps = slope[...], plan.each(jumps)

  def add_tile(i, carry):
    total, weight, peak = carry
    part = pl.ds(i * plan.tile_k, plan.tile_k)
    k_at = k_pos[:, part], k_seg[:, part]
    logits, _ = plan.logits(q, k[part, :], q_at, k_at, i * plan.tile_k, slope, jumps)
    higher = jnp.maximum(peak, logits.max(1, keepdims=True))
    weights, shrink = jnp.exp(logits - higher), jnp.exp(peak - higher)
    values = v[part, :]
    added = _dot(weights.astype(values.dtype), values, 1, 0)
    return total * shrink + added, weight * shrink + weights.sum(1, keepdims=True), higher

  rows = q.shape[0]
  begin, end = plan.columns(q_at[0], k.shape[0] // plan.tile_k)
  column = lambda value: jnp.full((rows, 1), value, jnp.float32)
  carry = jnp.zeros((rows, v.shape[1]), jnp.float32), column(0.0), column(MASKED)
  total, weight, peak = lax.fori_loop(begin, end, add_tile, carry)
  out[...] = (total / weight).astype(out.dtype)
  lse[...] = peak + jnp.log(weight)


def query_program(
  plan, slope, jumps, q, k, v, index, q_pos, q_seg, k_pos, k_seg, lse, delta, grad, q_grad, b_grad
):
  """Gradients of a tile of queries, and its share of those of its head's slope and jumps."""
  q, q_at = q[...], (index[...], q_pos[...], q_seg[...])
  slope, jumps = slope[...], plan.each(jumps)
  lse, delta, grad = lse[...], delta[...], grad[...]

  def add_tile(i, carry):
    total, of_bias = carry
    part = pl.ds(i * plan.tile_k, plan.tile_k)
    k_at, keys = (k_pos[:, part], k_seg[:, part]), k[part, :]
    logits, distance = plan.logits(q, keys, q_at, k_at, i * plan.tile_k, slope, jumps)
    change = jnp.exp(logits - lse) * (_dot(grad, v[part, :], 1, 1) - delta)
    whole = lambda x: x.sum(1, keepdims=True).sum(0, keepdims=True)
    if plan.biased:
      parts = [change * distance.astype(jnp.float32)]
      parts += [jnp.where(distance >= start, change, 0.0) for start in plan.starts]
      of_bias = [a + whole(b) for a, b in zip(of_bias, parts, strict=True)]
    return total + _dot(change.astype(keys.dtype), keys, 1, 0), of_bias

  begin, end = plan.columns(q_at[0], k.shape[0] // plan.tile_k)
  zeros = [jnp.zeros((1, 1), jnp.float32)] * (1 + len(plan.starts) if plan.biased else 0)
  total, of_bias = lax.fori_loop(begin, end, add_tile, (jnp.zeros(q.shape, jnp.float32), zeros))
  q_grad[...] = total.astype(q_grad.dtype)
  if not plan.biased:
    b_grad[...] = jnp.zeros(b_grad.shape, jnp.float32)
  for i, part in enumerate(of_bias):
    b_grad[:, i : i + 1] = part


def key_program(
  plan, slope, jumps, q, k, v, index, q_pos, q_seg, k_pos, k_seg, lse, delta, grad, k_grad, v_grad
):
  """Gradients of a tile of keys and values, over all queries of the heads that share them."""
  k, v, k_at = k[...], v[...], (k_pos[...], k_seg[...])
  first_key = pl.program_id(2) * plan.tile_k
  tiles = q.shape[1] // plan.tile_q
  begin, end = plan.rows(jnp.min(index[: plan.tile_q, :]), first_key, tiles)

  def add_head(head, carry):
    bias = slope[head], plan.each(jumps, head)

    def add_tile(i, carry):
      of_k, of_v = carry
      part = pl.ds(i * plan.tile_q, plan.tile_q)
      q_at = index[part, :], q_pos[part, :], q_seg[part, :]
      queries, grads = q[head, part, :], grad[head, part, :]
      logits, _ = plan.logits(queries, k, q_at, k_at, first_key, *bias)
      weights = jnp.exp(logits - lse[head, part, :])
      change = weights * (_dot(grads, v, 1, 1) - delta[head, part, :])
      of_k += _dot(change.astype(queries.dtype), queries, 0, 0)
      return of_k, of_v + _dot(weights.astype(grads.dtype), grads, 0, 0)

    return lax.fori_loop(begin, end, add_tile, carry)

  zeros = jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
  of_k, of_v = lax.fori_loop(0, q.shape[0], add_head, zeros)
  k_grad[...], v_grad[...] = of_k.astype(k_grad.dtype), of_v.astype(v_grad.dtype)
