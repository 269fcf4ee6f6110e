"""The parts of a block that know nothing of positions: linear maps, norms, the MLP."""

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research import keys

MLPS = {
  'gelu': lambda up, gate: nnx.gelu(up),
  'squared_relu': lambda up, gate: jnp.square(nnx.relu(up)),
  'swiglu': lambda up, gate: nnx.silu(gate) * up,
}


def linear(
  key: jax.Array, name: str, inputs: int, outputs: int, *, dtype, std: float = 1.0
) -> nnx.Linear:
  """A linear map without bias; initial entries have standard deviation std / sqrt(inputs)."""
  init = nnx.initializers.variance_scaling(std**2, 'fan_in', 'truncated_normal')
  rngs = keys.rngs(key, name)
  return nnx.Linear(inputs, outputs, use_bias=False, dtype=dtype, kernel_init=init, rngs=rngs)


def norm(key: jax.Array, name: str, width: int, *, dtype) -> nnx.RMSNorm:
  """RMSNorm with a learned scale, its mean square taken in float32."""
  return nnx.RMSNorm(width, dtype=dtype, rngs=keys.rngs(key, name))


class MLP(nnx.Module):
  """Two matrices around a nonlinearity, three where it is gated; [B, L, D] -> [B, L, D]."""

  def __init__(self, width: int, hidden: int, kind: str, *, out_std: float, dtype, key: jax.Array):
    """`kind` is a name in MLPS; `out_std` multiplies the initial scale of the last matrix."""
    self.kind = kind
    self.up = linear(key, 'up', width, hidden, dtype=dtype)
    self.gate = linear(key, 'gate', width, hidden, dtype=dtype) if kind == 'swiglu' else None
    self.down = linear(key, 'down', hidden, width, dtype=dtype, std=out_std)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, L, D] -> [B, L, D]."""
    gate = None if self.gate is None else self.gate(x)
    return self.down(MLPS[self.kind](self.up(x), gate))
