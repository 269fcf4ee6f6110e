"""Randomness by name, so that one component's draws never depend on another's."""

import zlib

import jax
from flax import nnx


def key(seed_key: jax.Array, name: str) -> jax.Array:
  """The key of the component `name`; other components do not change it."""
  return jax.random.fold_in(seed_key, zlib.crc32(name.encode()))


def rngs(seed_key: jax.Array, name: str) -> nnx.Rngs:
  """An NNX stream that starts at the component's own key.

  A stream shared by the whole model counts its draws: a scheme with parameters would then change
  the initial values of every later layer, and the comparison would not be controlled.
  """
  return nnx.Rngs(params=key(seed_key, name))
