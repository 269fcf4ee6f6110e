"""RNoPE: rotary layers that see a window, and among them layers without positions that see all."""

from collections.abc import Mapping
from typing import Any

import jax

from pe_research.common import checks
from pe_research.positions import base, rotary


class RNoPE(rotary.RoPE):
  """RoPE within a sliding window, but for every `period`-th layer: NoPE over the whole context.

  The paper has three rotary layers for one without (period 4) and a window of half the length that
  it trains at. Without a window this is the layer pattern of SmolLM3.

  Paper and code: none known.
  """

  label = 'RNoPE-SWA'
  paper = 'arXiv:2501.18795, sec. 3'
  formula = 'RoPE where m − n < window; in every period-th layer neither turn nor window'
  per_layer = True

  def __init__(self, dims: base.Dims, *, period: int = 4, window: int | None = None, **rope):
    """Chooses what this layer does.

    Args:
      dims: sizes of the model; `layer` decides.
      period: layers from one without positions to the next; 1 leaves no other.
      window: tokens that a query of a rotary layer sees; None: half of the training length, 0: all.
      **rope: see RoPE.
    """
    super().__init__(dims, **rope)
    checks.at_least('position.period', period, 1, 'layers')
    if base.filled('window', window) < 0:
      raise ValueError(f'position.window is {window} tokens; it must be 0, for all, or more.')
    self.period = period
    self.turns = (dims.layer + 1) % period != 0
    self.window = window
    self.sees = window if self.turns and window else None

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Settles window."""
    given = super().resolve(given, dims)
    return given | ({'window': max(1, dims.length // 2)} if given['window'] is None else {})

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Rotates [B, L, H, R] at `pos` [B or 1, L] in a rotary layer."""
    return super().query(q, pos, length) if self.turns else q
