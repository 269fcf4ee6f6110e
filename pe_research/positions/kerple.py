"""KERPLE: kernels of the distance, learned for each head."""

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.common import checks
from pe_research.positions import base

KERNELS = ('log', 'power')
LEAST = 0.01  # of every parameter, as in the authors' code


class Kerple(base.PositionScheme):
  """Adds a bias that falls with distance d = q_pos - k_pos, with two learned numbers per head.

  log:   -r1 ln(1 + r2 d)
  power: -r1 d^r2, with r2 at most 2; ALiBi is r2 = 1 with r1 fixed.

  Paper and code: the paper's r1 and r2 are positive, and the authors' code clamps the parameters
  themselves at 0.01. Here their values are clamped and gradients pass through, so a parameter that
  was pushed below can come back.
  """

  label = 'KERPLE'
  paper = 'arXiv:2205.09921'
  formula = 'log: ℓ − r₁ ln(1 + r₂ (m − n));  power: ℓ − r₁ (m − n)^r₂'

  def __init__(self, dims: base.Dims, *, kernel: str = 'log', rngs: nnx.Rngs | None = None):
    """Draws the parameters, uniform in [0, 1); r1 of 'log' and r2 of 'power' in [0, 2).

    Args:
      dims: sizes of the model.
      kernel: 'log', which the paper finds best, or 'power'.
      rngs: source of the initial values.
    """
    checks.choose('position.kernel', kernel, KERNELS)
    self.kernel = kernel

    def draw(top):
      return nnx.Param(nnx.initializers.uniform(top)(rngs.params(), (dims.heads,)))

    self.r1 = draw(2.0 if kernel == 'log' else 1.0)
    self.r2 = draw(1.0 if kernel == 'log' else 2.0)

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """Minus the kernel: float32 [B or 1, H, Lq, Lk]; keys ahead count as distance 0."""
    distance = jnp.maximum(q_pos[:, None, :, None] - k_pos[:, None, None, :], 0)
    distance = distance.astype(jnp.float32)
    r1 = _clamped(self.r1[...], None)
    if self.kernel == 'log':
      return -r1 * jnp.log1p(_clamped(self.r2[...], None) * distance)
    r2 = _clamped(self.r2[...], 2.0)
    # The power of 0 has no gradient in r2.
    return jnp.where(distance > 0, -r1 * jnp.maximum(distance, 1.0) ** r2, 0.0)


def _clamped(x: jax.Array, most: float | None) -> jax.Array:
  """[H] -> [1, H, 1, 1], at least LEAST and at most `most`; the gradient is that of x."""
  x = x + jax.lax.stop_gradient(jnp.clip(x, LEAST, most) - x)
  return x[None, :, None, None]
