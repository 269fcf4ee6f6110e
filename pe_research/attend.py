"""Exact causal attention with a bias that is a function of positions: dense, and in tiles."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from pe_research import sharding
from pe_research.positions.base import PositionScheme
from pe_research.tokens import Tokens

MASKED = -1e30  # finite, so that a row whose first tile is all masked stays free of NaN
PARTS, LEAST_PART = 4, 64  # of the queries in dense attention; tokens
IMPLEMENTATIONS = ('dense', 'tiled', 'pallas', 'interpreted')


@dataclasses.dataclass(frozen=True)
class Spec:
  """How to attend: everything that is fixed when the program is compiled.

  Attributes:
    implementation: 'dense' holds all logits at once; 'tiled' one tile, memory linear in length;
      'pallas' is a kernel for TPUs and GPUs; 'interpreted' runs that in XLA, for tests.
    window: tokens that a query sees, itself included; None for all.
    tile: tokens on a side of a tile.
    absorbed: whether MLA decodes through its latents; False expands them at every token.
    scale: multiplies the scheme's own `logit_scale`; other than 1 to measure temperatures.
    mesh: of the devices that a kernel's work, or a sequence, is split over; XLA splits the rest.
    watch: is handed the weights [B, H, Lq, Lk] of every layer in turn, for looking at them; dense
      only, not under jit.
  """

  implementation: str = 'dense'
  window: int | None = None
  tile: int = 512
  absorbed: bool = True
  scale: float = 1.0
  mesh: Mesh | None = None
  watch: Callable[[jax.Array], None] | None = None

  def __post_init__(self):
    if self.implementation not in IMPLEMENTATIONS:
      raise ValueError(
        f'attention implementation {self.implementation!r} is unknown; '
        f'choose one of {", ".join(IMPLEMENTATIONS)}.'
      )
    if self.window is not None and self.window < 1:
      raise ValueError(f'attention window is {self.window}; it must be at least 1 token.')
    if self.tile < 1:
      raise ValueError(f'attention tile is {self.tile}; it must be at least 1 token.')
    if self.watch is not None and self.implementation != 'dense':
      raise ValueError(
        f'attention implementation {self.implementation!r} holds no weights to watch; choose '
        "'dense', or leave watch out."
      )


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
    scheme: its `bias` is added to the logits; the kernels ask for its `distance_bias`. What it
      `sees` is a window too.
    spec: implementation, window, tile.
    offset: index of the first query among the keys; [B] where rows differ in it.

  Returns:
    [B, Lq, H, V] in the dtype of v.
  """
  spec = _narrowed(spec, scheme)
  if spec.watch is not None:
    _watch(q, k, queries, keys, scheme=scheme, spec=spec, offset=offset)
  if spec.mesh is not None and spec.mesh.shape[sharding.CONTEXT] > 1:
    from pe_research import context  # which is made of what is here

    run = functools.partial(context.run, scheme.bias, spec)
  elif spec.implementation in ('dense', 'tiled'):
    run = _dense if spec.implementation == 'dense' else _tiled_attention
    run = functools.partial(run, scheme.bias, spec)
  else:
    from pe_research import kernel  # a tenth of a second to import, which few runs need

    settings = {'window': spec.window, 'tile': spec.tile, 'mesh': spec.mesh}
    settings['interpret'] = spec.implementation == 'interpreted'
    run = functools.partial(kernel.attend, scheme.distance_bias(), **settings)
  heads, q = q.shape[2], _grouped(q, k.shape[2])
  out = run(q, k.swapaxes(1, 2), v.swapaxes(1, 2), queries, keys, offset)
  return out.transpose(0, 3, 1, 2, 4).reshape(*out.shape[:1], out.shape[3], heads, v.shape[-1])


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
  """What `attend` weighs the values by, for looking at it: float32 [B, H, Lq, Lk], dense.

  Arguments as for `attend`; a row sums to 1 over the keys that its query may see, of which there
  must be one.
  """
  spec, rows = _narrowed(spec, scheme), _grouped(q, k.shape[2])
  logits = _masked(scheme.bias, spec, rows, k.swapaxes(1, 2), queries, keys, offset)
  return jax.nn.softmax(logits, axis=-1).reshape(*q.shape[:1], q.shape[2], *logits.shape[3:])


def _watch(q, k, queries, keys, *, spec: Spec, **settings) -> None:
  """Hands the weights to `spec.watch`."""
  found = weights(q, k, queries, keys, spec=spec, **settings)
  if isinstance(found, jax.core.Tracer):
    raise ValueError(
      'attention has no weights to watch while it is compiled; leave out jax.jit, and set '
      "model.remat='none'."
    )
  spec.watch(found)


def _narrowed(spec: Spec, scheme: PositionScheme) -> Spec:
  """With the narrower of its own window and what the scheme sees."""
  windows = [window for window in (spec.window, scheme.sees) if window is not None]
  return dataclasses.replace(spec, window=min(windows, default=None))


def _grouped(q: jax.Array, groups: int) -> jax.Array:
  """[B, L, H, D] -> [B, G, H/G, L, D]."""
  q = q.reshape(*q.shape[:2], groups, q.shape[2] // groups, q.shape[-1])
  return q.transpose(0, 2, 3, 1, 4)


def _visible(spec, queries: Tokens, keys: Tokens, q_index, k_index) -> jax.Array:
  """bool [B or 1, 1, 1, Lq, Lk]: keys that each query may see; indices [B or 1, Lq] and [Lk]."""
  ahead = q_index[:, :, None] - k_index[None, None]
  seen = ahead >= 0
  if spec.window is not None:
    seen &= ahead < spec.window
  if queries.segments is not None:
    seen = seen & (queries.segments[:, :, None] == keys.segments[:, None, :])
  return seen[:, None, None]


def _logits(bias, q, k, q_pos, k_pos) -> jax.Array:
  """float32 [B, G, H/G, Lq, Lk] of q [B, G, H/G, Lq, D] and k [B, G, Lk, D]."""
  logits = jnp.einsum('bgrqd,bgkd->bgrqk', q, k, preferred_element_type=jnp.float32)
  added = bias(q_pos, k_pos)
  if added is None:
    return logits
  groups, repeats, rows, columns = logits.shape[1:]
  if added.shape[1:] != (groups * repeats, rows, columns):
    raise ValueError(
      f'the bias has shape {added.shape}; [B or 1, {groups * repeats}, {rows}, {columns}] is due.'
    )
  return logits + added.reshape(-1, groups, repeats, rows, columns)


def _masked(bias, spec, q, k, queries, keys, offset) -> jax.Array:
  """`_logits`, where a query sees the key."""
  logits = _logits(bias, q, k, queries.pos, keys.pos)
  q_index, k_index = _indices(offset, 0, q.shape[3]), jnp.arange(k.shape[2])
  return jnp.where(_visible(spec, queries, keys, q_index, k_index), logits, MASKED)


def _indices(offset, first, size: int) -> jax.Array:
  """Indices of queries first .. first + size - 1 among the keys, [B or 1, size]."""
  return jnp.atleast_1d(offset)[:, None] + first + jnp.arange(size)[None]


def _dense(bias, spec, q, k, v, queries, keys, offset):
  """In parts of the queries, each without the keys after its last, where `offset` is a constant.

  On two cores that makes steps 6 % faster at length 512, 12 to 22 % at 128; smaller parts cost.
  """
  if not isinstance(offset, int):
    return _dense_part(bias, spec, q, k, v, queries, keys, offset)
  rows = q.shape[3]
  size = max(LEAST_PART, -(-rows // PARTS))

  def part(first):
    count = min(size, rows - first)
    end = min(offset + first + count, k.shape[2])
    asked, seen = queries.slice(first, count), keys.slice(0, end)
    q_part = q[..., first : first + count, :]
    return _dense_part(
      bias, spec, q_part, k[:, :, :end], v[:, :, :end], asked, seen, offset + first
    )

  return jnp.concatenate([part(first) for first in range(0, rows, size)], axis=3)


def _dense_part(bias, spec, q, k, v, queries, keys, offset):
  logits = _masked(bias, spec, q, k, queries, keys, offset)
  # The sum divides the product, not the weights: a training step on two cores is 5 to 15 % faster
  # than through jax.nn.softmax, most at length 512.
  weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
  out = jnp.einsum(
    'bgrqk,bgkd->bgrqd', weights.astype(v.dtype), v, preferred_element_type=jnp.float32
  )
  return (out / weights.sum(-1, keepdims=True)).astype(v.dtype)


def _tiled_attention(bias, spec, q, k, v, queries, keys, offset):
  """Online softmax over tiles (arXiv:2205.14135), with the bias of one tile at a time."""
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
  logits = _logits(lambda a, b: bias(a, b, *parameters), q, k, queries.pos, keys.pos)
  if not masked:
    return logits
  q_index = _indices(offset, row * tile_q, tile_q)
  seen = _visible(spec, queries, keys, q_index, column * tile_k + jnp.arange(tile_k))
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
