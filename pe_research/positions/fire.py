"""FIRE: a learned function of the distance divided by the query's position, on a log scale."""

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.positions import base

EPS = 1e-6  # keeps the share of the first query finite


class FIRE(base.PositionScheme):
  """Adds f(psi(q_pos - k_pos) / psi(max(q_pos, threshold))), psi(x) = ln(|c| x + 1).

  f is an MLP with one hidden layer from this ratio, a share in [0, 1], to a bias for each head. c
  and the threshold are learned too. The ratio depends on the query's position, so the bias is not a
  function of the distance alone. Every layer has its own parameters (the paper's FIRE-S shares).

  Paper and code: no known difference.
  """

  label = 'FIRE'
  paper = 'arXiv:2310.04418'
  formula = 'ℓ + f_h(ψ(m − n) / ψ(max(m, L))),  ψ(x) = ln(c x + 1)'
  relative = False
  per_layer = True

  def __init__(
    self,
    dims: base.Dims,
    *,
    hidden: int = 32,
    c: float = 0.1,
    threshold: float = 512.0,
    rngs: nnx.Rngs | None = None,
  ):
    """Draws the MLP, uniform within 1 / sqrt(inputs) of 0.

    Args:
      dims: sizes of the model.
      hidden: width of the MLP.
      c: its initial value; a larger one separates near distances better.
      threshold: tokens, its initial value; queries before it have the same denominator.
      rngs: source of the initial values.
    """
    if hidden < 1 or c <= 0 or threshold <= 0:
      raise ValueError(
        f'position.hidden is {hidden}, position.c {c} and position.threshold {threshold}; all of '
        'them must be positive.'
      )
    self.threshold = threshold

    def draw(shape, inputs):
      limit = inputs**-0.5
      return nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit))

    self.inner, self.inner_bias = draw((hidden,), 1), draw((hidden,), 1)
    self.outer, self.outer_bias = draw((hidden, dims.heads), hidden), draw((dims.heads,), hidden)
    self.rate = nnx.Param(jnp.asarray(c, jnp.float32))  # c
    self.multiplier = nnx.Param(jnp.asarray(1.0, jnp.float32))  # of the threshold

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """float32 [B or 1, H, Lq, Lk]; keys ahead have the bias of their distance."""

    def psi(x):
      return jnp.log(jnp.abs(self.rate[...]) * x + 1)

    def wide(parameter):
      return parameter[...][None, None, None]

    queries, keys = q_pos.astype(jnp.float32), k_pos.astype(jnp.float32)
    distance = jnp.abs(queries[:, :, None] - keys[:, None, :])
    threshold = jnp.abs(self.multiplier[...] * self.threshold)
    share = psi(distance) / (psi(jnp.maximum(queries, threshold)) + EPS)[:, :, None]
    hidden = jax.nn.relu(share[..., None] * wide(self.inner) + wide(self.inner_bias))
    return jnp.moveaxis(hidden @ self.outer[...] + wide(self.outer_bias), -1, 1)

  @classmethod
  def matched(cls, length: int) -> dict[str, float]:
    """A threshold at the training length."""
    return {'threshold': float(length)}
