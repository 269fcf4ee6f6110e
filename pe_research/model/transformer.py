"""The decoder: embed, pre-norm blocks, unembed. Works with any positional scheme."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens, last_tokens, slice_rows
from pe_research.common import keys, sharding
from pe_research.model import attention, kv_cache, latent_attention, layers
from pe_research.model.decoder_config import DecoderConfig
from pe_research.positions.base import Dims, PositionScheme


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); parallel blocks read the same x in both."""

  def __init__(self, model: DecoderConfig, encodes: bool, *, dtype, key: jax.Array):
    out_std = (2 * model.layers) ** -0.5  # keeps the variance of the residual sum near 1 (GPT-2)
    norm = layers.Norm(model.norm, model.norm_eps, model.norm_bias)
    common = {'bias': model.attention_bias, 'out_std': out_std, 'dtype': dtype}
    common |= {'key': keys.key(key, 'attention')}
    self.parallel = model.parallel
    self.attention_norm = norm.make(key, 'attention_norm', model.width, dtype=dtype)
    self.mlp_norm = norm.make(key, 'mlp_norm', model.width, dtype=dtype)
    if model.projection == 'mla':
      self.attention = latent_attention.LatentAttention(
        model.width,
        model.heads,
        model.head_dim,
        latent=model.latent,
        query_latent=model.query_latent,
        rotary=model.rotary_dim if encodes else 0,
        value_dim=model.value_dim,
        norm=norm,
        **common,
      )
    else:
      sizes = model.width, model.heads, model.kv_heads, model.head_dim
      qk_norm = norm if model.qk_norm else None
      self.attention = attention.Attention(*sizes, qk_norm=qk_norm, **common)
    self.mlp = layers.MLP(
      model.width,
      model.mlp_width,
      model.mlp,
      bias=model.mlp_bias,
      out_std=out_std,
      dtype=dtype,
      key=keys.key(key, 'mlp'),
    )

  def __call__(self, x, at: Tokens, scheme: PositionScheme, spec: Spec, *, last=None, **cached):
    """[B, L, D] -> [B, L or `last`, D], and this layer's slots of the cache; see Attention."""
    out, slots = self.attention(self.attention_norm(x), at, scheme, spec, last=last, **cached)
    x = last_tokens(x, last)
    attended = x + out
    return attended + self.mlp(self.mlp_norm(x if self.parallel else attended)), slots


class Decoder(nnx.Module):
  """Token ids and positions in, logits out.

  Every parameter outside `position` is drawn from a key of its own name, so its initial value is
  the same under every scheme. Token embeddings start at N(0, 1/D) and with `embedding_scale` are
  multiplied by sqrt(D) (arXiv:1706.03762, sec. 3.4): they have unit variance, the scale that
  schemes which add to them assume.
  """

  def __init__(
    self, model: DecoderConfig, position: Mapping[str, Any], length: int, *, key: jax.Array
  ):
    """Draws the initial parameters.

    Args:
      model: sizes and kinds.
      position: the scheme's name and arguments, as `configs.position` returns them.
      length: tokens, the training length, from which some schemes compute their defaults.
      key: every parameter is drawn from this and its own name.
    """
    self.model = model
    kind = positions.scheme(position['name'])
    dims = Dims.of(dataclasses.asdict(model), length, kind.encodes())
    dtype = jnp.dtype(model.dtype)

    def scheme(i):
      rngs = keys.rngs(key, f'position{i}')
      return positions.build(position, dataclasses.replace(dims, layer=i), rngs)

    def table(name):
      draw = nnx.initializers.normal(model.width**-0.5)
      return nnx.Param(draw(keys.key(key, name), (model.vocab, model.width), jnp.float32))

    def block(i):
      return Block(model, kind.encodes(), dtype=dtype, key=keys.key(key, f'block{i}'))

    def norm(name):
      made = layers.Norm(model.norm, model.norm_eps, model.norm_bias)
      return made.make(key, name, model.width, dtype=dtype)

    self.position = nnx.List(map(scheme, range(model.layers if kind.per_layer else 1)))
    self.embedding = table('embedding')
    self.blocks = nnx.List(map(block, range(model.layers)))
    self.embedding_norm = norm('embedding_norm') if model.embedding_norm else None
    self.norm = norm('norm')
    self.output = None if model.tied else table('output')

  def features(
    self,
    tokens: jax.Array,
    at: Tokens,
    spec: Spec,
    cache: kv_cache.KVCache | None = None,
    last: int | None = None,
  ) -> tuple[jax.Array, kv_cache.KVCache | None]:
    """The last block's output after the final norm.

    Args:
      tokens: int [B, L].
      at: positions and documents of the tokens.
      spec: how to attend.
      cache: a cache to attend to and to append to, or None.
      last: tokens at the end whose features are returned, so that the last block computes no
        others; None for all. Not with a cache.

    Returns:
      [B, L or `last`, D] in the compute dtype, and the cache with these tokens in it.
    """
    if cache is not None and last is not None:
      raise ValueError(f'last={last} leaves tokens out, and a cache needs all; drop one of them.')
    for scheme in self.position:
      scheme.check_length(tokens.shape[1])
    varies = self.position[0].depends_on_length
    if cache is None:
      return self._blocks(tokens, at, spec, length=at.lengths() if varies else None, last=last)
    placed, used = cache.place(tokens, at), cache.used_after(at)
    if varies:
      x, cache = self._append_or_recompute(tokens.shape[1], spec, cache, placed)
    else:
      at = placed.at.slice(placed.used, tokens.shape[1])
      x, cache = self._blocks(tokens, at, spec, cache=placed)
    return x, dataclasses.replace(cache, used=used)

  def _append_or_recompute(self, size: int, spec: Spec, before, cache: kv_cache.KVCache):
    """Appends `size` placed tokens; recomputes the cache where a document's length changes it.

    Keys and values of deeper layers depend on the encoding of lower ones too, so nothing that is
    cached remains valid then.
    """
    lengths = cache.at.lengths()
    regime = self.position[0].regime
    occupied = jnp.arange(cache.capacity)[None] < cache.used[:, None]
    outgrown = (regime(before.at.lengths()) != regime(lengths)) & (cache.at.segments > 0)

    def append(cache):
      at = cache.at.slice(cache.used, size)
      tokens, length = (slice_rows(x, cache.used, size) for x in (cache.tokens, lengths))
      return self._blocks(tokens, at, spec, length=length, cache=cache)

    def recompute(cache):
      empty = dataclasses.replace(cache, used=jnp.zeros_like(cache.used))
      x, full = self._blocks(cache.tokens, cache.at, spec, length=lengths, cache=empty)
      return slice_rows(x, cache.used, size), dataclasses.replace(full, used=cache.used)

    return lax.cond((outgrown & occupied).any(), recompute, append, cache)

  def _blocks(self, tokens, at: Tokens, spec: Spec, *, length=None, cache=None, last=None):
    """`features`; with a cache, the tokens are already placed in it."""
    x = (
      self.embedding[...]
      .at[tokens]
      .get(mode='fill', fill_value=jnp.nan, wrap_negative_indices=False)
    )
    if self.model.embedding_scale:
      x = x * self.model.width**0.5
    x = x.astype(self.model.dtype)
    if self.embedding_norm is not None:
      x = self.embedding_norm(x)
    x = sharding.over_tokens(self.position[0].embed(x, at.pos), spec.mesh)
    slots = []
    for i, block in enumerate(self.blocks):
      scheme = self.position[i % len(self.position)]
      if cache is not None:
        layer = cache.layers[i]
        x, slot = block(x, at, scheme, spec, length=length, slots=layer, cache=cache)
        slots.append(slot)
        continue
      kept = last if i == len(self.blocks) - 1 else None
      run = functools.partial(_without_cache, block, at, scheme, spec, length=length, last=kept)
      x = (jax.checkpoint(run) if self.model.remat == 'block' else run)(x)
    if cache is not None:
      cache = dataclasses.replace(cache, layers=tuple(slots))
    return self.norm(x), cache

  def logits(self, features: jax.Array) -> jax.Array:
    """float32 [B, L, V] of features [B, L, D]."""
    table = self.embedding if self.output is None else self.output
    table = table[...].astype(features.dtype)
    return jnp.einsum('bld,vd->blv', features, table, preferred_element_type=jnp.float32)

  def __call__(self, tokens: jax.Array, at: Tokens, spec: Spec) -> jax.Array:
    """float32 logits [B, L, V] of the next token, for tokens [B, L]."""
    return self.logits(self.features(tokens, at, spec)[0])

  def new_cache(self, batch: int, capacity: int) -> kv_cache.KVCache:
    """An empty cache of `capacity` tokens; ValueError where that is past the scheme's maximum."""
    for scheme in self.position:
      scheme.check_length(capacity)
    shapes = [block.attention.slots() for block in self.blocks]
    return kv_cache.empty(batch, capacity, shapes, jnp.dtype(self.model.dtype))

  def reserve(self, cache: kv_cache.KVCache, tokens: int) -> kv_cache.KVCache:
    """The cache with room for `tokens` more in each row, grown by whole blocks; not traced."""
    for scheme in self.position:
      scheme.check_length(int(cache.used.max()) + tokens)
    return cache.reserve(tokens)


def _without_cache(block: Block, at: Tokens, scheme, spec: Spec, x, **settings):
  return block(x, at, scheme, spec, **settings)[0]


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Negative log-likelihood of each target, float32 nats [B, L]; logits [B, L, V]."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen
