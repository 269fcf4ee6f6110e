"""Logits times the log of the number of keys, so that attention stays sharp in long texts.

The largest of n softmax weights shrinks as n grows, unless the logits grow with ln n.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.positions import base, rotary


def log_keys(q_pos: jax.Array) -> jax.Array:
  """ln n, float32 [B or 1, Lq]: a query at position m sees n = m + 1 keys."""
  return jnp.log(q_pos.astype(jnp.float32) + 1)


class LogN(rotary.RoPE):
  """RoPE with logits times max(1, ln n / ln L), without training: RoPE itself up to L tokens.

  n counts the keys of each query, not the length of the text.

  Paper and code: no known difference.
  """

  label = 'Log-n RoPE'
  paper = 'arXiv:2309.16609, sec. 2.3'
  formula = 'RoPE, then ℓ max(1, ln(m + 1) / ln L)'
  relative = False
  counts_keys = True
  trains_as = 'rope'

  def __init__(self, dims: base.Dims, *, train_length: int | None = None, **rope):
    """Chooses the length at which scaling begins.

    Args:
      dims: sizes of the model.
      train_length: tokens, L; None means the training length of the config.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.train_length = base.resolved('train_length', train_length)
    if self.train_length < 2:
      raise ValueError(f'position.train_length is {self.train_length}; it must be at least 2.')

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Fills in train_length."""
    return base.fill(super().resolve(given, dims), train_length=dims.length)

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """With the training length of the weights, which may differ from the config's."""
    return super().marks(self.train_length, longest)

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array:
    """float32 [B or 1, Lq]."""
    return jnp.maximum(log_keys(q_pos) / math.log(self.train_length), 1.0)


class ByHead:
  """Logits times s_h ln n, with s_h float32 [H] a parameter: a mixin for schemes."""

  counts_keys = True

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Fills in initial."""
    return base.fill(super().resolve(given, dims), initial=1 / math.log(max(dims.length, 2)))

  def add_scale(self, dims: base.Dims, initial: float | None) -> None:
    """Creates s_h."""
    if not 0 < base.resolved('initial', initial) < math.inf:
      raise ValueError(f'position.initial is {initial}; it must be positive.')
    self.initial = initial
    self.scale = nnx.Param(jnp.full(dims.heads, initial, jnp.float32))

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array:
    """float32 [B or 1, Lq, H]."""
    return log_keys(q_pos)[..., None] * self.scale[...][None, None]

  def _scale_at(self, length: int) -> float:
    return self.initial * math.log(length)


class SSMax(ByHead, base.PositionScheme):
  """Scalable softmax: logits times s_h ln n, s_h learned for each head; no other positions.

  The first query sees itself alone: its logit is 0 and its weight 1, as without the scale.

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
    """Starts as plain softmax at the training length.

    Args:
      dims: sizes of the model.
      initial: s_h before training; None means 1 / ln L, L the training length.
      rngs: unused.
    """
    super().__init__(dims, rngs=rngs)
    self.add_scale(dims, initial)


class SSMaxRoPE(ByHead, rotary.RoPE):
  """Scalable softmax, as SSMax, with RoPE.

  Paper and code: as in SSMax.
  """

  label = 'SSMax RoPE'
  paper = 'arXiv:2501.19399, eq. 2'
  formula = 'RoPE, then ℓ s_h ln(m + 1)'
  relative = False
  per_layer = True

  def __init__(self, dims: base.Dims, *, initial: float | None = None, **rope):
    """Starts as plain softmax at the training length.

    Args:
      dims: sizes of the model.
      initial: s_h before training; None means 1 / ln L, L the training length.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.add_scale(dims, initial)
