"""The attention layer: projections to heads (MHA, GQA, MQA) around `attend.attend`."""

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.attention import attend
from pe_research.attention.spec import Spec, last_seen
from pe_research.attention.tokens import Tokens, last_tokens
from pe_research.model import kv_cache, layers
from pe_research.positions import base

PROJECTIONS = ('mha', 'gqa', 'mqa', 'mla')


class Attention(nnx.Module):
  """Multi-head attention; fewer key heads than query heads make it GQA, a single one MQA.

  Letters: B batch, L tokens, D model width, H query heads, G key heads, K head width.
  """

  def __init__(
    self,
    width: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    bias: bool,
    qk_norm: layers.Norm | None,
    out_std: float,
    dtype,
    key: jax.Array,
  ):
    """Draws the projections.

    Args:
      width: D.
      heads: H.
      kv_heads: G.
      head_dim: K.
      bias: whether every projection has one.
      qk_norm: norm of each query and key head, or None.
      out_std: multiplies the initial scale of the output projection.
      dtype: to compute in.
      key: every matrix is drawn from this and its own name.
    """
    self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
    common = {'bias': bias, 'dtype': dtype}
    self.query = layers.linear(key, 'query', width, heads * head_dim, **common)
    self.key = layers.linear(key, 'key', width, kv_heads * head_dim, **common)
    self.value = layers.linear(key, 'value', width, kv_heads * head_dim, **common)
    self.out = layers.linear(key, 'out', heads * head_dim, width, std=out_std, **common)

    def norm(name):
      return qk_norm.make(key, name, head_dim, dtype=dtype) if qk_norm else None

    self.query_norm, self.key_norm = norm('query_norm'), norm('key_norm')

  def slots(self) -> tuple[tuple[int, int], ...]:
    """Shapes of what the cache keeps of a token: keys and values."""
    return ((self.kv_heads, self.head_dim),) * 2

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
    """Attends from x to itself, or to the cache with x appended.

    Args:
      x: [B, L, D].
      at: positions and documents of x.
      scheme: encodes queries and keys, biases and scales the logits.
      spec: how to attend.
      length: positions that each document spans, for a scheme that depends on it.
      slots: this layer's cached keys and values, [B, N, G, K] each; None without a cache.
      cache: the cache, in which x has its place already.
      last: tokens at the end of x that are queries; None for all. All are keys.

    Returns:
      [B, L or `last`, D], and the slots with the keys and values of x written in.
    """
    q_x, q_at, q_length = last_tokens((x, at, length), last)
    q = layers.split_heads(self.query(q_x), self.heads)
    k = layers.split_heads(self.key(x), self.kv_heads)
    v = layers.split_heads(self.value(x), self.kv_heads)
    if self.query_norm is not None:
      q, k = self.query_norm(q), self.key_norm(k)
    q = scheme.query(q, q_at.pos, q_length)
    q = scaled(q, scheme, spec, q_at, q_length, self.head_dim)
    k = scheme.key(k, at.pos, length)
    k_at, offset = at, x.shape[1] - q_x.shape[1]
    if cache is not None:
      slots = cache.append(slots, (k, v))
      (k, v), k_at, offset = slots, cache.at, cache.used + offset
    out = attend.attend(q, k, v, q_at, k_at, scheme=scheme, spec=spec, offset=offset)
    return self.out(out.reshape(*q_x.shape[:2], -1)), slots


def scaled(
  q: jax.Array, scheme: base.PositionScheme, spec: Spec, at: Tokens, length, width: int
) -> jax.Array:
  """Queries [B, L, H, ...] times the logit scale over sqrt(width), computed in float32."""
  last = last_seen(at.pos, spec, scheme)
  scale = jnp.asarray(scheme.logit_scale(last, length)) * spec.scale / width**0.5
  scale = scale.reshape(*scale.shape, *(1,) * (q.ndim - scale.ndim)) if scale.ndim else scale
  return (q.astype(jnp.float32) * scale).astype(q.dtype)
