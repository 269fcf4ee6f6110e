"""The decoder: embed, pre-norm blocks, unembed. It owns the positional scheme and knows no name."""

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
from pe_research.attention.tokens import Tokens, ending, slice_rows
from pe_research.common import keys, sharding
from pe_research.model import attention, kv_cache, latent_attention, layers
from pe_research.model.decoder_config import DecoderConfig
from pe_research.positions.base import Dims, PositionScheme


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); both of the same x where they are parallel."""

  def __init__(self, model: DecoderConfig, encodes: bool, *, dtype, key: jax.Array):
    out_std = (2 * model.layers) ** -0.5  # keeps the variance of the residual sum near 1 (GPT-2)
    norm = layers.Norm(model.norm, model.norm_eps, model.norm_bias)
    common = {'bias': model.attention_bias, 'out_std': out_std, 'dtype': dtype}
    common['key'] = keys.key(key, 'attention')
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

  def __call__(
    self, x, at, length, scheme: PositionScheme, spec, slots=None, filled=None, last=None
  ):
    """[B, L, D] -> [B, L or `last`, D], and this layer's part of the cache; see Attention."""
    normed = self.attention_norm(x)
    out, slots = self.attention(normed, at, length, scheme, spec, slots, filled, last)
    x = ending(x, last)
    attended = x + out
    return attended + self.mlp(self.mlp_norm(x if self.parallel else attended)), slots


class Decoder(nnx.Module):
  """Token ids and positions in, logits out.

  Every parameter outside `position` is drawn by its own name, so it starts with the same bits
  whatever the scheme. Token embeddings start at N(0, 1/D) and with `embedding_scale` are read times
  sqrt(D) (arXiv:1706.03762, sec. 3.4), hence with unit variance, which is what schemes that add to
  them are measured against.
  """

  def __init__(
    self, model: DecoderConfig, position: Mapping[str, Any], length: int, *, key: jax.Array
  ):
    """Draws a decoder.

    Args:
      model: sizes and kinds.
      position: the scheme's name and arguments, as `configs.position` gives them.
      length: tokens, the training length, which some schemes take their defaults from.
      key: every parameter is drawn from this and its own name.
    """
    self.model = model
    kind = positions.scheme(position['name'])
    dims = Dims.of(dataclasses.asdict(model), length, kind.encodes())
    owners = model.layers if kind.per_layer else 1
    build = lambda i: positions.build(
      position, dataclasses.replace(dims, layer=i), keys.rngs(key, f'position{i}')
    )
    self.position = nnx.List([build(i) for i in range(owners)])
    table = nnx.initializers.normal(model.width**-0.5)
    shape = model.vocab, model.width
    self.embedding = nnx.Param(table(keys.key(key, 'embedding'), shape, jnp.float32))
    dtype = jnp.dtype(model.dtype)
    block = lambda i: Block(model, kind.encodes(), dtype=dtype, key=keys.key(key, f'block{i}'))
    self.blocks = nnx.List([block(i) for i in range(model.layers)])
    norm = layers.Norm(model.norm, model.norm_eps, model.norm_bias)
    normed = lambda name: norm.make(key, name, model.width, dtype=dtype)
    self.embedding_norm = normed('embedding_norm') if model.embedding_norm else None
    self.norm = normed('norm')
    output = lambda: nnx.Param(table(keys.key(key, 'output'), shape, jnp.float32))
    self.output = None if model.tied else output()

  def features(
    self,
    tokens: jax.Array,
    at: Tokens,
    spec: Spec,
    filled: kv_cache.KVCache | None = None,
    last: int | None = None,
  ) -> tuple[jax.Array, kv_cache.KVCache | None]:
    """The last block's output after the final norm.

    Args:
      tokens: int [B, L].
      at: positions and documents of the tokens.
      spec: how to attend.
      filled: a cache to attend to and to append to, or None.
      last: tokens at the end that are wanted, so that the last block computes no others; None for
        all. Not with a cache.

    Returns:
      [B, L or `last`, D] in the compute dtype, and the cache with these tokens in it.
    """
    if filled is not None and last is not None:
      raise ValueError(f'last={last} goes without a cache, which every token enters.')
    for scheme in self.position:
      scheme.check_length(tokens.shape[1])
    varies = self.position[0].depends_on_length
    if filled is None:
      return self._blocks(tokens, at, at.lengths() if varies else None, spec, None, last)
    before, filled, used = filled, filled.place(tokens, at), filled.taken(at)
    if varies:
      x, filled = self._follow_length(tokens.shape[1], spec, before, filled, used)
    else:
      at = filled.at.slice(filled.used, tokens.shape[1])
      x, filled = self._blocks(tokens, at, None, spec, filled)
    return x, dataclasses.replace(filled, used=used)

  def _follow_length(self, size: int, spec, before, filled: kv_cache.KVCache, used):
    """Appends `size` placed tokens; where documents outgrew their encoding, computes all anew.

    Every layer's keys and values follow from encodings, so nothing cached can be kept then: not
    even keys before their encoding, which in all layers but the first depend on that of others.
    """
    lengths = filled.at.lengths()
    regime = self.position[0].regime
    occupied = jnp.arange(filled.capacity)[None] < filled.used[:, None]
    outgrown = (regime(before.at.lengths()) != regime(lengths)) & (filled.at.segments > 0)

    def append(filled):
      at = filled.at.slice(filled.used, size)
      tokens, length = (slice_rows(x, filled.used, size) for x in (filled.tokens, lengths))
      return self._blocks(tokens, at, length, spec, filled)

    def renew(filled):
      whole = dataclasses.replace(filled, used=jnp.zeros_like(filled.used))
      x, renewed = self._blocks(filled.tokens, filled.at, lengths, spec, whole)
      x = slice_rows(x, filled.used, size)
      return x, dataclasses.replace(renewed, used=filled.used)

    return lax.cond((outgrown & occupied).any(), renew, append, filled)

  def _blocks(self, tokens, at, length, spec, filled, last=None):
    """`features`, for tokens that have their place in the cache if there is one."""
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
      if filled is not None:
        x, slot = block(x, at, length, scheme, spec, filled.layers[i], filled)
        slots.append(slot)
        continue
      only = last if i == len(self.blocks) - 1 else None
      run = functools.partial(_without_cache, block, at, length, scheme, spec, only)
      x = (jax.checkpoint(run) if self.model.remat == 'block' else run)(x)
    if filled is not None:
      filled = dataclasses.replace(filled, layers=tuple(slots))
    return self.norm(x), filled

  def logits(self, features: jax.Array) -> jax.Array:
    """float32 [B, L, V] of features [B, L, D]."""
    table = self.embedding if self.output is None else self.output
    table = table[...].astype(features.dtype)
    return jnp.einsum('bld,vd->blv', features, table, preferred_element_type=jnp.float32)

  def __call__(self, tokens: jax.Array, at: Tokens, spec: Spec) -> jax.Array:
    """float32 logits [B, L, V] of the next token, for tokens [B, L]."""
    return self.logits(self.features(tokens, at, spec)[0])

  def new_cache(self, batch: int, capacity: int) -> kv_cache.KVCache:
    """An empty cache of `capacity` tokens; ValueError where the scheme does not reach so far."""
    for scheme in self.position:
      scheme.check_length(capacity)
    kept = [block.attention.slots() for block in self.blocks]
    return kv_cache.empty(batch, capacity, kept, jnp.dtype(self.model.dtype))

  def reserve(self, filled: kv_cache.KVCache, tokens: int) -> kv_cache.KVCache:
    """The cache with room for `tokens` more in each row, grown by whole blocks; not traced."""
    for scheme in self.position:
      scheme.check_length(int(filled.used.max()) + tokens)
    return filled.reserve(tokens)


def _without_cache(block, at, length, scheme, spec, last, x):
  return block(x, at, length, scheme, spec, last=last)[0]


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Negative log-likelihood of each target, float32 nats [B, L]; logits [B, L, V]."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen
