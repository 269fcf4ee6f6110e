"""The decoder: embed, pre-norm blocks, unembed. It owns the positional scheme and knows no name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from pe_research import attend, attention, cache, keys, latent, layers, positions
from pe_research.positions.base import Dims, PositionScheme
from pe_research.tokens import slice_rows

REMAT = ('none', 'block')
LATENT = ('latent', 'query_latent', 'rotary_dim', 'value_dim')  # fields of 'mla' alone


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)); both of the same x where they are parallel."""

  def __init__(self, model: 'DecoderConfig', encodes: bool, *, dtype, key: jax.Array):
    out_std = (2 * model.layers) ** -0.5  # keeps the variance of the residual sum near 1 (GPT-2)
    norm = layers.Norm(model.norm, model.norm_eps, model.norm_bias)
    common = {'bias': model.attention_bias, 'out_std': out_std, 'dtype': dtype}
    common['key'] = keys.key(key, 'attention')
    self.parallel = model.parallel
    self.attention_norm = norm.make(key, 'attention_norm', model.width, dtype=dtype)
    self.mlp_norm = norm.make(key, 'mlp_norm', model.width, dtype=dtype)
    if model.projection == 'mla':
      self.attention = latent.LatentAttention(
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

  def __call__(self, x, at, length, scheme: PositionScheme, spec, slots=None, filled=None):
    """[B, L, D] -> [B, L, D], and this layer's part of the cache; see Attention."""
    out, slots = self.attention(self.attention_norm(x), at, length, scheme, spec, slots, filled)
    attended = x + out
    return attended + self.mlp(self.mlp_norm(x if self.parallel else attended)), slots


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and kinds, all explicit. `configs.resolve` computes what a user may leave out.

  Attributes:
    vocab: V, number of tokens.
    width: D, the residual stream.
    layers: number of blocks.
    heads: query heads.
    projection: 'mha', 'gqa', 'mqa' (fewer key heads than query heads, or one), or 'mla'.
    kv_heads: key heads, a divisor of heads; as many in 'mha' and 'mla', one in 'mqa'.
    head_dim: width of a head; in 'mla' without the slice for positions.
    latent: in 'mla', width of what keys and values are made from; None otherwise, as are the next.
    query_latent: in 'mla', width that queries are compressed to, or 0.
    rotary_dim: in 'mla', width of the slice for positions, where the scheme encodes queries.
    value_dim: in 'mla', width of a value head.
    attention_bias: whether the attention's projections have one; in 'mla' those from and to x.
    mlp: a name in layers.MLPS; 'swiglu' has a third matrix.
    mlp_width: hidden width of the MLP.
    mlp_bias: whether its matrices have one.
    norm: 'rms' or 'layer'.
    norm_eps: added to the mean square.
    norm_bias: whether 'layer' has one.
    parallel: whether attention and MLP of a block read the same x (GPT-J, GPT-NeoX).
    tied: True reads the logits off the token table; False has an output matrix of its own.
    embedding_scale: whether token embeddings are read times sqrt(D).
    embedding_norm: whether they are then normed (BLOOM).
    qk_norm: the norm on each query and key head as well, before the scheme encodes them.
    remat: 'none', or 'block' to recompute each block in the backward pass.
    dtype: 'float32' or 'bfloat16', what the blocks compute in; parameters are float32.
  """

  vocab: int
  width: int
  layers: int
  heads: int
  projection: str
  kv_heads: int
  head_dim: int
  latent: int | None
  query_latent: int | None
  rotary_dim: int | None
  value_dim: int | None
  attention_bias: bool
  mlp: str
  mlp_width: int
  mlp_bias: bool
  norm: str
  norm_eps: float
  norm_bias: bool
  parallel: bool
  tied: bool
  embedding_scale: bool
  embedding_norm: bool
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
      ('projection', attention.PROJECTIONS),
      ('mlp', layers.MLPS),
      ('norm', layers.NORMS),
      ('remat', REMAT),
      ('dtype', ('float32', 'bfloat16')),
    ):
      if getattr(self, field) not in known:
        raise ValueError(
          f'model.{field} is {getattr(self, field)!r}; choose one of {", ".join(known)}.'
        )
    if not 0 < self.norm_eps < 1:
      raise ValueError(f'model.norm_eps is {self.norm_eps}; it must be between 0 and 1.')
    if self.norm_bias and self.norm == 'rms':
      raise ValueError("model.norm_bias is True; 'rms' has none. Set it to False.")
    self._check_projection()

  def _check_projection(self):
    groups = {'mha': self.heads, 'mla': self.heads, 'mqa': 1}.get(self.projection, self.kv_heads)
    if self.kv_heads != groups:
      raise ValueError(
        f'model.kv_heads is {self.kv_heads}, and model.projection {self.projection!r} has {groups} '
        f'of them with {self.heads} heads; change one, or leave kv_heads out.'
      )
    for field in LATENT:
      size, least = getattr(self, field), 0 if field == 'query_latent' else 1
      if self.projection != 'mla':
        if size is not None:
          raise ValueError(
            f"model.{field} is {size}; it is of model.projection 'mla', and this is "
            f'{self.projection!r}. Leave it out.'
          )
      elif size is None or size < least:
        raise ValueError(f'model.{field} is {size}; it must be at least {least}.')
    if self.projection == 'mla' and self.qk_norm:
      raise ValueError("model.qk_norm is True; 'mla' norms its latents instead. Set it to False.")

  def products(self, encodes: bool) -> int:
    """Multiply-adds of one query with one key and its value, over all heads of all layers."""
    slice_, value = (self.rotary_dim or 0) if encodes else 0, self.value_dim or self.head_dim
    return self.layers * self.heads * (self.head_dim + slice_ + value)


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
      position: the scheme's name and arguments, as `positions.defaults` gives them.
      length: tokens, the training length, which some schemes take their defaults from.
      key: every parameter is drawn from this and its own name.
    """
    self.model = model
    dims, kind = Dims.of(dataclasses.asdict(model), length), positions.scheme(position['name'])
    owners = model.layers if kind.per_layer else 1
    self.position = nnx.List(
      [positions.build(position, dims, keys.rngs(key, f'position{i}')) for i in range(owners)]
    )
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
    before, filled, used = filled, filled.place(tokens, at), filled.taken(at)
    if varies:
      x, filled = self._follow_length(tokens.shape[1], spec, before, filled, used)
    else:
      at = filled.at.slice(filled.used, tokens.shape[1])
      x, filled = self._blocks(tokens, at, None, spec, filled)
    return x, dataclasses.replace(filled, used=used)

  def _follow_length(self, size: int, spec, before, filled: cache.KVCache, used):
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

  def _blocks(self, tokens, at, length, spec, filled):
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
      filled = dataclasses.replace(filled, layers=tuple(slots))
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
    kept = [block.attention.slots() for block in self.blocks]
    return cache.empty(batch, capacity, kept, jnp.dtype(self.model.dtype))

  def reserve(self, filled: cache.KVCache, tokens: int) -> cache.KVCache:
    """The cache with room for `tokens` more in each row, grown by whole blocks; not traced."""
    for scheme in self.position:
      scheme.check_length(int(filled.used.max()) + tokens)
    return filled.reserve(tokens)


def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Negative log-likelihood of each target, float32 nats [B, L]; logits [B, L, V]."""
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen
