"""How several processes of one run find each other: a TPU pod, Slurm, SkyPilot, or addresses."""

import argparse
import os
import socket
import sys
import threading

from pe_research.machines import exits

WAIT = 300  # seconds for the other processes to come
GRACE = 60  # seconds more, until JAX gives up; and for the others to come to their end
PORT = 8476  # of process 0, where the environment says no other
NOBODY = 'coordinator_address should be defined'  # of JAX, where nothing speaks of other processes


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds --distributed and --wait, the arguments of `join`."""
  parser.add_argument(
    '--distributed',
    nargs='?',
    const='auto',
    metavar='ADDRESS,PROCESSES,RANK',
    help='one of several processes; without a value as the TPU pod or Slurm says',
  )
  parser.add_argument('--wait', type=int, default=WAIT, help='seconds for the others to come')


def join(how: str | None, wait: int = WAIT) -> None:
  """Makes this one of several processes: 'auto', or 'ADDRESS:PORT,PROCESSES,RANK'; None: alone.

  'auto' is what a TPU pod, Slurm or Kubernetes say, as jax.distributed reads it, or SkyPilot; where
  nothing says anything, the run is one process with all devices of its machine.

  Raises:
    ValueError: it is not understood, the port is taken, nobody came within `wait` seconds, or
      devices would be left over.
  """
  if how is None:
    return
  given, where, named = _parse(how), 'a coordinator', {'local_device_ids': _own_devices()}
  if given:
    address, processes, rank = given
    where = f'the coordinator at {address}'
    if rank == 0:
      port, text = address.rpartition(':')[2], f'give another in --distributed={address},...'
      _check_port(int(port), text)
    named |= {'coordinator_address': address, 'num_processes': processes, 'process_id': rank}
  elif port := _usual_port():
    _check_port(port, 'set JAX_COORDINATOR_PORT, on all machines, to one that is free.')
  import jax  # slow to import

  jax.config.update('jax_enable_preemption_service', False)  # it swallows SIGTERM
  # JAX ends the process by itself and says less; it only comes to that if this does not.
  given_up = threading.Timer(wait, _give_up, (where, wait))
  given_up.daemon = True
  given_up.start()
  try:
    waits = {'initialization_timeout': wait + GRACE, 'shutdown_timeout_seconds': GRACE}
    jax.distributed.initialize(**named, **waits)
  except (RuntimeError, ValueError) as error:
    if NOBODY not in str(error):
      raise ValueError(f'{where} was not found: {error}') from error
    _check_alone()
    print('--distributed: nothing here speaks of other processes, so this one is all of the run')
  finally:
    given_up.cancel()


def _give_up(where: str, wait: int) -> None:
  print(
    f'error: {where} was not reached by all processes within {wait} s. Are all of them running, is '
    'the address right, and does no firewall close the port? --wait=SECONDS waits longer.',
    file=sys.stderr, flush=True,
  )  # fmt: skip
  os._exit(exits.STOPPED)  # they may come later


def _parse(how: str) -> tuple[str, int, int] | None:
  if how == 'auto':
    return _skypilot()
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


def _skypilot() -> tuple[str, int, int] | None:
  """What SkyPilot says, which JAX does not read; None where it has not several machines."""
  machines = os.environ.get('SKYPILOT_NODE_IPS', '').split()
  if len(machines) < 2:
    return None
  return f'{machines[0]}:{PORT}', len(machines), int(os.environ['SKYPILOT_NODE_RANK'])


def _own_devices() -> list[int] | None:
  """Numbers of the GPUs that belong to this process under Slurm; []: all that it sees.

  None leaves it to JAX, which takes one: that of the number that the process has on its machine.

  Raises:
    ValueError: some would belong to no process.
  """
  named = 'SLURM_NTASKS', 'SLURM_STEP_NUM_NODES'
  if not all(os.environ.get(name, '').isdigit() for name in named):
    return None
  tasks, machines = (int(os.environ[name]) for name in named)
  seen = len(list(filter(None, os.environ.get('CUDA_VISIBLE_DEVICES', '').split(','))))
  each_has_its_own = seen == 1 or 'SLURM_GPUS_PER_TASK' in os.environ
  if tasks == machines or each_has_its_own:
    return []
  if seen and seen * machines != tasks:
    raise ValueError(
      f'Slurm started {tasks} tasks on {machines} machines of {seen} GPUs; a process takes all of '
      f'its machine or one of them. Give srun --ntasks-per-node=1, or --ntasks-per-node={seen}.'
    )
  return None


def _check_alone() -> None:
  """Raises ValueError where Slurm has several tasks, and this is none of them."""
  tasks = os.environ.get('SLURM_NTASKS', '1')
  if tasks != '1':
    raise ValueError(
      f'--distributed: Slurm has {tasks} tasks here, and srun started none of them; start the '
      'command with srun.'
    )


def _usual_port() -> int | None:
  """The port that JAX will open here, where Slurm or a TPU pod says that this is process 0."""
  given = os.environ.get('JAX_COORDINATOR_PORT')
  if os.environ.get('SLURM_PROCID') == '0' and 'SLURM_STEP_NODELIST' in os.environ:
    return int(given or int(os.environ['SLURM_JOB_ID']) % 2**12 + 2**16 - 2**12)
  return int(given or 8482) if os.environ.get('TPU_WORKER_ID') == '0' else None


def _check_port(port: int, instead: str) -> None:
  """Raises ValueError where it is taken: JAX would end the process without a word."""
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as error:
      raise ValueError(
        f'port {port} of this machine is in use ({error.strerror}); {instead}'
      ) from error
