"""Multi-head latent attention: keys and values from a small latent, a separate slice for position.

What model/transformer.py builds for the projection 'mla'; model/attention.py is the other layer.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.attention import attend
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens, last_tokens
from pe_research.model import kv_cache, layers
from pe_research.model.attention import scaled
from pe_research.positions import base

EPS = 1e-6  # of the latents' norms whatever norm_eps is: DeepSeek's code does not pass it on


class LatentAttention(nnx.Module):
  """MLA (arXiv:2405.04434, eqs. 9-19), with RMSNorm on the latents as in its sec. 3.1.2.

  Keys and values of all heads come from a latent of width C per token. A rotation of such keys
  could not be absorbed into the queries, so position has a slice of its own: R more channels of
  each query head, against one rotated key that all heads share. The cache keeps C + R numbers.

  Training and prefill expand the latents into keys and values. Decoding absorbs: the transposed key
  matrix projects a query to the latent width, the query attends to the latents as in MQA with one
  head of width C + R, and the value matrix projects the mean latent. That reads C + R numbers per
  cached token for all heads; the logits and their scale, 1 / sqrt(K + R), are the same.

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
      query_latent: width that queries are compressed to first; 0 for no compression.
      rotary: R.
      value_dim: V.
      bias: whether the projections from x and back to x have one.
      norm: of the latents; its eps is replaced by EPS.
      out_std: multiplies the initial scale of the output projection.
      dtype: to compute in.
      key: every matrix is drawn from this and its own name.
    """
    self.heads, self.head_dim, self.value_dim = heads, head_dim, value_dim
    self.latent_dim, self.rotary = latent, rotary
    linear = functools.partial(layers.linear, key, dtype=dtype)
    normed = functools.partial(dataclasses.replace(norm, eps=EPS).make, key, dtype=dtype)
    source = query_latent or width
    self.query_down = linear('query_down', width, query_latent, bias=bias) if query_latent else None
    self.query_norm = normed('query_norm', query_latent) if query_latent else None
    self.query = linear('query', source, heads * head_dim)
    self.position_query = linear('position_query', source, heads * rotary) if rotary else None
    self.latent = linear('latent', width, latent, bias=bias)
    self.latent_norm = normed('latent_norm', latent)
    self.position_key = linear('position_key', width, rotary, bias=bias) if rotary else None
    self.key = linear('key', latent, heads * head_dim)
    self.value = linear('value', latent, heads * value_dim)
    self.out = linear('out', heads * value_dim, width, bias=bias, std=out_std)

  def slots(self) -> tuple[tuple[int, int], ...]:
    """Shapes of what the cache keeps of a token: the latent and the shared rotated key."""
    return ((1, self.latent_dim + self.rotary),)

  def __call__(
    self,
    x: jax.Array,
    at: Tokens,
    scheme: base.PositionScheme,
    spec: Spec,
    *,
    length: jax.Array | int | None = None,
    slots: tuple[jax.Array, ...] | None = None,
    cache: kv_cache.KVCache | None = None,
    last: int | None = None,
  ) -> tuple[jax.Array, tuple[jax.Array, ...] | None]:
    """As Attention; `slots` are one array [B, N, 1, C + R] with room for N tokens."""
    q_x, q_at, q_length = last_tokens((x, at, length), last)
    q, q_rotated = self._queries(q_x, q_at, q_length, scheme, spec)
    latent = self.latent_norm(self.latent(x))[:, :, None]
    if self.rotary:
      rotated = scheme.key(self.position_key(x)[:, :, None], at.pos, length)
      latent = jnp.concatenate([latent, rotated], axis=-1)
    k_at, offset = at, x.shape[1] - q_x.shape[1]
    if cache is not None:
      slots = cache.append(slots, (latent,))
      (latent,), k_at, offset = slots, cache.at, cache.used + offset

    def run(q, k, v):
      return attend.attend(q, k, v, q_at, k_at, scheme=scheme, spec=spec, offset=offset)

    absorbs = cache is not None and x.shape[1] == 1 and spec.absorbed
    out = (self._absorbed if absorbs else self._expanded)(run, q, q_rotated, latent)
    return self.out(out.reshape(*q_x.shape[:2], -1)), slots

  def _queries(self, x, at, length, scheme, spec):
    """[B, L, H, K], and the slice [B, L, H, R] if there is one; both scaled as the logits."""
    source = x if self.query_down is None else self.query_norm(self.query_down(x))
    scale = scheme, spec, at, length, self.head_dim + self.rotary
    q = scaled(layers.split_heads(self.query(source), self.heads), *scale)
    if not self.rotary:
      return q, None
    rotated = layers.split_heads(self.position_query(source), self.heads)
    return q, scaled(scheme.query(rotated, at.pos, length), *scale)

  def _expanded(self, run, q, q_rotated, cached):
    """Attends to keys [B, N, H, K + R] and values [B, N, H, V] made from all the latents."""
    latent, rotated = jnp.split(cached, [self.latent_dim], axis=-1)
    k = layers.split_heads(self.key(latent[:, :, 0]), self.heads)
    v = layers.split_heads(self.value(latent[:, :, 0]), self.heads)
    if self.rotary:
      q = jnp.concatenate([q, q_rotated], axis=-1)
      k = jnp.concatenate([k, jnp.broadcast_to(rotated, (*k.shape[:3], self.rotary))], axis=-1)
    return run(q, k, v)

  def _absorbed(self, run, q, q_rotated, cached):
    """Attends to the latents themselves, [B, N, 1, C + R] for all heads."""
    einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def by_head(layer):
      return layers.split_heads(layer.kernel[...].astype(q.dtype), self.heads)

    query = einsum('blhk,chk->blhc', q, by_head(self.key)).astype(cached.dtype)
    if self.rotary:
      query = jnp.concatenate([query, q_rotated], axis=-1)
    # The rotated key is among the values and dropped afterwards: a slice would copy the cache.
    mean = run(query, cached, cached)[..., : self.latent_dim]
    return einsum('blhc,chv->blhv', mean, by_head(self.value)).astype(mean.dtype)
