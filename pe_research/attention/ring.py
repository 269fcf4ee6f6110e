"""Attention over a sequence that is split over devices (ring attention).

Each device holds a part of the tokens. Keys and values go round a ring, and each device adds the
attention of its queries to the part that it holds (arXiv:2310.01889). Parts are in the order of the
sequence, so a causal mask leaves the first devices idle for part of the time. For evaluation: there
is no backward pass.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from pe_research.attention import tiled
from pe_research.attention.inputs import Inputs
from pe_research.attention.logits import MASKED
from pe_research.attention.spec import Spec
from pe_research.common import sharding

AXIS = sharding.CONTEXT


def ring_size(spec: Spec) -> int:
  """Number of devices that share a sequence."""
  return spec.mesh.shape[AXIS] if spec.mesh is not None else 1


def check(spec: Spec, length: int) -> None:
  """Raises ValueError where a sequence of `length` tokens cannot be shared."""
  if ring_size(spec) > 1 and spec.implementation != 'tiled':
    raise ValueError(
      f"run.mesh.{AXIS}={ring_size(spec)} needs eval.implementation='tiled'; it is "
      f'{spec.implementation!r}.'
    )
  if length % ring_size(spec):
    raise ValueError(
      f'{length} tokens do not split over run.mesh.{AXIS}={ring_size(spec)}; choose a length that '
      'is a multiple of that.'
    )


def attention(bias, spec: Spec, inputs: Inputs) -> jax.Array:
  """An implementation of attend.attend, over several devices.

  Where there are as many queries as keys, both are shared; fewer queries are on every device.
  """
  rows, columns = inputs.q.shape[3], inputs.k.shape[2]
  check(spec, columns)
  shared, size = rows == columns, columns // ring_size(spec)
  tiles = _divisor(size if shared else rows, spec.tile), _divisor(size, spec.tile)
  tiling, parameters = tiled.Tiling.of(bias, spec, inputs, *tiles)
  of_q, queries = (P(None, None, None, AXIS), P(None, AXIS)) if shared else (P(), P())
  of_k, keys = P(None, None, AXIS), P(None, AXIS)
  run = jax.shard_map(
    functools.partial(_ring if shared else _gather, tiling, size),
    mesh=spec.mesh,
    axis_names={AXIS},
    check_vma=False,  # the loops of tiled.py begin from zeros, which are the same on all devices
    in_specs=(P(), Inputs(of_q, of_k, of_k, queries, keys, P())),
    out_specs=of_q,
  )
  inputs = dataclasses.replace(inputs, offset=jnp.asarray(inputs.offset, jnp.int32))
  return run(parameters, inputs).astype(inputs.v.dtype)


def _divisor(size: int, most: int) -> int:
  """The largest divisor of `size` that is at most `most`."""
  return next(n for n in range(min(size, most), 0, -1) if size % n == 0)


def _visible(tiling: tiled.Tiling, parameters, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
  """`tiled.out_and_logsumexp`; 0 and MASKED where no key is visible."""
  out, logsumexp = tiled.out_and_logsumexp(tiling, parameters, inputs)
  none = jnp.isneginf(logsumexp)
  return jnp.where(none[..., None], 0.0, out), jnp.where(none, MASKED, logsumexp)


def _ring(tiling: tiled.Tiling, size: int, parameters, inputs: Inputs) -> jax.Array:
  """The queries of a device see its own keys first, then those of the devices before it."""
  me, devices = lax.axis_index(AXIS), lax.axis_size(AXIS)
  onward = [(i, (i + 1) % devices) for i in range(devices)]
  q, v = inputs.q, inputs.v

  def step(i, carry):
    (k, v, keys), out, logsumexp = carry
    # Of the queries over the keys; negative: no key visible.
    ahead = (me - (me - i) % devices) * size
    part = Inputs(q, k, v, inputs.queries, keys, inputs.offset + ahead)
    added, other = _visible(tiling, parameters, part)
    total = jnp.logaddexp(logsumexp, other)
    out = out * jnp.exp(logsumexp - total)[..., None] + added * jnp.exp(other - total)[..., None]
    moved = jax.tree.map(lambda x: lax.ppermute(x, AXIS, onward), (k, v, keys))
    return moved, out, total

  zero = jnp.zeros((*q.shape[:4], v.shape[-1]), jnp.float32)
  start = (inputs.k, v, inputs.keys), zero, jnp.full(q.shape[:4], MASKED, jnp.float32)
  return lax.fori_loop(0, devices, step, start)[1]


def _gather(tiling: tiled.Tiling, size: int, parameters, inputs: Inputs) -> jax.Array:
  """All devices compute the same queries against their own keys; then the parts are merged."""
  first = lax.axis_index(AXIS) * size
  inputs = dataclasses.replace(inputs, offset=inputs.offset - first)
  out, logsumexp = _visible(tiling, parameters, inputs)
  weight = jnp.exp(logsumexp - lax.pmax(logsumexp, AXIS))
  return lax.psum(out * weight[..., None], AXIS) / lax.psum(weight, AXIS)[..., None]
