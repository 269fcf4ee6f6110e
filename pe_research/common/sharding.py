"""The mesh, rules from a parameter's path to its layout, and placing arrays.

The only file that names mesh axes:
  data: splits the batch, with a copy of the model on each part;
  fsdp: splits the batch as well, and every large parameter, which is gathered when used;
  tensor: splits heads and hidden widths;
  context: splits the tokens of a sequence, in evaluation.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'fsdp', 'context', 'tensor')
CONTEXT = 'context'
BATCH = P(('data', 'fsdp'))
TOKENS = P(('data', 'fsdp'), CONTEXT)
HEADS = P(('data', 'fsdp'), 'tensor')

# First match wins. Kernels are [inputs, outputs]; tables are [V, D].
RULES = (
  (r'attention/(query|position_query|key|value)/kernel', P('fsdp', 'tensor')),
  (r'attention/(query_down|latent|position_key)/kernel', P('fsdp')),
  (r'attention/out/kernel', P('tensor', 'fsdp')),
  (r'mlp/(up|gate)/kernel', P('fsdp', 'tensor')),
  (r'mlp/down/kernel', P('tensor', 'fsdp')),
  # Tables are split by rows, never along D, which is whole in the activations.
  (r'(^|/)(embedding|output)$', P(('fsdp', 'tensor'))),
  (r'', P()),  # norms, positional parameters, counters
)


def mesh(sizes: Mapping[str, int]) -> Mesh:
  """A mesh over all devices; one axis may be -1, for all remaining devices.

  Raises:
    ValueError: the product of the axes is not the number of devices.
  """
  sizes, devices = {axis: sizes.get(axis, 1) for axis in AXES}, jax.device_count()
  given = int(np.prod([n for n in sizes.values() if n != -1]))
  free = [axis for axis, n in sizes.items() if n == -1]
  if len(free) > 1 or devices % given or (not free and given != devices):
    raise ValueError(
      f'run.mesh {sizes} does not fit {devices} devices; the product of its axes must be that '
      'number, and at most one of them may be -1.'
    )
  shape = tuple(devices // given if n == -1 else n for n in sizes.values())
  return jax.make_mesh(shape, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def one_device() -> Mesh:
  """A mesh over the first device of this process."""
  shape, kinds = (1,) * len(AXES), (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.make_mesh(shape, AXES, axis_types=kinds, devices=jax.local_devices()[:1])


def _path(path) -> str:
  return '/'.join(str(getattr(p, 'key', getattr(p, 'name', getattr(p, 'idx', p)))) for p in path)


def layout(tree: Any, mesh: Mesh) -> Any:
  """A NamedSharding for each array (or shape) of a tree, by the first rule that its path matches.

  Raises:
    ValueError: a dimension is not divisible by the axes that split it.
  """

  def place(path, leaf):
    name = _path(path)
    spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
    for dimension, axes in zip(leaf.shape, spec, strict=False):
      axes = (axes,) if isinstance(axes, str) else axes or ()
      devices = math.prod(mesh.shape[axis] for axis in axes)
      if dimension % devices:
        raise ValueError(
          f'{name} {leaf.shape} cannot be split over {devices} devices ({" x ".join(axes)}): '
          f'{dimension} is not a multiple of {devices}. Change run.mesh or the size.'
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """The same array on every device."""
  return NamedSharding(mesh, P())


def split_batch(mesh: Mesh, batch: int, parts: int = 1) -> NamedSharding:
  """The layout of [batch, ...] arrays.

  Raises:
    ValueError: a part of the batch is not divisible by the devices that split it.
  """
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  if batch % (devices * parts):
    raise ValueError(
      f'optimizer.batch {batch} in {parts} part(s) does not split over {devices} devices; '
      f'choose a multiple of {devices * parts}.'
    )
  return NamedSharding(mesh, BATCH)


def over_tokens(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """x [B, L, ...] with its tokens split over the axis `context`, if that is in use."""
  if mesh is None or mesh.shape[CONTEXT] == 1:
    return x
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, TOKENS))


def over_heads(run: Callable[..., jax.Array], mesh: Mesh | None) -> Callable[..., jax.Array]:
  """`run` on the rows and heads of each device, for a kernel that the compiler cannot split.

  Args:
    run: takes trees of arrays of heads [G, ...], of rows and heads [B, G, ...], and of rows
      [B, ...], and returns [B, G, ...].
    mesh: the devices; None or one device returns `run` itself.

  Raises:
    ValueError: in a call of the result, if the heads do not split evenly.
  """
  if mesh is None or mesh.size == 1:
    return run
  specs = P('tensor'), HEADS, BATCH
  # Unchecked: a kernel does not say over which axes its outputs differ.
  split = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=HEADS, check_vma=False)

  def checked(of_heads, by_head, by_row):
    heads, devices = jax.tree.leaves(by_head)[0].shape[1], mesh.shape['tensor']
    if heads % devices:
      raise ValueError(
        f'{heads} key heads do not split over run.mesh.tensor={devices}; lower that, or choose '
        "another attention.implementation than 'pallas'."
      )
    return split(of_heads, by_head, by_row)

  return checked


def place(arrays: Any, sharding: NamedSharding) -> Any:
  """Global arrays from NumPy arrays that every process has whole."""

  def make(x):
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(make, arrays)
