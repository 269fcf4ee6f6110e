"""RoPE stretched to longer contexts: position interpolation, NTK-aware, dynamic, base change."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from pe_research.common import checks
from pe_research.positions import base as base_lib
from pe_research.positions import facts, fixed_point, rotary

LONGEST = 2**31 - 1  # positions are int32


class Stretched(rotary.RoPE):
  """RoPE of a model trained at L tokens, changed for use at up to s L tokens.

  The factor s or the target length s L must be given: no published value fits every length.
  """

  trains_as = 'rope'
  default_factor: ClassVar[float | None] = None  # None: the factor has to be given
  within_target: ClassVar[bool] = True  # a config's length must not exceed the target length

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    factor: float | None = None,
    target_length: int | None = None,
    train_length: int | None = None,
    **rope,
  ):
    """Takes the factor and the lengths.

    Args:
      dims: sizes of the model.
      factor: s, target length over training length; None computes it.
      target_length: tokens, s L; None computes it.
      train_length: tokens, L, at which the weights were trained with plain RoPE; None means the
        training length of the config, which fine-tuning changes.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.train_length = base_lib.resolved('train_length', train_length)
    self.factor = float(base_lib.resolved('factor', factor))
    self.target_length = base_lib.resolved('target_length', target_length)
    if dims.length > target_length and self.within_target and self.default_factor is None:
      raise ValueError(
        f'length is {dims.length} tokens, and {self.label!r} stretches {self.train_length} by '
        f'{factor:g} to {target_length}. Raise position.factor or lower length.'
      )

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base_lib.Dims) -> dict[str, Any]:
    """Fills in factor, target_length and train_length."""
    given = super().resolve(given, dims)
    trained, factor, target = (given[k] for k in ('train_length', 'factor', 'target_length'))
    trained = dims.length if trained is None else trained
    checks.at_least('position.train_length', trained, 1, 'tokens')
    if factor is None and target is None:
      factor = cls.default_factor
    if factor is None and target is None:
      raise ValueError(
        f'{cls.label!r} needs position.factor (4 is for four times the {trained} tokens of '
        'training) or position.target_length; give one of them.'
      )
    factor = target / trained if factor is None else factor
    if not 1 <= factor < math.inf:
      raise ValueError(
        f'the factor of {cls.label!r} is {factor:g} (position.factor, or position.target_length '
        f'over the {trained} tokens of training); it must be at least 1.'
      )
    if factor * trained > LONGEST:
      raise ValueError(
        f'position.factor {factor:g} times {trained} tokens of training is {factor * trained:g}; '
        f'positions go up to {LONGEST}.'
      )
    reach = round(factor * trained)
    target = reach if target is None else target
    if abs(factor * trained - target) >= 1:
      raise ValueError(
        f'position.factor {factor:g} times {trained} tokens of training is {reach}, and '
        f'position.target_length is {target}; give one of them.'
      )
    return given | {'train_length': trained, 'factor': float(factor), 'target_length': target}

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """Adds the target length, and the length of fine-tuning if it differs from training."""
    tuned = {'fine-tuning': length} if length != self.train_length else {}
    target = {'target': self.target_length} if self.target_length > self.train_length else {}
    return {'training': self.train_length, **tuned, **target, 'longest': longest}

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the factor."""
    return super().card(length, longest).more(facts.Fact('factor', self.factor, '×'))


class PI(Stretched):
  """Position interpolation: positions, hence all frequencies, divided by s.

  Paper and code: no known difference.
  """

  label = 'PI'
  paper = 'arXiv:2306.15595, eq. 4'
  formula = 'θᵢ / s'

  def frequencies(self, length) -> np.ndarray:
    """Theta / s, float64 [rotated/2] radians per token."""
    return super().frequencies(length) / self.factor


def widened(base: float, scale, rotated: int):
  """The base that leaves the fastest frequency as it is and divides the slowest by `scale`."""
  return base * scale ** (rotated / (rotated - 2))


class NTK(Stretched):
  """NTK-aware: the base times s^(R / (R - 2)).

  The pairs between the fastest and the slowest are stretched by less than s. Those of them that
  make no full turn in training reach untrained angles before s L tokens.

  Paper and code: no known difference.
  """

  label = 'NTK-aware'
  paper = 'arXiv:2309.00071, def. 1, eqs. 14–16'
  formula = 'θᵢ = (base s^(R/(R − 2)))^(−2i/R)'

  def __init__(self, dims: base_lib.Dims, **stretched):
    """Checks that at least two pairs rotate; arguments as in Stretched."""
    super().__init__(dims, **stretched)
    check_pairs(self)

  def frequencies(self, length) -> np.ndarray:
    """[rotated/2] radians per token, float64."""
    return self.spectrum(widened(self.base, self.factor, self.rotated))


class DynamicNTK(rotary.RoPE):
  """NTK-aware with a factor that follows the length: RoPE itself up to L tokens.

  At l > L the base is multiplied by (f l / L - (f - 1))^(R / (R - 2)). All tokens of a document
  have the factor of its whole length, cached ones too: the cache is recomputed as the document
  grows.

  Paper and code: at f = 1 this is the paper's s = l / L (sec. 3.3); code (the authors' and
  transformers') has f, so that at f = 2 a context of 2 L is stretched by 3. In generation
  transformers keeps keys that were rotated for a shorter text.
  """

  label = 'Dynamic NTK'
  paper = 'arXiv:2309.00071, sec. 3.3'
  formula = 'θᵢ = (base s^(R/(R − 2)))^(−2i/R),  s = max(1, f l/L − (f − 1)) at length l'
  trains_as = 'rope'
  depends_on_length = True

  def __init__(
    self, dims: base_lib.Dims, *, factor: float = 1.0, train_length: int | None = None, **rope
  ):
    """Chooses the length at which stretching begins.

    Args:
      dims: sizes of the model.
      factor: f above; 1 is the paper's rule; named factor or ntk in code.
      train_length: tokens, L; None means the training length of the config.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    check_pairs(self)
    self.train_length = base_lib.resolved('train_length', train_length)
    checks.at_least('position.train_length', self.train_length, 1, 'tokens')
    if not 1 <= factor < math.inf:
      raise ValueError(f'position.factor is {factor:g}; it must be at least 1.')
    self.factor = factor

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base_lib.Dims) -> dict[str, Any]:
    """Fills in train_length."""
    return base_lib.fill(super().resolve(given, dims), train_length=dims.length)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """Radians per token for each length, float64 [rotated/2] or [B or 1, L or 1, rotated/2]."""
    stretch = self.factor * stretch_at(length, self.train_length) - (self.factor - 1)
    return self.spectrum(widened(self.base, stretch, self.rotated))

  def regime(self, length):
    """Constant up to L."""
    return fixed_point.numpy_of(length).maximum(length, self.train_length)

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """With the training length of the weights, which may differ from the config's."""
    return super().marks(self.train_length, longest)


class ABF(rotary.RoPE):
  """Adjusted base frequency: RoPE with a larger base than that of training.

  The paper raises it from 10,000 to 500,000, to extend LLaMA-2 from 4,096 tokens to 32,768.

  Paper and code: no known difference.
  """

  label = 'ABF'
  paper = 'arXiv:2309.16039, sec. 2.1'
  formula = 'θᵢ = B^(−2i/R),  B the new base'
  trains_as = 'rope'

  def __init__(self, dims: base_lib.Dims, *, new_base: float | None = 500_000.0, **rope):
    """Chooses the base after training.

    Args:
      dims: sizes of the model.
      new_base: replaces `base`, the base of training; None means 50 times that, the paper's ratio.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    if not 1 < base_lib.resolved('new_base', new_base) < math.inf:
      raise ValueError(f'position.new_base is {new_base:g}; it must be above 1.')
    self.new_base = new_base

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base_lib.Dims) -> dict[str, Any]:
    """Fills in new_base."""
    given = super().resolve(given, dims)
    return base_lib.fill(given, new_base=50 * given['base'])

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """The matched base, and the new base at the paper's ratio to it."""
    return super().matched(length) | {'new_base': None}

  @classmethod
  def trained_arguments(cls, position: Mapping[str, Any]) -> dict[str, Any]:
    """Weights trained with ABF are those of RoPE with the larger base."""
    return dict(position) | {'base': position['new_base']}

  def frequencies(self, length) -> np.ndarray:
    """[rotated/2] radians per token, float64."""
    return self.spectrum(self.new_base)


def stretch_at(length, train_length: int):
  """max(length / L, 1) in float64: a number, or [B or 1, L or 1, 1] if `length` is traced."""
  xp = fixed_point.numpy_of(length)
  stretch = xp.maximum(xp.asarray(length, xp.float64) / train_length, 1.0)
  return stretch[..., None] if xp.ndim(stretch) else float(stretch)


def check_pairs(scheme: rotary.RoPE) -> None:
  """Raises ValueError unless at least two pairs rotate."""
  if scheme.rotated < 4:
    raise ValueError(
      f'{scheme.label!r} needs two pairs of channels; {scheme.rotated} channels rotate. Use a '
      'larger model.head_dim or position.fraction.'
    )
