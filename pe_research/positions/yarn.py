"""YaRN: the frequencies of NTK-by-parts (by_parts.py), and a temperature on the logits."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pe_research.positions import base as base_lib
from pe_research.positions import by_parts, fixed_point, interpolation


def mscale(factor, weight: float = 1.0):
  """0.1 weight ln(factor) + 1 (eq. 22 for weight 1), which multiplies queries and keys."""
  return 0.1 * weight * fixed_point.numpy_of(factor).log(factor) + 1


def ratio(factor, weight: float | None, all_dim: float | None):
  """`mscale` of the first weight over that of the second; 1 unless both are given."""
  return mscale(factor, weight) / mscale(factor, all_dim) if weight and all_dim else 1.0


class YaRN(by_parts.NTKByParts):
  """NTK-by-parts, and logits sharper by (0.1 ln s + 1)^2.

  The first three arguments are those of transformers. In latent attention, where a slice of the
  head carries position, the temperature multiplies the whole logit. With mscale and mscale_all_dim
  it is (0.1 m' ln s + 1)^2, and their ratio multiplies the slice alone: 1 in DeepSeek-V2 and V3,
  where the two are equal.

  Paper and code: the ramp differs, as in NTK-by-parts. The paper multiplies queries and keys by
  sqrt(1/t) = 0.1 ln s + 1 each (eq. 22), code multiplies cos and sin; here its square multiplies
  the logits, so that rotation keeps norms, and so that the temperature acts on the whole logit
  where only a part of the head rotates (in code it then acts on that part alone).
  """

  label = 'YaRN'
  paper = 'arXiv:2309.00071, def. 3, eqs. 21 and 22'
  formula = 'ℓ (0.1 ln s + 1)²,  θᵢ by NTK-by-parts'

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    slice_factor: float | None = None,
    **parts,
  ):
    """Chooses the temperature.

    Args:
      dims: sizes of the model.
      attention_factor: multiplies queries and keys, so its square multiplies the logits; None
        computes it.
      mscale: m, with mscale_all_dim: the factor is (0.1 m ln s + 1) / (0.1 m' ln s + 1).
      mscale_all_dim: m' above. One of the two alone is ignored, as in transformers; in latent
        attention, where DeepSeek's code uses each, it is an error.
      slice_factor: multiplies only the rotated channels of queries and keys; None: 1, or in latent
        attention the ratio above.
      **parts: as in NTKByParts.
    """
    super().__init__(dims, **parts)
    if attention_factor is not None and not 0 < attention_factor < math.inf:
      raise ValueError(f'position.attention_factor is {attention_factor:g}; it must be positive.')
    if slice_factor is not None and not 0 < slice_factor < math.inf:
      raise ValueError(f'position.slice_factor is {slice_factor:g}; it must be positive.')
    for name, weight in (('mscale', mscale), ('mscale_all_dim', mscale_all_dim)):
      if weight is not None and not 0 <= weight < math.inf:
        raise ValueError(f'position.{name} is {weight:g}; it must be at least 0.')
    if dims.sliced and attention_factor is None and bool(mscale) != bool(mscale_all_dim):
      raise ValueError(
        f'position.mscale is {mscale} and position.mscale_all_dim {mscale_all_dim}; in latent '
        'attention give both, or position.attention_factor and position.slice_factor.'
      )
    self.mscale, self.mscale_all_dim = mscale, mscale_all_dim
    self.attention_factor = attention_factor
    self.slice_factor = base_lib.resolved('slice_factor', slice_factor)
    self.sliced = dims.sliced
    if dims.sliced and attention_factor is None and self.depends_on_length and self.ratio(2.0) != 1:
      raise ValueError(
        f'position.mscale is {mscale:g} and position.mscale_all_dim {mscale_all_dim:g}; in latent '
        'attention they must be equal where the factor follows the length.'
      )

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base_lib.Dims) -> dict[str, Any]:
    """Fills in slice_factor."""
    given, computed = super().resolve(given, dims), 1.0
    if dims.sliced and given['attention_factor'] is None and given['slice_factor'] is None:
      computed = float(ratio(given['factor'], given['mscale'], given['mscale_all_dim']))
    return base_lib.fill(given, slice_factor=computed)

  def ratio(self, factor):
    """`ratio` for the weights of this scheme."""
    return ratio(factor, self.mscale, self.mscale_all_dim)

  def temperature(self, factor):
    """The multiplier of queries and keys, for a factor that is a number or an array."""
    if self.attention_factor is not None:
      return self.attention_factor
    if self.mscale and self.mscale_all_dim:
      return mscale(factor, self.mscale_all_dim) if self.sliced else self.ratio(factor)
    return mscale(factor)

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """The square of the multiplier of queries and keys."""
    return float(self.temperature(self.factor)) ** 2

  def notes(self, length: int) -> list[str]:
    """Adds which arguments are ignored."""
    notes = super().notes(length)
    given = [n for n in ('mscale', 'mscale_all_dim') if getattr(self, n)]
    if given and self.attention_factor is not None:
      notes.append(f'attention_factor is given, so {" and ".join(given)} changes nothing.')
    elif len(given) == 1:
      notes.append(f'{given[0]} alone is ignored, as in transformers: the other is not given.')
    return notes


class DynamicYaRN(YaRN):
  """YaRN whose factor follows the length: RoPE itself up to L tokens, then s = l / L.

  The temperature follows as well. `factor` is the smallest s, for a model that was fine-tuned at
  it. The cache is recomputed as the document grows.

  Paper and code: as in YaRN. Only the authors' code has it; transformers stretches every length
  alike.
  """

  label = 'Dynamic YaRN'
  paper = 'arXiv:2309.00071, sec. 3.3'
  formula = 'YaRN with s = max(1, l/L) at length l'
  depends_on_length = True
  default_factor: ClassVar[float | None] = 1.0

  def factors(self, length):
    """S for each length, float64: a number, or [B or 1, L or 1, 1]."""
    stretch = interpolation.stretch_at(length, self.train_length)
    return fixed_point.numpy_of(stretch).maximum(stretch, self.factor)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """Radians per token for each length, float64 [rotated/2] or [B or 1, L or 1, rotated/2]."""
    return self.mixed(self.factors(length))

  def logit_scale(self, q_pos: jax.Array, length):
    """The square of the multiplier of queries and keys: a number, or float32 [B or 1, L or 1]."""
    with fixed_point.float64():
      squared = self.temperature(self.factors(length)) ** 2
      return squared[..., 0].astype(jnp.float32) if np.ndim(squared) else float(squared)

  def regime(self, length):
    """Constant up to the first length that is stretched further."""
    return fixed_point.numpy_of(length).maximum(length, math.floor(self.factor * self.train_length))
