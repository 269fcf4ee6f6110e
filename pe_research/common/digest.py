"""Digests: of files and rows on the host, and of sharded arrays without gathering them."""

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # slow to import, and not needed for hashes of text
  import jax
  import numpy as np


def of_bytes(*parts: bytes) -> str:
  """sha256 in hex of the parts in order."""
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part)
  return digest.hexdigest()


def of_json(value: Any) -> str:
  """sha256 in hex of a JSON value, independent of the order of its keys."""
  return of_bytes(json.dumps(value, sort_keys=True).encode())


def chain(previous: str, batch: Mapping[str, 'np.ndarray']) -> str:
  """The next link of a hash chain over batches."""
  import numpy as np

  parts = (np.ascontiguousarray(batch[name]).tobytes() for name in sorted(batch))
  return of_bytes(previous.encode(), *parts)


def _checksum(x: 'jax.Array') -> 'jax.Array':
  """uint32 scalar that depends on every bit and its index; integer sums are exact in any order."""
  import jax
  import jax.numpy as jnp

  words = x if x.dtype.itemsize == 4 else x.astype(jnp.float32)  # bfloat16 widens exactly
  words = jax.lax.bitcast_convert_type(words, jnp.uint32)
  index = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
  mixed = words + (index + 1) * jnp.uint32(0x9E3779B9)
  mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
  mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
  return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)


@functools.cache
def _checksums():
  """The compiled checksums of a list of arrays."""
  import jax

  return jax.jit(lambda arrays: [_checksum(x) for x in arrays])


def of_arrays(tree: Any) -> str:
  """A digest of the bits of every array, the same on any number of devices.

  Not cryptographic: it detects damage and differences. It is computed where the arrays are.
  """
  import jax

  leaves = jax.tree_util.tree_leaves_with_path(tree)
  sums = jax.device_get(_checksums()([leaf for _, leaf in leaves]))
  named = {
    jax.tree_util.keystr(path): [list(leaf.shape), str(leaf.dtype), int(total)]
    for (path, leaf), total in zip(leaves, sums, strict=True)
  }
  return of_json(named)
