"""Attention as a Pallas kernel for TPUs and GPUs, its bias computed inside from distances."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import Mesh

from pe_research.attention import pallas_programs
from pe_research.attention.tokens import Tokens
from pe_research.common import sharding
from pe_research.positions.base import DistanceBias


def check_backend() -> str:
  """'tpu' or 'gpu'; ValueError where the kernel cannot run on what JAX has here."""
  backend = jax.default_backend()
  if backend == 'cpu':
    raise ValueError(
      "attention 'pallas' runs on TPUs and GPUs, and JAX has only a CPU here. Choose 'dense' or "
      "'tiled' for attention.implementation and eval.implementation, or 'interpreted' to see the "
      'kernel at work slowly.'
    )
  return backend


def attend(
  bias: DistanceBias | None,
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  queries: Tokens,
  keys: Tokens,
  offset: jax.Array | int,
  *,
  window: int | None,
  tile: int,
  interpret: bool,
  mesh: Mesh | None,
) -> jax.Array:
  """What `attend.attend` computes, a tile of logits at a time (arXiv:2307.08691).

  A program holds a tile of queries and walks over those tiles of keys that it sees, so keys and
  values of a head have to fit where the kernel runs: on a TPU in its vector memory.

  Args:
    bias: per head, of the distance; None for none.
    q: [B, G, H/G, Lq, D], scaled already.
    k: [B, G, Lk, D].
    v: [B, G, Lk, V].
    queries: positions and documents of the queries.
    keys: positions and documents of the keys.
    offset: index of the first query among the keys; [B] where rows differ in it.
    window: tokens that a query sees, itself included; None for all.
    tile: tokens on a side of a tile.
    interpret: runs the kernel step by step in XLA, on any device and slowly.
    mesh: of the devices that rows and heads are split over; None for one device.

  Returns:
    [B, G, H/G, Lq, V] in the dtype of v.
  """
  batch, groups, repeats, rows, _ = q.shape
  columns = k.shape[2]
  tiles = min(tile, rows), min(tile, columns)
  padded_q, padded_k = (-(-n // t) * t for n, t in zip((rows, columns), tiles, strict=True))
  pad = lambda x, size: jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, size - x.shape[-2]), (0, 0)])
  # A key past the end lies in the future of every true query, so causality masks the padding.
  q, k, v = pad(q, padded_q), pad(k, padded_k), pad(v, padded_k)
  index = jnp.atleast_1d(offset)[:, None] + jnp.arange(padded_q)[None]
  seen_by, seen = queries.pad(padded_q), keys.pad(padded_k)
  column = lambda x: jnp.broadcast_to(x, (batch, padded_q)).astype(jnp.int32)[..., None]
  row = lambda x: jnp.broadcast_to(x, (batch, padded_k)).astype(jnp.int32)[:, None]
  segments = queries.segments is not None
  where = (
    column(index),
    column(seen_by.pos),
    column(seen_by.segments if segments else 0),
    row(seen.pos),
    row(seen.segments if segments else 0),
  )
  backend = 'interpreted' if interpret else check_backend()
  devices = jax.device_count()
  if not interpret and mesh is None and devices > 1:
    raise ValueError(
      f"attention 'pallas' has no mesh to be split over, and here are {devices} devices; "
      "give Spec the mesh, or choose 'dense' or 'tiled'."
    )
  steps = () if bias is None else bias.starts
  plan = pallas_programs.Plan(*tiles, window, segments, bias is not None, steps, backend)
  slopes = jnp.zeros((groups, repeats, 1, 1)) if bias is None else bias.slopes
  jumps = jnp.zeros((groups, repeats, 1, 1)) if not steps else bias.jumps
  shaped = lambda x: x.astype(jnp.float32).reshape(groups, repeats, 1, -1)
  run = lambda of_heads, by_head, where: _attend(plan, *of_heads, *by_head, where)
  of_heads = shaped(slopes), shaped(jumps)
  return sharding.over_heads(run, mesh)(of_heads, (q, k, v), where)[..., :rows, :]


def _specs(plan, slopes, jumps, q, k, v):
  """Blocks of one program a tile of queries: grid (B, H, tiles)."""
  repeats = q.shape[2]
  group = lambda h: (lax.div(h, repeats), lax.rem(h, repeats))
  head = lambda x: pl.BlockSpec((None, None, *x.shape[2:]), lambda b, h, i: (*group(h), 0, 0))
  tile = lambda width: pl.BlockSpec(
    (None, None, None, plan.tile_q, width), lambda b, h, i: (b, *group(h), i, 0)
  )
  whole = lambda x: pl.BlockSpec((None, None, *x.shape[2:]), lambda b, h, i: (b, group(h)[0], 0, 0))
  at_q = pl.BlockSpec((None, plan.tile_q, 1), lambda b, h, i: (b, i, 0))
  at_k = pl.BlockSpec((None, 1, k.shape[2]), lambda b, h, i: (b, 0, 0))
  inputs = [head(slopes), head(jumps), tile(q.shape[-1]), whole(k), whole(v)]
  return inputs + [at_q] * 3 + [at_k] * 2, tile


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, slopes, jumps, q, k, v, where):
  return _forward(plan, slopes, jumps, q, k, v, where)[0]


def _forward(plan, slopes, jumps, q, k, v, where):
  batch, groups, repeats, rows, _ = q.shape
  inputs, tile = _specs(plan, slopes, jumps, q, k, v)
  out, lse = plan.call(
    pallas_programs.forward_program,
    grid=(batch, groups * repeats, rows // plan.tile_q),
    in_specs=inputs,
    out_specs=[tile(v.shape[-1]), tile(1)],
    out_shape=[
      jax.ShapeDtypeStruct((*q.shape[:4], v.shape[-1]), v.dtype),
      jax.ShapeDtypeStruct((*q.shape[:4], 1), jnp.float32),
    ],
  )(slopes, jumps, q, k, v, *where)
  return out, (slopes, jumps, q, k, v, where, out, lse)


def _backward(plan, saved, grad):
  """Recomputes each tile's weights from the saved logsumexp (arXiv:2307.08691, alg. 2)."""
  slopes, jumps, q, k, v, where, out, lse = saved
  batch, groups, repeats, rows, _ = q.shape
  delta = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
  shared = (slopes, jumps, q, k, v, *where, lse, delta, grad)
  inputs, tile = _specs(plan, slopes, jumps, q, k, v)
  tiles, biases = rows // plan.tile_q, 1 + len(plan.starts)
  q_grad, of_bias = plan.call(
    pallas_programs.query_program,
    grid=(batch, groups * repeats, tiles),
    in_specs=[*inputs, tile(1), tile(1), tile(v.shape[-1])],
    out_specs=[
      tile(q.shape[-1]),
      pl.BlockSpec((None, None, None, 1, biases), lambda b, h, i: (b, h, i, 0, 0)),
    ],
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((batch, groups * repeats, tiles, 1, biases), jnp.float32),
    ],
  )(*shared)
  heads = lambda x: pl.BlockSpec((None, *x.shape[1:]), lambda b, g, i: (g, 0, 0, 0))
  whole = lambda x: pl.BlockSpec((None, None, *x.shape[2:]), lambda b, g, i: (b, g, 0, 0, 0))
  part = lambda x: pl.BlockSpec(
    (None, None, plan.tile_k, x.shape[-1]), lambda b, g, i: (b, g, i, 0)
  )
  at_q = pl.BlockSpec((None, rows, 1), lambda b, g, i: (b, 0, 0))
  at_k = pl.BlockSpec((None, 1, plan.tile_k), lambda b, g, i: (b, 0, i))
  k_grad, v_grad = plan.call(
    pallas_programs.key_program,
    grid=(batch, groups, k.shape[2] // plan.tile_k),
    in_specs=[
      heads(slopes), heads(jumps), whole(q), part(k), part(v), *[at_q] * 3, *[at_k] * 2,
      whole(lse), whole(delta), whole(grad),
    ],
    out_specs=[part(k), part(v)],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
  )(*shared)  # fmt: skip
  of_bias = of_bias.sum((0, 2)).reshape(groups, repeats, 1, biases)
  slopes_grad = of_bias[..., :1]
  jumps_grad = of_bias[..., 1:] if plan.starts else jnp.zeros_like(jumps)
  return slopes_grad, jumps_grad, q_grad, k_grad, v_grad, None


_attend.defvjp(_forward, _backward)
