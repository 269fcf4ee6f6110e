"""Logits that sharpen with the number of keys a query sees, so that attention does not spread out.

With n keys the largest of n softmax weights shrinks as n grows; logits times ln n keep it.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.positions import base, rotary


def log_keys(q_pos: jax.Array) -> jax.Array:
  """ln n, float32 [B or 1, Lq]: a query whose last key is at m, from its first on, sees m + 1."""
  return jnp.log(q_pos.astype(jnp.float32) + 1)


class LogN(rotary.RoPE):
  """RoPE with logits times max(1, ln n / ln L), without training: RoPE itself up to L tokens.

  n counts the keys of each query, not the length of the text.

  Paper and code: none known.
  """

  label = 'Log-n RoPE'
  paper = 'arXiv:2309.16609, sec. 2.3'
  formula = 'RoPE, then ℓ max(1, ln(m + 1) / ln L)'
  relative = False
  counts_keys = True
  trains_as = 'rope'

  def __init__(self, dims: base.Dims, *, train_length: int | None = None, **rope):
    """Settles where scaling begins.

    Args:
      dims: sizes of the model.
      train_length: tokens, L; None means the training length of the config.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.train_length = base.filled('train_length', train_length)
    if self.train_length < 2:
      raise ValueError(f'position.train_length is {self.train_length}; ln of it must be positive.')

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Settles train_length."""
    given = super().resolve(given, dims)
    return given | ({'train_length': dims.length} if given['train_length'] is None else {})

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """As the weights were trained, which a config's length need not say."""
    return super().marks(self.train_length, longest)

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array:
    """float32 [B or 1, Lq]."""
    del length
    return jnp.maximum(log_keys(q_pos) / math.log(self.train_length), 1.0)


class ByHead:
  """Logits times s_h ln n, with s_h float32 [H] a parameter, for a scheme to be made of."""

  counts_keys = True

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Settles initial."""
    given = super().resolve(given, dims)
    softmax = 1 / math.log(max(dims.length, 2))
    return given | ({'initial': softmax} if given['initial'] is None else {})

  def own_scale(self, dims: base.Dims, initial: float | None) -> None:
    """Creates s_h."""
    if not 0 < base.filled('initial', initial) < math.inf:
      raise ValueError(f'position.initial is {initial}; it must be positive.')
    self.initial = initial
    self.scale = nnx.Param(jnp.full(dims.heads, initial, jnp.float32))

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array:
    """float32 [B or 1, Lq, H]."""
    del length
    return log_keys(q_pos)[..., None] * self.scale[...][None, None]

  def _scale_at(self, length: int) -> float:
    return self.initial * math.log(length)


class SSMax(ByHead, base.PositionScheme):
  """Scalable softmax: logits times s_h ln n, s_h learned for each head; no other positions.

  The first query, which sees itself alone, has logits of 0 and the same weight as with any others.

  Paper and code: several ports take ln of the length of the whole text for every query. Here n
  counts the keys that a query sees.
  """

  label = 'SSMax'
  paper = 'arXiv:2501.19399, eq. 2'
  formula = 'ℓ s_h ln(m + 1)'
  relative = False
  per_layer = True

  def __init__(
    self, dims: base.Dims, *, initial: float | None = None, rngs: nnx.Rngs | None = None
  ):
    """Begins as softmax at the training length.

    Args:
      dims: sizes of the model.
      initial: s_h before training; None: 1 / ln L, L the training length.
      rngs: unused.
    """
    super().__init__(dims, rngs=rngs)
    self.own_scale(dims, initial)


class SSMaxRoPE(ByHead, rotary.RoPE):
  """Scalable softmax, as SSMax, with RoPE.

  Paper and code: as of SSMax.
  """

  label = 'SSMax RoPE'
  paper = 'arXiv:2501.19399, eq. 2'
  formula = 'RoPE, then ℓ s_h ln(m + 1)'
  relative = False
  per_layer = True

  def __init__(self, dims: base.Dims, *, initial: float | None = None, **rope):
    """Begins as softmax at the training length.

    Args:
      dims: sizes of the model.
      initial: s_h before training; None: 1 / ln L, L the training length.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.own_scale(dims, initial)
