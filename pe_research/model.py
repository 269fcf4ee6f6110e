"""The decoder: embed, pre-norm blocks, unembed. It owns the positional scheme and knows no name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from pe_research import attend, attention, cache, keys, layers, positions
from pe_research.positions.base import Dims, PositionScheme

REMAT = ('none', 'block')


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x))."""

  def __init__(self, model: 'DecoderConfig', *, dtype, key: jax.Array):
    out_std = (2 * model.layers) ** -0.5  # keeps the variance of the residual sum near 1 (GPT-2)
    self.attention_norm = layers.norm(key, 'attention_norm', model.width, dtype=dtype)
    self.mlp_norm = layers.norm(key, 'mlp_norm', model.width, dtype=dtype)
    self.attention = attention.Attention(
      model.width,
      model.heads,
      model.kv_heads,
      model.head_dim,
      qk_norm=model.qk_norm,
      out_std=out_std,
      dtype=dtype,
      key=keys.key(key, 'attention'),
    )
    self.mlp = layers.MLP(
      model.width,
      model.mlp_width,
      model.mlp,
      out_std=out_std,
      dtype=dtype,
      key=keys.key(key, 'mlp'),
    )

  def __call__(self, x, at, length, scheme: PositionScheme, spec, slots=None, filled=None):
    """[B, L, D] -> [B, L, D], and this layer's part of the cache; see Attention."""
    out, slots = self.attention(self.attention_norm(x), at, length, scheme, spec, slots, filled)
    x = x + out
    return x + self.mlp(self.mlp_norm(x)), slots


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and kinds, all explicit. `configs.resolve` computes what a user may leave out.

  Attributes:
    vocab: V, number of tokens.
    width: D, the residual stream.
    layers: number of blocks.
    heads: query heads.
    kv_heads: key heads; a divisor of heads (equal: MHA, 1: MQA).
    head_dim: width of a head.
    mlp: 'gelu', 'squared_relu' or 'swiglu' (a third matrix).
    mlp_width: hidden width of the MLP.
    tied: True reads the logits off the token table; False has an output matrix of its own.
    qk_norm: RMSNorm on each query and key head, before the scheme encodes them.
    remat: 'none', or 'block' to recompute each block in the backward pass.
    dtype: 'float32' or 'bfloat16', what the blocks compute in; parameters are float32.
  """

  vocab: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp: str
  mlp_width: int
  tied: bool
  qk_norm: bool
  remat: str
  dtype: str

  def __post_init__(self):
    for field in ('vocab', 'width', 'layers', 'heads', 'kv_heads', 'head_dim', 'mlp_width'):
      if getattr(self, field) < 1:
        raise ValueError(f'model.{field} is {getattr(self, field)}; it must be at least 1.')
    if self.heads % self.kv_heads:
      raise ValueError(
        f'model.heads ({self.heads}) is not a multiple of model.kv_heads ({self.kv_heads}).'
      )
    for field, known in (
      ('mlp', layers.MLPS),
      ('remat', REMAT),
      ('dtype', ('float32', 'bfloat16')),
    ):
      if getattr(self, field) not in known:
        raise ValueError(
          f'model.{field} is {getattr(self, field)!r}; choose one of {", ".join(known)}.'
        )


class Decoder(nnx.Module):
  """Token ids and positions in, logits out.

  Every parameter outside `position` is drawn by its own name, so it starts with the same bits
  whatever the scheme. Token embeddings start at N(0, 1/D) and are read times sqrt(D)
  (arXiv:1706.03762, sec. 3.4), hence with unit variance, which is what schemes that add to them
  are measured against.
  """

  def __init__(
    self, model: DecoderConfig, position: Mapping[str, Any], length: int, *, key: jax.Array
  ):
    """Draws a decoder.

    Args:
      model: sizes and kinds.
      position: the scheme's name and arguments, as `positions.defaults` gives them.
      length: tokens, the training length, which some schemes take their defaults from.
      key: every parameter is drawn from this and its own name.
    """
    self.model = model
    dims = Dims(model.width, model.heads, model.head_dim, length)
    owners = model.layers if positions.scheme(position['name']).per_layer else 1
    self.position = nnx.List(
      [positions.build(position, dims, keys.rngs(key, f'position{i}')) for i in range(owners)]
    )
    table = nnx.initializers.normal(model.width**-0.5)
    shape = model.vocab, model.width
    self.embedding = nnx.Param(table(keys.key(key, 'embedding'), shape, jnp.float32))
    dtype = jnp.dtype(model.dtype)
    self.blocks = nnx.List(
      [Block(model, dtype=dtype, key=keys.key(key, f'block{i}')) for i in range(model.layers)]
    )
    self.norm = layers.norm(key, 'norm', model.width, dtype=dtype)
    output = lambda: nnx.Param(table(keys.key(key, 'output'), shape, jnp.float32))
    self.output = None if model.tied else output()

  def features(
    self,
    tokens: jax.Array,
    at: attend.Tokens,
    spec: attend.Spec,
    filled: cache.KVCache | None = None,
  ) -> tuple[jax.Array, cache.KVCache | None]:
    """The last block's output after the final norm.

    Args:
      tokens: int [B, L].
      at: positions and documents of the tokens.
      spec: how to attend.
      filled: a cache to attend to and to append to, or None.

    Returns:
      [B, L, D] in the compute dtype, and the cache with these tokens in it.
    """
    for scheme in self.position:
      scheme.check_length(tokens.shape[1])
    varies = self.position[0].depends_on_length
    if filled is None:
      return self._blocks(tokens, at, at.lengths() if varies else None, spec, None)
    before, filled = filled, filled.place(tokens, at)
    if not varies:
      at = filled.at.slice(filled.used, tokens.shape[1])
      return self._blocks(tokens, at, None, spec, filled)
    return self._follow_length(tokens.shape[1], spec, before, filled)

  def _follow_length(self, size: int, spec, before: cache.KVCache, filled: cache.KVCache):
    """Appends `size` placed tokens; where documents outgrew their encoding, computes all anew.

    Every layer's keys and values follow from encodings, so nothing cached can be kept then.
    """
    lengths = filled.at.lengths()
    regime = self.position[0].regime
    occupied = jnp.arange(filled.capacity)[None] < filled.used
    outgrown = (regime(before.at.lengths()) != regime(lengths)) & (filled.at.segments > 0)

    def append(filled):
      at = filled.at.slice(filled.used, size)
      tokens, length = (
        lax.dynamic_slice_in_dim(x, filled.used, size, axis=1) for x in (filled.tokens, lengths)
      )
      return self._blocks(tokens, at, length, spec, filled)

    def renew(filled):
      whole = dataclasses.replace(filled, used=jnp.zeros_like(filled.used))
      x, renewed = self._blocks(filled.tokens, filled.at, lengths, spec, whole)
      x = lax.dynamic_slice_in_dim(x, filled.used, size, axis=1)
      return x, dataclasses.replace(renewed, used=filled.used + size)

    return lax.cond((outgrown & occupied).any(), renew, append, filled)

  def _blocks(self, tokens, at, length, spec, filled):
    """`features`, for tokens that have their place in the cache if there is one."""
    x = (
      self.embedding[...]
      .at[tokens]
      .get(mode='fill', fill_value=jnp.nan, wrap_negative_indices=False)
    )
    x = (x * self.model.width**0.5).astype(self.model.dtype)
    x = self.position[0].embed(x, at.pos)
    slots = []
    for i, block in enumerate(self.blocks):
      scheme = self.position[i % len(self.position)]
      if filled is not None:
        x, slot = block(x, at, length, scheme, spec, filled.layers[i], filled)
        slots.append(slot)
      elif self.model.remat == 'block':
        run = lambda x, block=block, scheme=scheme: block(x, at, length, scheme, spec)[0]
        x = jax.checkpoint(run)(x)
      else:
        x, _ = block(x, at, length, scheme, spec)
    if filled is not None:
      used = filled.used + tokens.shape[1]
      filled = dataclasses.replace(filled, layers=tuple(slots), used=used)
    return self.norm(x), filled

  def logits(self, features: jax.Array) -> jax.Array:
    """float32 [B, L, V] of features [B, L, D]."""
    table = self.embedding if self.output is None else self.output
    table = table[...].astype(features.dtype)
    return jnp.einsum('bld,vd->blv', features, table, preferred_element_type=jnp.float32)

  def __call__(self, tokens: jax.Array, at: attend.Tokens, spec: attend.Spec) -> jax.Array:
    """float32 logits [B, L, V] of the next token, for tokens [B, L]."""
    return self.logits(self.features(tokens, at, spec)[0])

  def new_cache(self, batch: int, capacity: int) -> cache.KVCache:
    """An empty cache of `capacity` tokens; ValueError where the scheme does not reach so far."""
    for scheme in self.position:
      scheme.check_length(capacity)
    model = self.model
    return cache.empty(
      batch, capacity, model.layers, model.kv_heads, model.head_dim, jnp.dtype(model.dtype)
    )


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Negative log-likelihood of each target, float32 nats [B, L]; logits [B, L, V]."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen
