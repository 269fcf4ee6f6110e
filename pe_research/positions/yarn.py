"""Interpolation by parts, fast pairs staying as they are: NTK-by-parts, YaRN, Llama 3."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pe_research.positions import base as base_lib
from pe_research.positions import extend, facts, phase, rotary

RAMPS = ('pairs', 'unrounded', 'rotations')


def by_rotations(rotations: np.ndarray, slow: float, fast: float) -> np.ndarray:
  """Gamma of each pair, [R/2]: 0 where it turns less than `slow` times in training, 1 past `fast`.

  Linear between (arXiv:2309.00071, eq. 18).
  """
  return np.clip((rotations - slow) / (fast - slow), 0, 1)


def bounds(
  length: int, base: float, rotated: int, slow: float, fast: float, rounded: bool
) -> tuple[float, float]:
  """Indices of the pairs that turn `fast` and `slow` times within `length`, as code clamps them.

  c(r) = R ln(length / (2 pi r)) / (2 ln base), floor and ceil where `rounded`, at least 0 and at
  most R - 1: with a small base the upper end lies past the last pair, R / 2 - 1, which then is
  never fully interpolated.
  """
  pair = lambda turns: rotated * math.log(length / (phase.TURN * turns)) / (2 * math.log(base))
  low, high = pair(fast), pair(slow)
  if rounded:
    low, high = math.floor(low), math.ceil(high)
  return max(low, 0), min(high, rotated - 1)


def by_pairs(pairs: int, low: float, high: float) -> np.ndarray:
  """Gamma of each pair, [pairs]: 1 up to index `low`, 0 from `high` on, linear between."""
  high = high + 0.001 if low == high else high  # code divides by this width
  return 1 - np.clip((np.arange(pairs) - low) / (high - low), 0, 1)


class ByParts(extend.Stretched):
  """Frequencies gamma theta + (1 - gamma) theta / s, with a gamma for each pair."""

  def gamma(self) -> np.ndarray:
    """[rotated/2]: 1 for a pair that stays as it is, 0 for one that is interpolated by s."""
    raise NotImplementedError

  def rotations(self) -> np.ndarray:
    """[rotated/2] turns of each pair within the training length."""
    return rotary.RoPE.frequencies(self, None) * self.train_length / phase.TURN

  def mixed(self, factor) -> np.ndarray | jax.Array:
    """Radians per token, float64, for a factor that is a number or [..., 1]."""
    gamma = self.gamma()
    return self.spectrum(self.base) * (gamma + (1 - gamma) / factor)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """[rotated/2] radians per token, float64."""
    del length
    return self.mixed(self.factor)

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds gamma."""
    gamma = self.gamma()
    of = f'of {gamma.size}'
    return (
      super()
      .card(length, longest)
      .more(
        facts.Fact('pairs that stay as they are', int((gamma == 1).sum()), of),
        facts.Fact('pairs interpolated by the whole factor', int((gamma == 0).sum()), of),
        columns=(facts.Column('gamma', '', tuple(gamma.tolist()), drawn=False),),
      )
    )


class NTKByParts(ByParts):
  """Pairs that turn often in training stay, those that hardly turn are interpolated.

  The paper lets gamma be linear in the number of rotations (eq. 18). All code, the authors' and
  that behind the published numbers included, lets it be linear in the index of the pair, between
  bounds rounded outwards. At L = 4096, base 10,000, R = 128, s = 16 the paper interpolates pair
  30 by 3.4 and code by 1.6. `ramp` names the rule:
    pairs: linear in the pair index, bounds rounded (code; transformers' truncate=True).
    unrounded: linear in the pair index, bounds as they fall (transformers' truncate=False).
    rotations: linear in the number of rotations (the paper).
  """

  label = 'NTK-by-parts'
  paper = 'arXiv:2309.00071, eqs. 18 and 20'

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
    if ramp not in RAMPS:
      raise ValueError(f'position.ramp is {ramp!r}; choose one of {", ".join(RAMPS)}.')
    if not 0 < beta_slow < beta_fast < math.inf:
      raise ValueError(
        f'position.beta_slow is {beta_slow:g} and position.beta_fast {beta_fast:g}, in rotations '
        'within the training length; the first must be positive and below the second, a number.'
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
    """The matched base, and the beta_fast at which that keeps LLaMA-2's share of pairs whole.

    32 turns in 4,096 tokens at base 10,000 are 32.7 % of the pairs.
    """
    if length <= phase.TURN:
      return {}
    beta = (length / phase.TURN) ** 0.535
    return super().matched(length) | {'beta_fast': float(f'{beta:.3g}')}

  def notes(self, length: int) -> list[str]:
    """Adds warnings where no pair turns beta_fast times, or where none is interpolated."""
    said, most = super().notes(length), float(self.rotations().max())
    if most < self.beta_fast:
      fitting = self.matched(self.train_length).get('beta_fast')
      hint = ''
      if fitting:
        hint = f' beta_fast {fitting:g} keeps the share of pairs that it has in LLaMA-2.'
      said.append(
        f'beta_fast is {self.beta_fast:g}, and the fastest pair turns {most:.3g} times within '
        f'{self.train_length} tokens: that end of the ramp lies outside the pairs.{hint}'
      )
    if self.factor > 1 and (self.gamma() == 1).all():
      said.append(
        f'the ramp {self.ramp!r} leaves every pair as it is, so nothing is stretched: no pair lies '
        f'past the one that turns {self.beta_slow:g} times within {self.train_length} tokens.'
      )
    return said

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the ends of the ramp."""
    low, high = self.bounds()
    ends = facts.Fact('ramp begins at pair', low), facts.Fact('ramp ends at pair', high)
    return super().card(length, longest).more(*ends)


class Llama3(ByParts):
  """Llama 3.1: by parts, linear in rotations, between other bounds and without temperature."""

  label = 'Llama 3'
  paper = 'arXiv:2407.21783, sec. 3.4.2; transformers, rope_type llama3'

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


def mscale(factor, weight: float = 1.0):
  """0.1 weight ln(factor) + 1 (eq. 22 for weight 1), by which queries and keys are multiplied."""
  return 0.1 * weight * phase.numpy_of(factor).log(factor) + 1


class YaRN(NTKByParts):
  """NTK-by-parts, and logits sharper by (0.1 ln s + 1)^2.

  The paper multiplies queries and keys by sqrt(1/t) = 0.1 ln s + 1 each (eq. 22), code multiplies
  cos and sin; here the square of it multiplies the logits, so that rotation keeps norms, and so
  that the temperature acts on the whole logit where only a part of the head rotates (in code it
  then acts on that part alone). The three arguments mean what they mean in transformers.
  """

  label = 'YaRN'
  paper = 'arXiv:2309.00071, def. 3'

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    **by_parts,
  ):
    """Chooses the temperature.

    Args:
      dims: sizes of the model.
      attention_factor: multiplies queries and keys, so its square the logits; None computes it.
      mscale: m, with mscale_all_dim: the factor is (0.1 m ln s + 1) / (0.1 m' ln s + 1).
      mscale_all_dim: m' above. One of the two alone is ignored, as in transformers.
      **by_parts: as in NTKByParts.
    """
    super().__init__(dims, **by_parts)
    if attention_factor is not None and not 0 < attention_factor < math.inf:
      raise ValueError(f'position.attention_factor is {attention_factor:g}; it must be positive.')
    for name, weight in (('mscale', mscale), ('mscale_all_dim', mscale_all_dim)):
      if weight is not None and not 0 <= weight < math.inf:
        raise ValueError(f'position.{name} is {weight:g}; it must be at least 0.')
    self.mscale, self.mscale_all_dim = mscale, mscale_all_dim
    self.attention_factor = attention_factor

  def temperature(self, factor):
    """What multiplies queries and keys, for a factor that is a number or an array."""
    if self.attention_factor is not None:
      return self.attention_factor
    if self.mscale and self.mscale_all_dim:
      return mscale(factor, self.mscale) / mscale(factor, self.mscale_all_dim)
    return mscale(factor)

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """The square of what multiplies queries and keys."""
    del q_pos, length
    return float(self.temperature(self.factor)) ** 2

  def notes(self, length: int) -> list[str]:
    """Adds what is ignored."""
    said = super().notes(length)
    given = [n for n in ('mscale', 'mscale_all_dim') if getattr(self, n)]
    if given and self.attention_factor is not None:
      said.append(f'attention_factor is given, so {" and ".join(given)} changes nothing.')
    elif len(given) == 1:
      said.append(f'{given[0]} alone is ignored, as in transformers: the other is not given.')
    return said


class DynamicYaRN(YaRN):
  """YaRN whose factor follows the length: RoPE itself up to L tokens, then s = l / L.

  As in the authors' code; the temperature follows as well. A model that was fine-tuned at some
  factor starts from that one. What a cache holds is computed anew as the document grows.
  """

  label = 'Dynamic YaRN'
  paper = 'arXiv:2309.00071, sec. 3.3'
  depends_on_length = True
  unsaid: ClassVar[float | None] = 1.0

  def factors(self, length):
    """S for each length, float64: a number, or [B or 1, L or 1, 1]."""
    over = extend.over(length, self.train_length)
    return phase.numpy_of(over).maximum(over, self.factor)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """Radians per token by the length, float64 [rotated/2] or [B or 1, L or 1, rotated/2]."""
    return self.mixed(self.factors(length))

  def logit_scale(self, q_pos: jax.Array, length):
    """The square of what multiplies queries and keys: a number, or float32 [B or 1, L or 1]."""
    del q_pos
    with phase.float64():
      squared = self.temperature(self.factors(length)) ** 2
      return squared[..., 0].astype(jnp.float32) if np.ndim(squared) else float(squared)

  def regime(self, length):
    """Constant up to the first length that is stretched further."""
    return phase.numpy_of(length).maximum(length, math.floor(self.factor * self.train_length))
