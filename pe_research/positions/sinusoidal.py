"""Sinusoidal absolute positions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.common import checks
from pe_research.positions import base, facts, fixed_point, rotary_card

LAYOUTS = ('paper', 'tensor2tensor', 'concatenated')


class Sinusoidal(base.PositionScheme):
  """Sines and cosines of geometrically spaced frequencies, added to the embedding.

  Paper and code: sines and cosines alternate in the paper; code has all sines before all cosines,
  some with other frequencies, under the same name. `layout` is one of
    paper: PE(m, 2i) = sin(m base^(-2i/D)), PE(m, 2i+1) = cos(same).
    tensor2tensor: all sines, then all cosines, frequencies base^(-i / (D/2 - 1)); also fairseq.
    concatenated: all sines, then all cosines, with the paper's frequencies.
  """

  label = 'Sinusoidal'
  paper = 'arXiv:1706.03762, sec. 3.5'
  formula = 'x_m + p_m,  p_m[2i] = sin(m θᵢ),  p_m[2i+1] = cos(m θᵢ),  θᵢ = base^(−2i/D)'
  relative = False
  max_length = fixed_point.MAX_POSITION

  def __init__(
    self,
    dims: base.Dims,
    *,
    layout: str = 'paper',
    base: float = 10_000.0,
    scale: float = 1.0,
    rngs: nnx.Rngs | None = None,
  ):
    """Chooses the frequencies.

    Args:
      dims: sizes of the model.
      layout: 'paper', 'tensor2tensor' or 'concatenated'.
      base: the slowest wavelength is about 2 pi base tokens.
      scale: amplitude; token embeddings have unit variance.
      rngs: unused.
    """
    checks.choose('position.layout', layout, LAYOUTS)
    if dims.width < 4:
      raise ValueError(f'sinusoidal positions need a width of at least 4; got {dims.width}.')
    self.width, self.layout, self.base, self.scale = dims.width, layout, base, scale

  def frequencies(self) -> np.ndarray:
    """Radians per token, float64: floor(D/2), or one more for a last sine where D is odd."""
    if self.layout == 'tensor2tensor':
      return self.base ** (-np.arange(self.width // 2) / (self.width // 2 - 1))
    return self.base ** (-2 * np.arange((self.width + 1) // 2) / self.width)

  def table(self, pos: jax.Array) -> jax.Array:
    """[..., L] int32 -> float32 [..., L, D]; 'tensor2tensor' ends in a 0 where D is odd."""
    angle = fixed_point.angles(pos, fixed_point.fixed_point(self.frequencies()))
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    if self.layout == 'paper':
      table = jnp.stack([sin, cos], axis=-1).reshape(*pos.shape, -1)[..., : self.width]
    else:
      table = jnp.concatenate([sin, cos[..., : self.width // 2]], axis=-1)
      table = jnp.pad(table, [(0, 0)] * pos.ndim + [(0, self.width - table.shape[-1])])
    return self.scale * table

  def embed(self, x: jax.Array, pos: jax.Array) -> jax.Array:
    """x + PE(pos). x [B, L, D], pos [B or 1, L]."""
    return x + self.table(pos).astype(x.dtype)

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the pairs of a sine and a cosine."""
    card, trained = super().card(length, longest), self.frequencies()
    used = dict.fromkeys(card.marks, trained)
    reach = card.marks['training'], None
    return rotary_card.describe(card, 'sine and cosine pair', trained, used, reach, by_length=False)
