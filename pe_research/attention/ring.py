"""Attention over a sequence that devices share: every one holds a part of the tokens.

Keys and values go round a ring of devices, and each adds what its queries see of the part that it
holds (arXiv:2310.01889). Parts are in the order of the sequence, so a causal mask leaves the first
devices idle for part of the time. For evaluation: there is no backward pass.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from pe_research.attention import tiled
from pe_research.attention.logits import MASKED
from pe_research.attention.spec import Spec
from pe_research.common import sharding

AXIS = sharding.CONTEXT


def split(spec: Spec) -> int:
  """How many devices share a sequence."""
  return spec.mesh.shape[AXIS] if spec.mesh is not None else 1


def check(spec: Spec, length: int) -> None:
  """Raises ValueError where a sequence of so many tokens cannot be shared."""
  if split(spec) > 1 and spec.implementation != 'tiled':
    raise ValueError(
      f"run.mesh.{AXIS}={split(spec)} goes with eval.implementation='tiled', and it is "
      f'{spec.implementation!r}.'
    )
  if length % split(spec):
    raise ValueError(
      f'{length} tokens do not split over run.mesh.{AXIS}={split(spec)}; choose a length that is a '
      'multiple of that.'
    )


def run(bias, spec: Spec, q, k, v, queries, keys, offset):
  """As the implementations of attend.attend: q [B, G, H/G, Lq, D], k and v [B, G, Lk, ...].

  Where there are as many queries as keys, both are shared; fewer queries are on every device.
  """
  rows, columns = q.shape[3], k.shape[2]
  check(spec, columns)
  shared = rows == columns
  size = columns // split(spec)
  tile_q, tile_k = _divisor(size if shared else rows, spec.tile), _divisor(size, spec.tile)
  # Parameters of the bias become explicit arguments, as each device is given its own copy.
  pure, parameters = jax.closure_convert(bias, queries.pos[:, :tile_q], keys.pos[:, :tile_k])
  part = functools.partial(tiled.partial, pure, spec, tile_q, tile_k)
  tokens, asking = P(None, AXIS), P(None, AXIS) if shared else P()
  of_q = P(None, None, None, AXIS) if shared else P()
  body = _ring if shared else _gather
  whole = jax.shard_map(
    functools.partial(body, part, size), mesh=spec.mesh, axis_names={AXIS}, check_vma=False,
    in_specs=(P(), of_q, P(None, None, AXIS), P(None, None, AXIS), asking, tokens, P()),
    out_specs=of_q,
  )  # fmt: skip
  plain = lambda at: dataclasses.replace(at, span=None)
  out = whole(parameters, q, k, v, plain(queries), plain(keys), jnp.asarray(offset, jnp.int32))
  return out.astype(v.dtype)


def _divisor(size: int, most: int) -> int:
  return next(n for n in range(min(size, most), 0, -1) if size % n == 0)


def _seen(part, *arguments):
  """A part's result and its log of the sum of weights; nothing of it where no key is visible."""
  out, logsumexp = part(*arguments)
  none = jnp.isneginf(logsumexp)
  return jnp.where(none[..., None], 0.0, out), jnp.where(none, MASKED, logsumexp)


def _ring(part, size, parameters, q, k, v, queries, keys, offset):
  """The queries of a device see its own keys first, then those of the devices before it."""
  me, devices = lax.axis_index(AXIS), lax.axis_size(AXIS)
  onward = [(i, (i + 1) % devices) for i in range(devices)]

  def step(i, carry):
    (k, v, keys), out, logsumexp = carry
    ahead = (me - (me - i) % devices) * size  # of the queries over the keys; negative: all unseen
    added, other = _seen(part, parameters, q, k, v, queries, keys, offset + ahead)
    total = jnp.logaddexp(logsumexp, other)
    out = out * jnp.exp(logsumexp - total)[..., None] + added * jnp.exp(other - total)[..., None]
    moved = jax.tree.map(lambda x: lax.ppermute(x, AXIS, onward), (k, v, keys))
    return moved, out, total

  zero = jnp.zeros((*q.shape[:4], v.shape[-1]), jnp.float32)
  start = (k, v, keys), zero, jnp.full(q.shape[:4], MASKED, jnp.float32)
  return lax.fori_loop(0, devices, step, start)[1]


def _gather(part, size, parameters, q, k, v, queries, keys, offset):
  """All devices ask for the same queries, of their own keys; then their answers are merged."""
  first = lax.axis_index(AXIS) * size
  out, logsumexp = _seen(part, parameters, q, k, v, queries, keys, offset - first)
  weight = jnp.exp(logsumexp - lax.pmax(logsumexp, AXIS))
  return lax.psum(out * weight[..., None], AXIS) / lax.psum(weight, AXIS)[..., None]
