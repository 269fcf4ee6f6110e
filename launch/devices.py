"""Workers of this machine, one per core or accelerator; found without JAX, which starts slowly."""

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
PORT = 8476  # of the first TPU process of a machine; each has its own

# Environment variables with the rank of this machine, and with the number of machines.
RANKS = ('PE_RANK', 'SLURM_PROCID', 'SKYPILOT_NODE_RANK', 'TPU_WORKER_ID')
COUNTS = ('PE_HOSTS', 'SLURM_NTASKS', 'SKYPILOT_NUM_NODES')


@dataclasses.dataclass(frozen=True)
class Worker:
  """A part of the machine.

  Attributes:
    prefix: of a command that runs on it.
    environment: variables of that command.
  """

  prefix: tuple[str, ...] = ()
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def cores() -> list[int]:
  """Processors that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]


def chips() -> tuple[str, int]:
  """'gpu' or 'tpu' and how many, if JAX has a plugin for them; otherwise '' and 0."""
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
  """Default number of workers of this machine."""
  return chips()[1] or len(cores())


def rank(hosts: int) -> int:
  """Rank of this machine among `hosts`, from 0.

  Raises:
    ValueError: the environment does not say, or contradicts `hosts`.
  """
  counts = [int(os.environ[name]) for name in COUNTS if os.environ.get(name, '').isdigit()]
  names = os.environ.get('TPU_WORKER_HOSTNAMES', '')
  counts += [len(names.split(','))] if names else []
  if counts and counts[0] != hosts:
    raise ValueError(
      f'this is one of {counts[0]} machines that run the same command; give --hosts={counts[0]}, '
      f'which is the setting hosts = {counts[0]} of an engine.'
    )
  found = [(name, os.environ[name]) for name in RANKS if os.environ.get(name, '').isdigit()]
  name, text = found[0] if found else ('', '0')
  if int(text) >= hosts:
    raise ValueError(
      f'{name}={text} is the rank of this machine, and with --hosts={hosts} ranks go from 0 to '
      f'{hosts - 1}; give --hosts the number of machines.'
    )
  if hosts > 1 and not found:
    raise ValueError(
      f'--hosts={hosts}, and none of {", ".join(RANKS)} is set to the rank of this machine, from 0 '
      f'to {hosts - 1}; set PE_RANK.'
    )
  return int(text)


def workers(wanted: int, alone: bool) -> list[Worker]:
  """`wanted` workers, 0 for one per chip or core; if `alone`, each has the whole machine."""
  kind, found = chips()
  wanted = wanted or found or len(cores())
  if alone:
    return [Worker()] * wanted
  if not kind:
    available = cores()
    return [_core(available[i % len(available)]) for i in range(wanted)]
  return [(_gpu if kind == 'gpu' else _tpu)(i % found) for i in range(wanted)]


def _core(core: int) -> Worker:
  prefix = ('taskset', '-c', str(core)) if cores() != [0] else ()
  return Worker(prefix, {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'})


def _gpu(index: int) -> Worker:
  return Worker(environment={'CUDA_VISIBLE_DEVICES': str(index)})


def _tpu(index: int) -> Worker:
  """One chip of several, for a process that does not communicate with the others."""
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
