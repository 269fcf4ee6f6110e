"""Whether weights fit into memory, before any of them is read."""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np

CGROUP = pathlib.Path('/sys/fs/cgroup')


def available() -> int | None:
  """Bytes of host memory that this process may still take; None if the system does not say."""
  found = []
  try:
    lines = dict(line.split(':') for line in pathlib.Path('/proc/meminfo').read_text().splitlines())
    found.append(int(lines['MemAvailable'].split()[0]) * 1024)
    limit = (CGROUP / 'memory.max').read_text().strip()
    if limit != 'max':
      found.append(int(limit) - int((CGROUP / 'memory.current').read_text()))
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
  stats = jax.local_devices()[0].memory_stats()
  if stats is None:  # a CPU: devices share the host's memory
    needed, free = needed * jax.local_device_count(), available()
  else:
    free = stats['bytes_limit'] - stats['bytes_in_use']
  if free is not None and needed > free:
    raise ValueError(
      f'{where} needs {needed / 2**30:.2f} GiB for its weights '
      f'{"on this machine" if stats is None else "on each device"}, and {free / 2**30:.2f} GiB are '
      'free. Use a larger machine, or more devices and run.mesh.fsdp.'
    )
