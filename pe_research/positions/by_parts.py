"""Interpolation by parts, which leaves fast pairs as they are: NTK-by-parts, Llama 3."""

import math
from typing import Any, ClassVar

import jax
import numpy as np

from pe_research.common import checks
from pe_research.positions import base as base_lib
from pe_research.positions import facts, fixed_point, interpolation, rotary

RAMPS = ('pairs', 'unrounded', 'rotations')


def by_rotations(rotations: np.ndarray, slow: float, fast: float) -> np.ndarray:
  """Gamma of each pair, [R/2]: 0 below `slow` turns in training, 1 above `fast`, linear between.

  Source: arXiv:2309.00071, eq. 18.
  """
  return np.clip((rotations - slow) / (fast - slow), 0, 1)


def bounds(
  length: int, base: float, rotated: int, slow: float, fast: float, rounded: bool
) -> tuple[float, float]:
  """Indices of the pairs that turn `fast` and `slow` times within `length`, as code clamps them.

  c(r) = R ln(length / (2 pi r)) / (2 ln base), floor and ceil if `rounded`, at least 0 and at most
  R - 1. With a small base the upper end lies past the last pair, R / 2 - 1, which then is never
  fully interpolated.
  """
  low, high = (
    rotated * math.log(length / (fixed_point.TURN * turns)) / (2 * math.log(base))
    for turns in (fast, slow)
  )
  if rounded:
    low, high = math.floor(low), math.ceil(high)
  return max(low, 0), min(high, rotated - 1)


def by_pairs(pairs: int, low: float, high: float) -> np.ndarray:
  """Gamma of each pair, [pairs]: 1 up to index `low`, 0 from `high` on, linear between."""
  high = high + 0.001 if low == high else high  # code divides by this width
  return 1 - np.clip((np.arange(pairs) - low) / (high - low), 0, 1)


class ByParts(interpolation.Stretched):
  """Frequencies gamma theta + (1 - gamma) theta / s, with a gamma for each pair."""

  def gamma(self) -> np.ndarray:
    """[rotated/2]: 1 for a pair that stays as it is, 0 for one that is interpolated by s."""
    raise NotImplementedError

  def rotations(self) -> np.ndarray:
    """[rotated/2] turns of each pair within the training length."""
    return rotary.RoPE.frequencies(self, None) * self.train_length / fixed_point.TURN

  def mixed(self, factor) -> np.ndarray | jax.Array:
    """Radians per token, float64: [rotated/2] for a number, [..., rotated/2] for [..., 1]."""
    gamma = self.gamma()
    return self.spectrum(self.base) * (gamma + (1 - gamma) / factor)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """[rotated/2] radians per token, float64."""
    return self.mixed(self.factor)

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds gamma."""
    card, gamma = super().card(length, longest), self.gamma()
    of = f'of {gamma.size}'
    return card.more(
      facts.Fact('pairs that stay as they are', int((gamma == 1).sum()), of),
      facts.Fact('pairs interpolated by the whole factor', int((gamma == 0).sum()), of),
      columns=(facts.Column('gamma', '', tuple(gamma.tolist()), drawn=False),),
    )


class NTKByParts(ByParts):
  """Pairs that turn often in training stay, those that hardly turn are interpolated.

  Paper and code: in the paper gamma is linear in the number of rotations (eq. 18). In all code,
  the authors' and that behind the published numbers included, it is linear in the index of the
  pair, between bounds rounded outwards. At L = 4096, base 10,000, R = 128, s = 16 the paper
  interpolates pair 30 by 3.4 and code by 1.6. `ramp` is one of
    pairs: linear in the pair index, bounds rounded (code; transformers' truncate=True).
    unrounded: linear in the pair index, bounds not rounded (transformers' truncate=False).
    rotations: linear in the number of rotations (the paper).
  """

  label = 'NTK-by-parts'
  paper = 'arXiv:2309.00071, eqs. 18 and 20'
  formula = 'γᵢ θᵢ + (1 − γᵢ) θᵢ / s,  γᵢ from 1 at β_fast turns within L to 0 at β_slow'

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    ramp: str = 'pairs',
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    **stretched,
  ):
    """Chooses the ramp.

    Args:
      dims: sizes of the model.
      ramp: 'pairs', 'unrounded' or 'rotations', see the class.
      beta_fast: rotations within the training length above which a pair stays (the paper's beta).
      beta_slow: rotations below which it is interpolated by s (the paper's alpha).
      **stretched: as in Stretched.
    """
    super().__init__(dims, **stretched)
    checks.choose('position.ramp', ramp, RAMPS)
    if not 0 < beta_slow < beta_fast < math.inf:
      raise ValueError(
        f'position.beta_slow is {beta_slow:g} and position.beta_fast {beta_fast:g}, in rotations '
        'within the training length; the first must be positive and below the second, both finite.'
      )
    self.ramp, self.beta_fast, self.beta_slow = ramp, beta_fast, beta_slow

  def bounds(self) -> tuple[float, float]:
    """The ramp's ends as pair indices, see `bounds`."""
    betas = self.beta_slow, self.beta_fast
    return bounds(self.train_length, self.base, self.rotated, *betas, self.ramp == 'pairs')

  def gamma(self) -> np.ndarray:
    """[rotated/2], by the ramp."""
    if self.ramp == 'rotations':
      return by_rotations(self.rotations(), self.beta_slow, self.beta_fast)
    return by_pairs(self.rotated // 2, *self.bounds())

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """The matched base, and the beta_fast that leaves LLaMA-2's share of pairs as they are.

    There 32.7 % of the pairs turn 32 times in 4,096 tokens, at base 10,000.
    """
    if length <= fixed_point.TURN:
      return {}
    beta = (length / fixed_point.TURN) ** 0.535
    return super().matched(length) | {'beta_fast': float(f'{beta:.3g}')}

  def notes(self, length: int) -> list[str]:
    """Adds warnings where no pair turns beta_fast times, or where none is interpolated."""
    notes, most = super().notes(length), float(self.rotations().max())
    if most < self.beta_fast:
      matched, hint = self.matched(self.train_length), ''
      if 'beta_fast' in matched:
        hint = (
          f' beta_fast {matched["beta_fast"]:g} keeps the share of pairs that it has in LLaMA-2, '
          f'at base {matched["base"]:g}.'
        )
      notes.append(
        f'beta_fast is {self.beta_fast:g}, and the fastest pair turns {most:.3g} times within '
        f'{self.train_length} tokens: that end of the ramp lies outside the pairs.{hint}'
      )
    if self.factor > 1 and (self.gamma() == 1).all():
      notes.append(
        f'the ramp {self.ramp!r} leaves every pair as it is, so nothing is stretched: no pair lies '
        f'past the one that turns {self.beta_slow:g} times within {self.train_length} tokens.'
      )
    return notes

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the ends of the ramp."""
    low, high = self.bounds()
    ends = facts.Fact('ramp begins at pair', low), facts.Fact('ramp ends at pair', high)
    return super().card(length, longest).more(*ends)


class Llama3(ByParts):
  """Llama 3.1: by parts, linear in rotations, with other bounds and without temperature.

  As published, factor 8 of 8,192 tokens is used up to 131,072: twice the 65,536 of the factor.

  Paper and code: no known difference. The rule is that of transformers.
  """

  label = 'Llama 3'
  within_target: ClassVar[bool] = False
  paper = 'arXiv:2407.21783, sec. 3.4.2; transformers, rope_type llama3'
  formula = 'γᵢ θᵢ + (1 − γᵢ) θᵢ / s,  γᵢ from 1 at f_high turns within L to 0 at f_low'

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    **stretched,
  ):
    """Chooses the bounds.

    Args:
      dims: sizes of the model.
      low_freq_factor: rotations within the training length below which pairs are interpolated.
      high_freq_factor: rotations above which they stay.
      **stretched: as in Stretched.
    """
    super().__init__(dims, **stretched)
    if not 0 < low_freq_factor < high_freq_factor:
      raise ValueError(
        f'position.low_freq_factor is {low_freq_factor:g} and position.high_freq_factor '
        f'{high_freq_factor:g}; the first must be positive and below the second.'
      )
    self.low_freq_factor, self.high_freq_factor = low_freq_factor, high_freq_factor

  def gamma(self) -> np.ndarray:
    """[rotated/2], linear in rotations."""
    return by_rotations(self.rotations(), self.low_freq_factor, self.high_freq_factor)
