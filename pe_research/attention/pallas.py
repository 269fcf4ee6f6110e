"""Attention as a Pallas kernel for TPUs and GPUs, its bias computed inside from distances."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from pe_research.attention import pallas_programs
from pe_research.attention.inputs import Inputs
from pe_research.attention.pallas_programs import Bias, KeyTokens, QueryTokens
from pe_research.attention.spec import Spec
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


def attention(bias: DistanceBias | None, spec: Spec, inputs: Inputs) -> jax.Array:
  """An implementation of attend.attend, a tile of logits at a time (arXiv:2307.08691).

  A program holds a tile of queries and loops over the tiles of keys that it sees, so the keys and
  values of a head have to fit where the kernel runs: on a TPU in its vector memory.
  """
  batch, groups, repeats, rows, _ = inputs.q.shape
  tiles = inputs.tile_sizes(spec.tile)
  inputs = inputs.pad(*tiles)
  padded_q, padded_k = inputs.q.shape[3], inputs.k.shape[2]
  index = jnp.atleast_1d(inputs.offset)[:, None] + jnp.arange(padded_q)[None]
  queries, keys = inputs.queries, inputs.keys
  segments = queries.segments is not None

  def each(length, *of_tokens):
    return (jnp.broadcast_to(x, (batch, length)).astype(jnp.int32) for x in of_tokens)

  q_at = each(padded_q, index, queries.pos, queries.segments if segments else 0)
  k_at = each(padded_k, keys.pos, keys.segments if segments else 0)
  at = QueryTokens(*(x[..., None] for x in q_at)), KeyTokens(*(x[:, None] for x in k_at))
  backend = 'interpreted' if spec.implementation == 'interpreted' else check_backend()
  devices = jax.device_count()
  if backend != 'interpreted' and spec.mesh is None and devices > 1:
    raise ValueError(
      f"attention 'pallas' needs a mesh to be split over the {devices} devices here; give Spec the "
      "mesh, or choose 'dense' or 'tiled'."
    )
  starts = () if bias is None else bias.starts
  plan = pallas_programs.Plan(*tiles, spec.window, segments, bias is not None, starts, backend)
  slopes = jnp.zeros((groups, repeats, 1, 1)) if bias is None else bias.slopes
  jumps = jnp.zeros((groups, repeats, 1, 1)) if not starts else bias.jumps
  of_heads = Bias(*(x.astype(jnp.float32).reshape(groups, repeats, 1, -1) for x in (slopes, jumps)))
  run = sharding.over_heads(functools.partial(_attend, plan), spec.mesh)
  return run(of_heads, (inputs.q, inputs.k, inputs.v), at)[..., :rows, :]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(plan, bias, qkv, at):
  return _forward(plan, bias, qkv, at)[0]


def _blocks(plan, bias, qkv):
  """Blocks of one program a tile of queries, grid (B, H, tiles), and those of [..., Lq, width]."""
  q, k, v = qkv
  repeats = q.shape[2]

  def group(h):
    return lax.div(h, repeats), lax.rem(h, repeats)

  def head(x):
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, h, i: (*group(h), 0, 0))

  def tile(width):
    shape = None, None, None, plan.tile_q, width
    return pl.BlockSpec(shape, lambda b, h, i: (b, *group(h), i, 0))

  def whole(x):
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, h, i: (b, group(h)[0], 0, 0))

  q_at = pl.BlockSpec((None, plan.tile_q, 1), lambda b, h, i: (b, i, 0))
  k_at = pl.BlockSpec((None, 1, k.shape[2]), lambda b, h, i: (b, 0, 0))
  at = QueryTokens(*[q_at] * 3), KeyTokens(*[k_at] * 2)
  return [Bias(*map(head, bias)), tile(q.shape[-1]), whole(k), whole(v), *at], tile


def _forward(plan, bias, qkv, at):
  q, _, v = qkv
  batch, groups, repeats, rows, _ = q.shape
  inputs, tile = _blocks(plan, bias, qkv)
  out, lse = plan.call(
    pallas_programs.forward_program,
    grid=(batch, groups * repeats, rows // plan.tile_q),
    in_specs=inputs,
    out_specs=[tile(v.shape[-1]), tile(1)],
    out_shape=[
      jax.ShapeDtypeStruct((*q.shape[:4], v.shape[-1]), v.dtype),
      jax.ShapeDtypeStruct((*q.shape[:4], 1), jnp.float32),
    ],
  )(bias, *qkv, *at)
  return out, (bias, qkv, at, out, lse)


def _backward(plan, saved, grad):
  """Recomputes each tile's weights from the saved logsumexp (arXiv:2307.08691, alg. 2)."""
  bias, qkv, at, out, lse = saved
  delta = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1, keepdims=True)
  inputs = bias, *qkv, *at, lse, delta, grad
  q_grad, bias_grad = _query_grads(plan, inputs)
  k_grad, v_grad = _key_grads(plan, inputs)
  groups, repeats = qkv[0].shape[1:3]
  bias_grad = bias_grad.sum((0, 2)).reshape(groups, repeats, 1, -1)
  jumps_grad = bias_grad[..., 1:] if plan.starts else jnp.zeros_like(bias.jumps)
  return Bias(bias_grad[..., :1], jumps_grad), (q_grad, k_grad, v_grad), None


def _query_grads(plan, inputs):
  """Gradients of q, and of each tile's bias: float32 [B, H, tiles, 1, 1 + S]."""
  bias, q, k, v, *_ = inputs
  batch, groups, repeats, rows, _ = q.shape
  blocks, tile = _blocks(plan, bias, (q, k, v))
  tiles, biases = rows // plan.tile_q, 1 + len(plan.starts)
  return plan.call(
    pallas_programs.query_program,
    grid=(batch, groups * repeats, tiles),
    in_specs=[*blocks, tile(1), tile(1), tile(v.shape[-1])],
    out_specs=[
      tile(q.shape[-1]),
      pl.BlockSpec((None, None, None, 1, biases), lambda b, h, i: (b, h, i, 0, 0)),
    ],
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((batch, groups * repeats, tiles, 1, biases), jnp.float32),
    ],
  )(*inputs)


def _key_grads(plan, inputs):
  """Gradients of k and v; one program a tile of keys, grid (B, G, tiles)."""
  bias, q, k, v, _, _, lse, delta, grad = inputs
  batch, groups, _, rows, _ = q.shape

  def heads(x):
    return pl.BlockSpec((None, *x.shape[1:]), lambda b, g, i: (g, 0, 0, 0))

  def whole(x):
    return pl.BlockSpec((None, None, *x.shape[2:]), lambda b, g, i: (b, g, 0, 0, 0))

  def part(x):
    return pl.BlockSpec((None, None, plan.tile_k, x.shape[-1]), lambda b, g, i: (b, g, i, 0))

  q_at = pl.BlockSpec((None, rows, 1), lambda b, g, i: (b, 0, 0))
  k_at = pl.BlockSpec((None, 1, plan.tile_k), lambda b, g, i: (b, 0, i))
  at = QueryTokens(*[q_at] * 3), KeyTokens(*[k_at] * 2)
  return plan.call(
    pallas_programs.key_program,
    grid=(batch, groups, k.shape[2] // plan.tile_k),
    in_specs=[
      Bias(*map(heads, bias)), whole(q), part(k), part(v), *at, whole(lse), whole(delta),
      whole(grad),
    ],
    out_specs=[part(k), part(v)],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (k, v)],
  )(*inputs)  # fmt: skip


_attend.defvjp(_forward, _backward)
