"""Settings of attention that are fixed when a program is compiled."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from pe_research.common import checks
from pe_research.positions.base import PositionScheme

IMPLEMENTATIONS = ('dense', 'tiled', 'pallas', 'interpreted')


@dataclasses.dataclass(frozen=True)
class Spec:
  """Settings of attention that are fixed when a program is compiled.

  Attributes:
    implementation: 'dense' holds all logits at once; 'tiled' one tile, memory linear in length;
      'pallas' is a kernel for TPUs and GPUs; 'interpreted' runs that in XLA, for tests.
    window: tokens that a query sees, itself included; None for all.
    tile: tokens on a side of a tile.
    absorbed: whether MLA decodes on its latents; False expands them at every token.
    scale: multiplies the scheme's `logit_scale`; 1 except to measure temperatures.
    mesh: devices over which the Pallas kernel or a sequence is split; XLA splits the rest.
    watch: called with each layer's attention weights [B, H, Lq, Lk]; dense only, not under jit.
  """

  implementation: str = 'dense'
  window: int | None = None
  tile: int = 512
  absorbed: bool = True
  scale: float = 1.0
  mesh: Mesh | None = None
  watch: Callable[[jax.Array], None] | None = None

  def __post_init__(self):
    checks.choose('attention implementation', self.implementation, IMPLEMENTATIONS)
    if self.window is not None:
      checks.at_least('attention window', self.window, 1, 'tokens')
    checks.at_least('attention tile', self.tile, 1, 'tokens')
    if self.watch is not None and self.implementation != 'dense':
      raise ValueError(
        f'attention implementation {self.implementation!r} holds no weights to watch; choose '
        "'dense', or leave out watch."
      )


def narrowed(spec: Spec, scheme: PositionScheme) -> Spec:
  """The spec with the smaller of its window and the scheme's (`sees`)."""
  return dataclasses.replace(spec, window=narrowest(spec.window, scheme.sees))


def narrowest(*windows: int | None) -> int | None:
  """The smallest of these windows, in tokens; None if all are None."""
  return min((window for window in windows if window is not None), default=None)


def last_seen(pos: jax.Array, spec: Spec, scheme: PositionScheme) -> jax.Array:
  """Number of visible keys minus one, of queries at `pos`: `pos`, or window - 1 if smaller."""
  window = narrowed(spec, scheme).window
  return pos if window is None else jnp.minimum(pos, window - 1)
