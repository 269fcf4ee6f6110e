"""xPos: RoPE whose pairs also decay with distance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pe_research.positions import base, rotary

LARGEST = 80.0  # e^80 is near the largest float32 and bfloat16


class XPos(rotary.RoPE):
  """Pair i of q_m . k_n is also multiplied by zeta_i^((m - n) / scale_base).

  zeta_i = (i / (R/2) + gamma) / (1 + gamma), so that slow pairs decay least. Queries are multiplied
  by zeta^(m / scale_base), keys by the inverse at n, which overflows beyond `max_length`. The
  paper's results beyond the training length also need its blockwise attention.

  Paper and code: some code (x-transformers) counts positions from the middle of the text, which
  changes the range of floats and no logit.
  """

  label = 'xPos'
  paper = 'arXiv:2212.10554, alg. 1'
  formula = 'RoPE, pair i of ℓ times ζᵢ^((m − n)/B),  ζᵢ = (2i/R + γ) / (1 + γ)'
  remedy = 'Use a shorter length, or a larger position.scale_base.'

  def __init__(
    self, dims: base.Dims, *, scale_base: float = 512.0, gamma: float = 0.4, **rope: Any
  ):
    """Chooses how fast pairs decay.

    Args:
      dims: sizes of the model.
      scale_base: tokens; 512 was published with a training length of 1,024.
      gamma: a larger one decays less.
      **rope: see RoPE.
    """
    super().__init__(dims, **rope)
    if scale_base <= 0 or gamma <= 0:
      raise ValueError(
        f'position.scale_base is {scale_base} and position.gamma {gamma}; both must be positive.'
      )
    zeta = (np.arange(0, self.rotated, 2) / self.rotated + gamma) / (1 + gamma)
    self.rate = tuple(np.log(zeta) / scale_base)  # nats/token, of each pair
    fastest = max(1e-30, *(-r for r in self.rate))  # 0 where gamma is so large that none decays
    self.max_length = int(min(self.max_length, LARGEST / fastest))

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Rotates [B, L, H, R] at `pos` [B or 1, L], times zeta^(pos / scale_base)."""
    self.check_positions(pos)
    return self._decayed(super().query(q, pos, length), pos)

  def key(self, k: jax.Array, pos: jax.Array, length) -> jax.Array:
    """As queries, times the inverse."""
    self.check_positions(pos)
    return self._decayed(super().query(k, pos, length), -pos)

  def _decayed(self, x, pos):
    rate = jnp.asarray(self.rate, jnp.float32)
    rate = jnp.repeat(rate, 2) if self.layout == 'interleaved' else jnp.tile(rate, 2)
    rate = jnp.pad(rate, (0, x.shape[-1] - self.rotated))
    scale = jnp.exp(pos.astype(jnp.float32)[..., None] * rate[None, None])
    return (x.astype(jnp.float32) * scale[..., None, :]).astype(x.dtype)

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """RoPE's base, and `scale_base` at half of the training length as published."""
    return super().matched(length) | {'scale_base': max(1.0, length / 2)}
