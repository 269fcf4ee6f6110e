"""ALiBi: attention with linear biases."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.positions import base, facts

DROP = 1000  # a window ends where the bias alone divides a weight by this


def slopes(heads: int, max_bias: float = 8.0) -> np.ndarray:
  """Slope of each head, [heads] float64.

  A power of two has 2^(-max_bias h / heads), h = 1 .. heads. Any other number has the slopes of
  the power below it, then every other slope of the power above, as in the authors' code; the result
  is not monotone.
  """
  lower = 2 ** (heads.bit_length() - 1)
  below = 2.0 ** (-max_bias * np.arange(1, lower + 1) / lower)
  between = 2.0 ** (-max_bias * np.arange(1, 2 * lower + 1, 2) / (2 * lower))
  return np.concatenate([below, between])[:heads]


class ALiBi(base.PositionScheme):
  """Adds -slope * (q_pos - k_pos) to each head's logits, after the division by sqrt(d).

  Paper and code: the paper's formula is for a power of two of heads; the slopes of any other number
  are those of the authors' code. Most code adds slope * k_pos, which differs by a constant of the
  row that softmax cancels. That is right only in exact arithmetic and under plain softmax; here the
  bias is of the distance.
  """

  label = 'ALiBi'
  paper = 'arXiv:2108.12409, sec. 3'
  formula = 'ℓ − a_h (m − n),  a_h = 2^(−max_bias (h + 1)/H),  H a power of two'

  def __init__(
    self,
    dims: base.Dims,
    *,
    max_bias: float = 8.0,
    biased_heads: int | None = None,
    rngs: nnx.Rngs | None = None,
  ):
    """Chooses the slopes.

    Args:
      dims: sizes of the model.
      max_bias: the smallest slope of a power-of-two number of heads is 2^-max_bias.
      biased_heads: heads with a bias, the others have no position; None means all.
      rngs: unused.
    """
    self.max_bias = max_bias
    self.biased_heads = base.resolved('biased_heads', biased_heads)
    if not 1 <= self.biased_heads <= dims.heads:
      raise ValueError(
        f'position.biased_heads is {biased_heads}; it must be at least 1, and at most the '
        f'{dims.heads} heads of the model.'
      )
    if max_bias <= 0:
      raise ValueError(f'position.max_bias is {max_bias}; it must be positive.')
    unbiased = (0.0,) * (dims.heads - self.biased_heads)
    self.slopes = tuple(slopes(self.biased_heads, max_bias)) + unbiased

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Fills in biased_heads."""
    return base.fill(super().resolve(given, dims), biased_heads=dims.heads)

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """-slope_h (q_pos - k_pos): [B or 1, Lq], [B or 1, Lk] -> float32 [B or 1, H, Lq, Lk]."""
    distance = (q_pos[:, None, :, None] - k_pos[:, None, None, :]).astype(jnp.float32)
    return -jnp.asarray(self.slopes, jnp.float32)[None, :, None, None] * distance

  def distance_bias(self) -> base.DistanceBias:
    """The negative slopes."""
    slopes = -jnp.asarray(self.slopes, jnp.float32)
    return base.DistanceBias(slopes, jnp.zeros((len(self.slopes), 0)), ())

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds slopes and windows: the distance at which a head's bias is -ln DROP."""
    windows = tuple(math.log(DROP) / slope if slope else math.inf for slope in self.slopes)
    wider = sum(window > length for window in windows)
    added = (
      facts.Fact('heads', len(windows)),
      facts.Fact('heads without a bias', windows.count(math.inf), f'of {len(windows)}'),
      facts.Fact(f'bias where a window ends (-ln {DROP:,})', -math.log(DROP), 'logits'),
      facts.Fact('narrowest window', min(windows), 'tokens'),
      facts.Fact('widest window', max(windows), 'tokens'),
      facts.Fact('windows wider than the training length', wider, f'of {len(windows)}'),
    )
    bias = tuple(-slope * (length - 1) or 0.0 for slope in self.slopes)
    columns = (
      facts.Column('slope', 'logits/token', self.slopes, drawn=False),
      facts.Column('window', 'tokens', windows),
      facts.Column('bias across training', 'logits', bias, drawn=False),
    )
    return super().card(length, longest).more(*added, part='head', columns=columns)
