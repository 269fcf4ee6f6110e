"""Whether weights and training fit into memory, before anything long begins."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

CGROUP = pathlib.Path('/sys/fs/cgroup')


def available() -> int | None:
  """Bytes of host memory that this process may still take; None if the system does not say."""
  found = []
  try:
    lines = dict(
      line.split(':')
      for line in pathlib.Path('/proc/meminfo').read_text(encoding='utf-8').splitlines()
    )
    found.append(int(lines['MemAvailable'].split()[0]) * 1024)
    limit = (CGROUP / 'memory.max').read_text(encoding='utf-8').strip()
    if limit != 'max':
      found.append(int(limit) - int((CGROUP / 'memory.current').read_text(encoding='utf-8')))
  except (OSError, KeyError, ValueError):  # not Linux, or no cgroup limit
    pass
  return min(found, default=None)


def check(
  where: str,
  shapes: Mapping[str, tuple[int, ...]],
  types: Mapping[str, str],
  layout: Mapping[str, jax.sharding.Sharding],
) -> None:
  """Raises ValueError if parameters do not fit on this host's devices.

  Args:
    where: the checkpoint, for the message.
    shapes: parameter path -> shape.
    types: parameter path -> name of its dtype.
    layout: parameter path -> sharding.
  """
  needed = sum(
    int(np.prod(layout[path].shard_shape(shape))) * np.dtype(types[path]).itemsize
    for path, shape in shapes.items()
  )
  _refuse(where, 'for its weights', needed)


def check_training(config: Mapping[str, Any], mesh: jax.sharding.Mesh) -> None:
  """Raises ValueError if not even the least that a training step holds fits on each device.

  That is, in float32, the large matrices, their gradients and both moments of Adam, and the inputs
  of all blocks for the tokens of a step.
  """
  model, vocab = config['model'], config['data']['vocab']
  width, optimizer = model['width'], config['optimizer']
  block = 2 * width * model['heads'] * model['head_dim'] + 2 * width * model['mlp_width']
  split = mesh.shape['fsdp'] * mesh.shape['tensor']
  held = 4 * 4 * (vocab * width + model['layers'] * block) // split
  rows = optimizer['batch'] // optimizer['accumulate'] // (mesh.shape['data'] * mesh.shape['fsdp'])
  kept = model['layers'] if model['remat'] == 'none' else 1
  held += 4 * max(rows, 1) * config['length'] * width * kept
  _refuse('training', 'at least, for parameters, optimizer and activations,', held)


def _refuse(what: str, why: str, needed: int) -> None:
  """Raises ValueError if `needed` bytes are not free on each device of this process."""
  stats = jax.local_devices()[0].memory_stats()
  if stats is None:  # a CPU: devices share the host's memory
    needed, free = needed * jax.local_device_count(), available()
  else:
    free = stats['bytes_limit'] - stats['bytes_in_use']
  if free is not None and needed > free:
    raise ValueError(
      f'{what} needs {needed / 2**30:,.2f} GiB {why} '
      f'{"on this machine" if stats is None else "on each device"}, and {free / 2**30:.2f} GiB are '
      'free. Use a larger machine, more devices and run.mesh.fsdp, or smaller sizes.'
    )
