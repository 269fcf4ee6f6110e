"""Rotary position embedding: queries and keys rotate by an angle proportional to position."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.common import checks
from pe_research.positions import base, facts, fixed_point, rotary_card

LAYOUTS = ('half', 'interleaved')
PARTIAL = ('width', 'frequencies')


def rotate(x: jax.Array, angle: jax.Array, layout: str = 'half') -> jax.Array:
  """Rotates each pair of channels by its angle, in float32; norms are kept.

  Args:
    x: [B, L, H, R].
    angle: [B or 1, L, R/2] radians.
    layout: 'half' pairs channel i with i + R/2 (LLaMA, GPT-NeoX); 'interleaved' pairs 2i with
      2i + 1 (the paper, GPT-J, DeepSeek). The two differ by a fixed permutation of channels.

  Returns:
    [B, L, H, R] in the dtype of x.
  """
  cos, sin = jnp.cos(angle)[..., None, :], jnp.sin(angle)[..., None, :]
  wide = x.astype(jnp.float32)
  if layout == 'half':
    swapped = jnp.roll(wide, x.shape[-1] // 2, axis=-1)
    cos, sin = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
    rotated = wide * cos + swapped * sin
  else:
    a, b = wide[..., 0::2], wide[..., 1::2]
    rotated = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)
  return rotated.astype(x.dtype)


def channels(dims: base.Dims, fraction: float) -> int:
  """A fraction of a head's channels, rounded down; 30/44 of 44 is 30, also in floating point."""
  if not 0 < fraction <= 1:
    raise ValueError(f'position.fraction is {fraction}; it must be in (0, 1].')
  return int(dims.rotary * fraction + 1e-6)


class RoPE(base.PositionScheme):
  """q_m . k_n depends on m - n alone, since both rotate by position times frequency.

  Frequencies are base^(-2i/R), i = 0 .. R/2 - 1. Two different schemes are both called partial
  rotary:
    width: the first `fraction` of the channels rotate as a head of that width (GPT-NeoX, GPT-J).
    frequencies: all channels are paired, the slowest pairs do not rotate (p-RoPE,
      arXiv:2410.06205; 'proportional' in transformers).

  Paper and code: the paper counts i from 1, and pairs channels 2i and 2i + 1, as GPT-J does; LLaMA
  and GPT-NeoX pair i with i + R/2. The two differ by a fixed permutation of channels, so weights
  trained with one do not fit the other; see `layout`.
  """

  label = 'RoPE'
  paper = 'arXiv:2104.09864, eqs. 14–16 and 34'
  formula = 'pair i of q_m turns by m θᵢ, of k_n by n θᵢ,  θᵢ = base^(−2i/R)'
  max_length = fixed_point.MAX_POSITION
  slice_factor: float = 1.0  # multiplies the rotated channels of a head, not the others

  def __init__(
    self,
    dims: base.Dims,
    *,
    base: float = 10_000.0,
    layout: str = 'half',
    fraction: float = 1.0,
    partial: str = 'width',
    rngs: nnx.Rngs | None = None,
  ):
    """Chooses which channels rotate, and how fast.

    Args:
      dims: sizes of the model.
      base: the slowest pair makes one turn in about 2 pi base tokens.
      layout: 'half' or 'interleaved', see `rotate`.
      fraction: share of the head that rotates, in (0, 1].
      partial: 'width' or 'frequencies', what a fraction below 1 leaves out.
      rngs: unused.
    """
    checks.choose('position.layout', layout, LAYOUTS)
    checks.choose('position.partial', partial, PARTIAL)
    if not 1 < base < math.inf:
      raise ValueError(f'position.base is {base}; it must be above 1.')
    share = channels(dims, fraction)
    self.rotated = share if partial == 'width' else dims.rotary
    if self.rotated % 2 or not self.rotated:
      raise ValueError(
        f'the rotated width of a head is {self.rotated} channels; pairs need an even, positive '
        f'number. Change the head width ({dims.rotary}) or position.fraction ({fraction}).'
      )
    self.moving = self.rotated // 2
    if partial == 'frequencies':
      self.moving = share // 2
      if not self.moving:
        raise ValueError(f'position.fraction is {fraction}: no pair of {dims.rotary // 2} rotates.')
    self.base, self.layout = base, layout

  def spectrum(self, base) -> np.ndarray | jax.Array:
    """base^(-2i/R), 0 for a pair that does not rotate: [R/2], or [..., R/2] for base [..., 1]."""
    exponent = -np.arange(0, self.rotated, 2, dtype=np.float64) / self.rotated
    return base**exponent * (np.arange(exponent.size) < self.moving)

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """Radians per token, float64: [rotated/2], or [B or 1, L or 1, rotated/2] for each length."""
    return self.spectrum(self.base)

  def angles(self, pos: jax.Array, length) -> jax.Array:
    """Angles of the pairs at `pos` [B or 1, L]: float32 [B or 1, L, rotated/2] radians."""
    with fixed_point.float64():
      turns = fixed_point.fixed_point(self.frequencies(length))
    return fixed_point.angles(pos, turns)

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Rotates [B, L, H, R] at `pos` [B or 1, L]; channels past the rotated width stay."""
    rotated = rotate(q[..., : self.rotated], self.angles(pos, length), self.layout)
    if self.slice_factor != 1:
      rotated = (rotated.astype(jnp.float32) * self.slice_factor).astype(q.dtype)
    if self.rotated == q.shape[-1]:
      return rotated
    return jnp.concatenate([rotated, q[..., self.rotated :]], axis=-1)

  def key(self, k: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Keys rotate as queries do."""
    return self.query(k, pos, length)

  def trained_distances(self, length: int) -> int:
    """Training at `length` tokens has the distances 0 to one below this."""
    return min(length, self.sees or length)

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """The base at which the same share of pairs makes a turn within `length` as in LLaMA-2.

    That is ln(L / 2 pi) / ln(base) = 0.7035 (L = 4096, base 10,000).
    """
    if length <= 6:
      return {}
    return {'base': float(f'{(length / fixed_point.TURN) ** (1 / 0.7035):.4g}')}

  def notes(self, length: int) -> list[str]:
    """Says how many pairs make a turn within the training length, where that is unusually few."""
    trained = self.trained_distances(length)
    turning = int((self.spectrum(self.base) * trained >= fixed_point.TURN).sum())
    if turning >= self.moving / 2:
      return []
    matched = self.matched(trained).get('base')
    hint = f'; at base {matched:g} 70 % would, as in LLaMA-2' if matched else ''
    return [
      f'{turning} of {self.moving} rotary pairs complete a turn within the '
      f'{"training length" if trained == length else "distances of training,"} {trained} '
      f'(base {self.base:g}){hint}.'
    ]

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the rotary pairs, against the frequencies that the weights were trained with."""
    card = super().card(length, longest)
    varies = self.depends_on_length
    used = {name: self.frequencies(n if varies else None) for name, n in card.marks.items()}
    reach = self.trained_distances(card.marks['training']), self.sees
    return rotary_card.describe(
      card, 'rotary pair', self.spectrum(self.base), used, reach, by_length=varies
    )


class PRoPE(RoPE):
  """RoPE in which only the fastest pairs rotate, at the frequencies that they have in RoPE.

  Paper and code: no known difference in p-RoPE itself. The paper's '0.75-RoPE partial' is another
  scheme, partial='width' here.
  """

  label = 'p-RoPE'
  paper = 'arXiv:2410.06205, sec. 6'
  formula = 'θᵢ = base^(−2i/R) for the first p R/2 pairs, 0 for the others'

  def __init__(
    self, dims: base.Dims, *, fraction: float = 0.75, partial: str = 'frequencies', **rope
  ):
    """Chooses how many pairs rotate.

    Args:
      dims: sizes of the model.
      fraction: share of the pairs that rotate, the paper's p.
      partial: see RoPE; 'width' is the paper's '0.75-RoPE partial'.
      **rope: as in RoPE.
    """
    super().__init__(dims, fraction=fraction, partial=partial, **rope)
