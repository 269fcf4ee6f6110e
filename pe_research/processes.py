"""Several processes of one run: how they find each other, and that they run the same thing."""

import json
import os
import pathlib
import secrets
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pe_research import comparable, records

WAIT = 300  # seconds for the other processes to come
GRACE = 60  # seconds more, until JAX gives up


def join(how: str, wait: int = WAIT) -> None:
  """Makes this one of several processes: 'auto', or 'ADDRESS:PORT,PROCESSES,RANK'.

  'auto' is what a TPU pod, Slurm or Kubernetes say, as jax.distributed reads it.

  Raises:
    ValueError: it is not understood, the port is taken, or nobody came within `wait` seconds.
  """
  given, where, named = _parse(how), 'a coordinator', {}
  if given:
    address, processes, rank = given
    where = f'the coordinator at {address}'
    if rank == 0:
      _check_port(address)
    named = {'coordinator_address': address, 'num_processes': processes, 'process_id': rank}
  # JAX ends the process by itself and says less; it only comes to that if this does not.
  given_up = threading.Timer(wait, _give_up, (where, wait))
  given_up.daemon = True
  given_up.start()
  try:
    jax.distributed.initialize(**named, initialization_timeout=wait + GRACE)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'{where} was not found: {error}') from error
  finally:
    given_up.cancel()


def _give_up(where: str, wait: int) -> None:
  print(
    f'error: {where} was not reached by all processes within {wait} s. Are all of them running, is '
    'the address right, and does no firewall close the port? --wait=SECONDS waits longer.',
    file=sys.stderr, flush=True,
  )  # fmt: skip
  os._exit(2)


def _parse(how: str) -> tuple[str, int, int] | None:
  if how == 'auto':
    return None
  try:
    address, processes, rank = how.split(',')
    given = address, int(processes), int(rank)
    if not address.rpartition(':')[2].isdigit() or not 0 <= given[2] < given[1]:
      raise ValueError
  except ValueError as error:
    raise ValueError(
      f'--distributed={how} is not understood; write ADDRESS:PORT,PROCESSES,RANK, for example '
      '--distributed=10.0.0.1:8476,2,0.'
    ) from error
  return given


def _check_port(address: str) -> None:
  """Raises ValueError where the port of process 0 is taken."""
  port = int(address.rpartition(':')[2])
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as error:
      raise ValueError(
        f'port {port} of this machine is in use ({error.strerror}); give another in '
        f'--distributed={address},...'
      ) from error


def check_alike(what: str, value: Mapping[str, Any]) -> None:
  """Raises ValueError, in every process, where one has another value than process 0."""
  if jax.process_count() == 1:
    return
  mine = json.dumps(value, sort_keys=True, default=str).encode()
  sizes = multihost_utils.process_allgather(np.array(len(mine), np.int32))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(mine)] = np.frombuffer(mine, np.uint8)
  all_of_them = multihost_utils.process_allgather(padded)
  texts = [bytes(row[:size]) for row, size in zip(all_of_them, sizes, strict=True)]
  for rank, text in enumerate(texts):
    if text != texts[0]:
      changed = comparable.difference(json.loads(texts[0]), json.loads(text))
      raise ValueError(
        f'processes 0 and {rank} disagree about {what}:\n  ' + '\n  '.join(changed[:20])
        + '\nStart all of them with the same command and the same code.'
      )  # fmt: skip


def check_shared(workdir: pathlib.Path) -> None:
  """Raises ValueError, in every process, where one does not see what process 0 writes there."""
  if jax.process_count() == 1:
    return
  mark = workdir / '.shared'
  token = np.frombuffer(secrets.token_bytes(16), np.uint8)
  token = np.asarray(multihost_utils.broadcast_one_to_all(token))
  if jax.process_index() == 0:
    workdir.mkdir(parents=True, exist_ok=True)
    records.write_bytes(mark, token.tobytes())
  multihost_utils.sync_global_devices('the mark is written')
  sees = mark.exists() and mark.read_bytes() == token.tobytes()
  seen = multihost_utils.process_allgather(np.array(sees))
  if jax.process_index() == 0:
    mark.unlink(missing_ok=True)
  if not seen.all():
    blind = ', '.join(str(rank) for rank, one in enumerate(seen) if not one)
    raise ValueError(
      f'workdir {workdir} is not the same directory on process {blind} as on process 0; give one '
      'on a disk that all machines share.'
    )


def me() -> str:
  """'process 3 of 8 on tpu-vm-1 (pid 4711)', for messages."""
  where = f'on {socket.gethostname()} (pid {os.getpid()})'
  return f'process {jax.process_index()} of {jax.process_count()} {where}'
