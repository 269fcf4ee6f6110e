"""Angles that stay right far out: position times frequency in fixed point."""

import jax
import jax.numpy as jnp
import numpy as np

TURN = 2 * np.pi
MAX_POSITION = 2**24  # tokens; from there on the low limb overflows


def fixed_point(frequencies: np.ndarray | jax.Array) -> tuple[jax.Array, jax.Array]:
  """Radians per token -> turns per token modulo 1, as two limbs of 32 and 8 bits (uint32).

  NumPy float64 is rounded to 2^-40 turns. A traced float32 array keeps its own 24 bits.
  """
  if isinstance(frequencies, jax.Array):
    turns = frequencies.astype(jnp.float32) / TURN
    return (jnp.mod(turns, 1.0) * 2.0**32).astype(jnp.uint32), jnp.zeros_like(turns, jnp.uint32)
  turns = np.mod(np.asarray(frequencies, np.float64) / TURN, 1.0)
  whole = np.rint(turns * 2.0**40).astype(np.uint64) % 2**40
  return jnp.asarray(whole >> 8, jnp.uint32), jnp.asarray(whole & 255, jnp.uint32)


def angles(pos: jax.Array, frequencies: np.ndarray | jax.Array) -> jax.Array:
  """Rotation angles pos * frequency, reduced to [-pi, pi).

  The float32 product is off by 0.1 rad at position 2,000,000, since neither factor has bits to
  spare. Here the product is a uint32 that wraps at one turn, so reducing it is exact; for float64
  frequencies the error stays below 1e-4 rad up to position 2^24.

  Args:
    pos: int [..., L], tokens, 0 <= pos < 2^24.
    frequencies: [F] radians per token.

  Returns:
    float32 [..., L, F] radians.
  """
  if not jnp.issubdtype(pos.dtype, jnp.integer):
    raise ValueError(f'positions are {pos.dtype}; rotary angles need integer positions.')
  high, low = fixed_point(frequencies)
  shape = (1,) * pos.ndim + high.shape
  high, low = high.reshape(shape), low.reshape(shape)
  count = pos.astype(jnp.uint32)[..., None]
  turns = count * high + ((count * low) >> 8)
  return jax.lax.bitcast_convert_type(turns, jnp.int32).astype(jnp.float32) * (TURN / 2.0**32)
