"""Exact causal attention with a bias that is a function of positions.

`attend` chooses the implementation and holds the dense one; model/attention.py and
model/latent_attention.py call it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from pe_research.attention import ring, tiled
from pe_research.attention.inputs import Inputs
from pe_research.attention.logits import masked
from pe_research.attention.spec import Spec, narrowed
from pe_research.attention.tokens import Tokens
from pe_research.positions.base import PositionScheme

QUERY_CHUNKS = 4  # that dense attention cuts the queries into
MIN_CHUNK = 64  # tokens in one of them


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  queries: Tokens,
  keys: Tokens,
  *,
  scheme: PositionScheme,
  spec: Spec,
  offset: jax.Array | int = 0,
) -> jax.Array:
  """softmax(q . k + bias) v over the keys that each query may see; logits in float32.

  Query i may see key j if j <= i + offset, if both belong to one document, and if j lies in the
  window. The mask counts indices and never positions, which a scheme is free to change.

  Args:
    q: [B, Lq, H, D], scaled already (the softmax temperature is the caller's).
    k: [B, Lk, G, D], with H a multiple of G (GQA; G = 1 is MQA).
    v: [B, Lk, G, V].
    queries: positions and documents of the queries.
    keys: positions and documents of the keys.
    scheme: its `bias` is added to the logits (kernels use its `distance_bias`), and its window
      `sees` applies as well as that of `spec`.
    spec: implementation, window, tile.
    offset: index of the first query among the keys; [B] where rows differ in it.

  Returns:
    [B, Lq, H, V] in the dtype of v.
  """
  spec = narrowed(spec, scheme)
  if spec.watch is not None:
    seen = weights(q, k, queries, keys, scheme=scheme, spec=spec, offset=offset)
    if isinstance(seen, jax.core.Tracer):
      raise ValueError(
        'attention has no weights to watch while it is compiled; leave out jax.jit, and set '
        "model.remat='none'."
      )
    spec.watch(seen)
  inputs = Inputs.grouped(q, k, v, queries, keys, offset)
  if ring.ring_size(spec) > 1:
    out = ring.attention(scheme.bias, spec, inputs)
  elif spec.implementation == 'dense':
    out = _dense(scheme.bias, spec, inputs)
  elif spec.implementation == 'tiled':
    out = tiled.attention(scheme.bias, spec, inputs)
  else:
    from pe_research.attention import pallas  # takes a tenth of a second, and few runs need it

    out = pallas.attention(scheme.distance_bias(), spec, inputs)
  return out.transpose(0, 3, 1, 2, 4).reshape(*q.shape[:3], v.shape[-1])


def weights(
  q: jax.Array,
  k: jax.Array,
  queries: Tokens,
  keys: Tokens,
  *,
  scheme: PositionScheme,
  spec: Spec,
  offset: jax.Array | int = 0,
) -> jax.Array:
  """The softmax weights of `attend`, computed dense: float32 [B, H, Lq, Lk].

  Arguments as for `attend`. A row sums to 1 over the keys that its query may see; every query must
  see at least one.
  """
  inputs = Inputs.grouped(q, k, None, queries, keys, offset)
  logits = masked(scheme.bias, narrowed(spec, scheme), inputs)
  return jax.nn.softmax(logits, axis=-1).reshape(*q.shape[:1], q.shape[2], *logits.shape[3:])


def _dense(bias, spec: Spec, inputs: Inputs) -> jax.Array:
  """Splits queries into chunks, so that each skips keys after its last (needs a static offset).

  On two cores that makes steps 6 % faster at length 512, 12 to 22 % at 128; smaller parts cost.
  """
  if not isinstance(inputs.offset, int):
    return _dense_part(bias, spec, inputs)
  rows, columns = inputs.q.shape[3], inputs.k.shape[2]
  size = max(MIN_CHUNK, -(-rows // QUERY_CHUNKS))

  def part(first):
    count, offset = min(size, rows - first), inputs.offset + first
    end = min(offset + count, columns)
    q = inputs.q[..., first : first + count, :]
    k, v = inputs.k[:, :, :end], inputs.v[:, :, :end]
    queries, keys = inputs.queries.slice(first, count), inputs.keys.slice(0, end)
    return _dense_part(bias, spec, Inputs(q, k, v, queries, keys, offset))

  return jnp.concatenate([part(first) for first in range(0, rows, size)], axis=3)


def _dense_part(bias, spec: Spec, inputs: Inputs) -> jax.Array:
  logits, v = masked(bias, spec, inputs), inputs.v
  # The sum divides the product, not the weights: a training step on two cores is 5 to 15 % faster
  # than through jax.nn.softmax, most at length 512.
  weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
  out = jnp.einsum(
    'bgrqk,bgkd->bgrqd', weights.astype(v.dtype), v, preferred_element_type=jnp.float32
  )
  return (out / weights.sum(-1, keepdims=True)).astype(v.dtype)
