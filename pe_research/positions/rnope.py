"""RNoPE: rotary layers with a window, and between them layers without positions or window."""

from collections.abc import Mapping
from typing import Any

import jax

from pe_research.common import checks
from pe_research.positions import base, rotary


class RNoPE(rotary.RoPE):
  """RoPE in a sliding window; every `period`-th layer is NoPE over the whole context instead.

  The paper has three rotary layers for each one without (period 4) and a window of half the
  training length. Without a window this is the layer pattern of SmolLM3.

  Paper and code: no known difference.
  """

  label = 'RNoPE-SWA'
  paper = 'arXiv:2501.18795, sec. 3'
  formula = 'RoPE where m − n < window; in every period-th layer neither turn nor window'
  per_layer = True

  def __init__(self, dims: base.Dims, *, period: int = 4, window: int | None = None, **rope):
    """Chooses the kind of this layer.

    Args:
      dims: sizes of the model; `layer` decides.
      period: layers from one without positions to the next; 1: all are without.
      window: tokens that a query of a rotary layer sees; None: half of the training length, 0: all.
      **rope: see RoPE.
    """
    super().__init__(dims, **rope)
    checks.at_least('position.period', period, 1, 'layers')
    if base.resolved('window', window) < 0:
      raise ValueError(f'position.window is {window} tokens; it must be at least 0 (0 is all).')
    self.period = period
    self.rotary = (dims.layer + 1) % period != 0
    self.window = window
    self.sees = window if self.rotary and window else None

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Fills in window."""
    return base.fill(super().resolve(given, dims), window=max(1, dims.length // 2))

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Rotates [B, L, H, R] at `pos` [B or 1, L] in a rotary layer."""
    return super().query(q, pos, length) if self.rotary else q
