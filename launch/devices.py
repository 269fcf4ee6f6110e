"""What this machine has: a worker a core, or one an accelerator; asking JAX itself is slow."""

import dataclasses
import glob
import importlib.util
import os
from collections.abc import Mapping

FILES = {
  'gpu': '/dev/nvidia[0-9]*',
  'tpu': '/dev/accel[0-9]*',
  'tpu through vfio': '/dev/vfio/[0-9]*',
}
PORT = 8476  # of a TPU process; each on a machine has its own

# What tells a machine which of several it is, and how many there are.
RANKS = ('PE_RANK', 'SLURM_PROCID', 'SKYPILOT_NODE_RANK', 'TPU_WORKER_ID')
COUNTS = ('PE_HOSTS', 'SLURM_NTASKS', 'SKYPILOT_NUM_NODES')


@dataclasses.dataclass(frozen=True)
class Worker:
  """A part of the machine.

  Attributes:
    prefix: of a command that is to run there.
    environment: of it.
  """

  prefix: tuple[str, ...] = ()
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def cores() -> list[int]:
  """Processors that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]


def chips() -> tuple[str, int]:
  """'gpu' or 'tpu' and how many of them, where there is a plugin of JAX for it; or '' and 0."""
  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    return '', 0
  if not any(map(importlib.util.find_spec, ('jax_plugins', 'libtpu'))):
    return '', 0
  for kind, pattern in FILES.items():
    found = glob.glob(pattern)
    if found:
      return kind.split()[0], len(found)
  return '', 0


def count() -> int:
  """How many workers this machine is for."""
  return chips()[1] or len(cores())


def rank(hosts: int) -> int:
  """Which of so many machines this is, from 0.

  Raises:
    ValueError: nothing in the environment says so, or it says that there are others.
  """
  known = [int(os.environ[name]) for name in COUNTS if os.environ.get(name, '').isdigit()]
  names = os.environ.get('TPU_WORKER_HOSTNAMES', '')
  known += [len(names.split(','))] if names else []
  if known and known[0] != hosts:
    raise ValueError(
      f'this is one of {known[0]} machines that run the same command; give --hosts={known[0]}, '
      f'which is the setting hosts = {known[0]} of an engine.'
    )
  found = [(name, os.environ[name]) for name in RANKS if os.environ.get(name, '').isdigit()]
  name, text = found[0] if found else ('', '0')
  if int(text) >= hosts:
    raise ValueError(
      f'{name}={text} is the number of this machine, and those of --hosts={hosts} go from 0 to '
      f'{hosts - 1}; give --hosts as many as there are.'
    )
  if hosts > 1 and not found:
    raise ValueError(
      f'--hosts={hosts}, and none of {", ".join(RANKS)} says which of them this is, from 0 to '
      f'{hosts - 1}.'
    )
  return int(text)


def workers(wanted: int, alone: bool) -> list[Worker]:
  """So many workers, 0: as many as the machine has; a worker that is alone has all of it."""
  kind, found = chips()
  wanted = wanted or found or len(cores())
  if alone:
    return [Worker()] * wanted
  if not kind:
    own = cores()
    return [_core(own[i % len(own)]) for i in range(wanted)]
  return [(_gpu if kind == 'gpu' else _tpu)(i % found) for i in range(wanted)]


def _core(core: int) -> Worker:
  prefix = ('taskset', '-c', str(core)) if cores() != [0] else ()
  return Worker(prefix, {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'})


def _gpu(index: int) -> Worker:
  return Worker(environment={'CUDA_VISIBLE_DEVICES': str(index)})


def _tpu(index: int) -> Worker:
  """One chip of several, for a process that does not talk to the others'."""
  return Worker(
    environment={
      'TPU_CHIPS_PER_PROCESS_BOUNDS': '1,1,1',
      'TPU_PROCESS_BOUNDS': '1,1,1',
      'TPU_VISIBLE_DEVICES': str(index),
      'TPU_VISIBLE_CHIPS': str(index),
      'TPU_MESH_CONTROLLER_ADDRESS': f'localhost:{PORT + index}',
      'TPU_MESH_CONTROLLER_PORT': str(PORT + index),
    }
  )
