"""DroPE: a model trained with RoPE, used without it."""

import math

import jax
import numpy as np

from pe_research.positions import base, interpolation


class DroPE(interpolation.Stretched):
  """A RoPE model without rotation; logits times 1 + c ln s for a stretch by s.

  For use after a short fine-tuning at the training length with this scheme and factor 1. The paper
  fits the coefficient at each target length: 0.412 for a model trained from scratch, 0.103 for
  SmolLM.

  Paper and code: no known difference.
  """

  label = 'DroPE'
  paper = 'arXiv:2512.12167'
  formula = 'ℓ (1 + c ln s),  θᵢ = 0'
  default_factor = 1.0

  def __init__(self, dims: base.Dims, *, coefficient: float = 0.412, **stretched):
    """Chooses the temperature.

    Args:
      dims: sizes of the model.
      coefficient: c; 0 does not scale the logits.
      **stretched: as in Stretched; the arguments of RoPE say how the weights were trained.
    """
    super().__init__(dims, **stretched)
    if not 0 <= coefficient < math.inf:
      raise ValueError(f'position.coefficient is {coefficient}; it must be at least 0.')
    self.coefficient = coefficient

  def frequencies(self, length) -> np.ndarray:
    """Zeros, float64 [rotated/2] radians per token."""
    return 0 * super().frequencies(length)

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """1 + c ln s."""
    return 1 + self.coefficient * math.log(self.factor)
