"""Multi-head latent attention: keys and values from a small latent, position in a slice apart."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.attention import attend
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens, ending
from pe_research.model import kv_cache, layers
from pe_research.model.attention import scaled
from pe_research.positions import base

EPS = 1e-6  # of the latents' norms, whatever the model's is: DeepSeek's code passes it none


class LatentAttention(nnx.Module):
  """MLA (arXiv:2405.04434, eqs. 9-19), with RMSNorm on the latents as in its sec. 3.1.2.

  Keys and values of all heads come from a latent of width C per token. A rotation of such keys
  could not be absorbed into the queries, so position has a slice of its own: R more channels of
  each query head, against one rotated key that all heads share. What is cached is C + R numbers.

  Training and prefill expand the latents into keys and values. Decoding absorbs: a query is taken
  to the latents by the transposed key matrix, attends to them as MQA would with one head of width
  C + R, and the mean latent goes through the value matrix. That reads C + R numbers a cached token
  for all heads; the logits and their scale, 1 / sqrt(K + R), are the same.

  Letters: B batch, L tokens, D model width, H heads, K key width without the slice, R width of the
  slice (0 where the scheme leaves queries and keys alone), V value width, C latent width.
  """

  def __init__(
    self,
    width: int,
    heads: int,
    head_dim: int,
    *,
    latent: int,
    query_latent: int,
    rotary: int,
    value_dim: int,
    bias: bool,
    norm: layers.Norm,
    out_std: float,
    dtype,
    key: jax.Array,
  ):
    """Draws the projections.

    Args:
      width: D.
      heads: H.
      head_dim: K.
      latent: C.
      query_latent: width that queries are compressed to first; 0: they are not.
      rotary: R.
      value_dim: V.
      bias: whether the projections of x and that to x have one.
      norm: of the latents, with EPS for its own.
      out_std: multiplies the initial scale of the output projection.
      dtype: to compute in.
      key: every matrix is drawn from this and its own name.
    """
    self.heads, self.head_dim, self.value_dim = heads, head_dim, value_dim
    self.latent_dim, self.rotary = latent, rotary
    make = lambda name, inputs, outputs, **more: layers.linear(
      key, name, inputs, outputs, dtype=dtype, **more
    )
    norm = dataclasses.replace(norm, eps=EPS)
    normed = lambda name, size: norm.make(key, name, size, dtype=dtype)
    source = query_latent or width
    self.query_down = make('query_down', width, query_latent, bias=bias) if query_latent else None
    self.query_norm = normed('query_norm', source) if query_latent else None
    self.query = make('query', source, heads * head_dim)
    self.position_query = make('position_query', source, heads * rotary) if rotary else None
    self.latent = make('latent', width, latent, bias=bias)
    self.latent_norm = normed('latent_norm', latent)
    self.position_key = make('position_key', width, rotary, bias=bias) if rotary else None
    self.key = make('key', latent, heads * head_dim)
    self.value = make('value', latent, heads * value_dim)
    self.out = make('out', heads * value_dim, width, bias=bias, std=out_std)

  def slots(self) -> tuple[tuple[int, int], ...]:
    """Shapes of what a token leaves in the cache: the latent and the shared rotated key."""
    return ((1, self.latent_dim + self.rotary),)

  def __call__(
    self,
    x: jax.Array,
    at: Tokens,
    length,
    scheme: base.PositionScheme,
    spec: Spec,
    slots: tuple[jax.Array, ...] | None = None,
    filled: kv_cache.KVCache | None = None,
    last: int | None = None,
  ) -> tuple[jax.Array, tuple[jax.Array, ...] | None]:
    """As Attention; `slots` are of this layer, [B, N, 1, C + R] with room for N tokens."""
    asking, at_asking, length_asking = ending((x, at, length), last)
    q, q_turned = self._queries(asking, at_asking, length_asking, scheme, spec)
    latent = self.latent_norm(self.latent(x))[:, :, None]
    if self.rotary:
      turned = scheme.key(self.position_key(x)[:, :, None], at.pos, length)
      latent = jnp.concatenate([latent, turned], axis=-1)
    seen, offset = at, x.shape[1] - asking.shape[1]
    if filled is not None:
      slots = filled.append(slots, (latent,))
      (latent,), seen, offset = slots, filled.at, filled.used + offset
    settings = {'scheme': scheme, 'spec': spec, 'offset': offset}
    run = lambda q, k, v: attend.attend(q, k, v, at_asking, seen, **settings)
    absorbs = filled is not None and x.shape[1] == 1 and spec.absorbed
    out = (self._absorbed if absorbs else self._expanded)(run, q, q_turned, latent)
    return self.out(out.reshape(*asking.shape[:2], -1)), slots

  def _queries(self, x, at, length, scheme, spec):
    """[B, L, H, K], and the slice [B, L, H, R] if there is one; both times the logits' scale."""
    source = x if self.query_down is None else self.query_norm(self.query_down(x))
    split = lambda y, width: y.reshape(*x.shape[:2], self.heads, width)
    scale = lambda y: scaled(y, scheme, spec, at, length, self.head_dim + self.rotary)
    q = scale(split(self.query(source), self.head_dim))
    if not self.rotary:
      return q, None
    turned = scheme.query(split(self.position_query(source), self.rotary), at.pos, length)
    return q, scale(turned)

  def _expanded(self, run, q, q_turned, cached):
    """Attends to keys [B, N, H, K + R] and values [B, N, H, V] made from all the latents."""
    latent, turned = jnp.split(cached, [self.latent_dim], axis=-1)
    split = lambda y, width: y.reshape(*latent.shape[:2], self.heads, width)
    k = split(self.key(latent[:, :, 0]), self.head_dim)
    v = split(self.value(latent[:, :, 0]), self.value_dim)
    if self.rotary:
      q = jnp.concatenate([q, q_turned], axis=-1)
      k = jnp.concatenate([k, jnp.broadcast_to(turned, (*k.shape[:3], self.rotary))], axis=-1)
    return run(q, k, v)

  def _absorbed(self, run, q, q_turned, cached):
    """Attends to the latents themselves, [B, N, 1, C + R] for all heads."""
    split = lambda layer, width: (
      layer.kernel[...].astype(q.dtype).reshape(self.latent_dim, self.heads, width)
    )
    taken = {'preferred_element_type': jnp.float32}
    q = jnp.einsum('blhk,chk->blhc', q, split(self.key, self.head_dim), **taken)
    q = q.astype(cached.dtype)
    if self.rotary:
      q = jnp.concatenate([q, q_turned], axis=-1)
    # The rotated key rides along as value channels that are dropped: a slice would copy the cache.
    mean = run(q, cached, cached)[..., : self.latent_dim]
    out = jnp.einsum('blhc,chv->blhv', mean, split(self.value, self.value_dim), **taken)
    return out.astype(mean.dtype)
