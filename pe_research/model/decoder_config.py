"""The sizes and kinds of a decoder, and which of them go together."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pe_research.common import checks
from pe_research.model import attention, layers

REMAT = ('none', 'block')
MLA_FIELDS = ('latent', 'query_latent', 'rotary_dim', 'value_dim')  # fields that only 'mla' has


# Sizes beyond those of any model, at which building one would not end.
LARGEST = {
  'vocab': 2**24, 'width': 2**20, 'layers': 1_000, 'heads': 2**14, 'kv_heads': 2**14,
  'head_dim': 2**14, 'mlp_width': 2**22,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and kinds, all explicit. `configs.resolve` computes those that a user may leave out.

  Attributes:
    vocab: V, number of tokens.
    width: D, the residual stream.
    layers: number of blocks.
    heads: query heads.
    projection: 'mha', 'gqa', 'mqa' (fewer key heads than query heads, or one), or 'mla'.
    kv_heads: key heads, a divisor of heads; equal to heads in 'mha' and 'mla', one in 'mqa'.
    head_dim: width of a head; in 'mla' without the slice for position.
    latent: in 'mla', width of the latent of keys and values; None otherwise, as are the next.
    query_latent: in 'mla', width that queries are compressed to, or 0.
    rotary_dim: in 'mla', width of the slice for position, where the scheme encodes queries.
    value_dim: in 'mla', width of a value head.
    attention_bias: whether attention projections have a bias; in 'mla' those from and to x.
    mlp: a name in layers.MLPS; 'swiglu' has a third matrix.
    mlp_width: hidden width of the MLP.
    mlp_bias: whether the MLP's matrices have a bias.
    norm: 'rms' or 'layer'.
    norm_eps: added to the mean square.
    norm_bias: whether the norm 'layer' has a bias.
    parallel: whether attention and MLP of a block read the same x (GPT-J, GPT-NeoX).
    tied: True uses the token table as output matrix; False has a separate one.
    embedding_scale: whether token embeddings are multiplied by sqrt(D).
    embedding_norm: whether they are then normed (BLOOM).
    qk_norm: whether each query and key head is normed, before the scheme encodes them.
    remat: 'none', or 'block' to recompute each block in the backward pass.
    dtype: 'float32' or 'bfloat16' for computing in the blocks; parameters are float32.
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

  @classmethod
  def of(cls, config: Mapping[str, Any]) -> 'DecoderConfig':
    """From a resolved config."""
    return cls(vocab=config['data']['vocab'], **config['model'])

  def __post_init__(self):
    for field, largest in LARGEST.items():
      checks.at_least(f'model.{field}', getattr(self, field), 1)
      checks.at_most(f'model.{field}', getattr(self, field), largest)
    if self.heads % self.kv_heads:
      raise ValueError(
        f'model.heads ({self.heads}) is not a multiple of model.kv_heads ({self.kv_heads}).'
      )
    for field, choices in (
      ('projection', attention.PROJECTIONS),
      ('mlp', layers.MLPS),
      ('norm', layers.NORMS),
      ('remat', REMAT),
      ('dtype', ('float32', 'bfloat16')),
    ):
      checks.choose(f'model.{field}', getattr(self, field), choices)
    if not 0 < self.norm_eps < 1:
      raise ValueError(f'model.norm_eps is {self.norm_eps}; it must be between 0 and 1.')
    if self.norm_bias and self.norm == 'rms':
      raise ValueError("model.norm_bias is True; the norm 'rms' has no bias. Set it to False.")
    self._check_projection()

  def _check_projection(self):
    groups = {'mha': self.heads, 'mla': self.heads, 'mqa': 1}.get(self.projection, self.kv_heads)
    if self.kv_heads != groups:
      raise ValueError(
        f'model.kv_heads is {self.kv_heads}; model.projection {self.projection!r} has {groups} '
        f'with {self.heads} heads. Change one, or leave kv_heads out.'
      )
    for field in MLA_FIELDS:
      size, least = getattr(self, field), 0 if field == 'query_latent' else 1
      if self.projection != 'mla':
        if size is not None:
          raise ValueError(
            f"model.{field} is {size}; only model.projection 'mla' has it, and this is "
            f'{self.projection!r}. Leave it out.'
          )
      elif size is None or size < least:
        raise ValueError(f'model.{field} is {size}; it must be at least {least}.')
    if self.projection == 'mla' and self.qk_norm:
      raise ValueError("model.qk_norm is True; 'mla' norms its latents instead. Set it to False.")

  def multiply_adds_per_pair(self, encodes: bool) -> int:
    """Multiply-adds of one query with one key and its value, over all heads of all layers.

    `encodes`: whether the scheme encodes queries and keys, so that 'mla' has its slice.
    """
    slice_, value = (self.rotary_dim or 0) if encodes else 0, self.value_dim or self.head_dim
    return self.layers * self.heads * (self.head_dim + slice_ + value)
