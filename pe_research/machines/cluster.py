"""How the processes of one run find each other: by a TPU pod, Slurm, SkyPilot or an address."""

import argparse
import os
import socket
import sys
import threading

from pe_research.machines import exits

WAIT = 300  # seconds to wait for the other processes
GRACE = 60  # seconds more until JAX gives up; also how long JAX waits for the others at the end
PORT = 8476  # of process 0, unless the environment sets another
NO_CLUSTER = 'coordinator_address should be defined'  # JAX's error where it detects no cluster


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds --distributed and --wait, the arguments of `join`."""
  parser.add_argument(
    '--distributed',
    nargs='?',
    const='auto',
    metavar='ADDRESS,PROCESSES,RANK',
    help='run as one of several processes, on one or more machines; without a value they are found '
    'from a TPU pod, Slurm or SkyPilot (default: one process)',
  )
  parser.add_argument(
    '--wait', type=int, default=WAIT, metavar='SECONDS',
    help='with --distributed, how long to wait for the other processes (default: %(default)s)',
  )  # fmt: skip


def join(how: str | None, wait: int = WAIT) -> None:
  """Makes this one of several processes: 'auto', or 'ADDRESS:PORT,PROCESSES,RANK'; None: alone.

  'auto' reads the environment: of a TPU pod, Slurm or Kubernetes, as jax.distributed does, or of
  SkyPilot. Without any of these the run is one process with all devices of its machine.

  Raises:
    ValueError: `how` is not understood, the port is taken, the others are not there within `wait`
      seconds, or devices would be left over.
  """
  if how is None:
    return
  address, where, options = _parse(how), 'a coordinator', {'local_device_ids': _own_devices()}
  if address:
    host, processes, rank = address
    where = f'the coordinator at {host}'
    if rank == 0:
      _check_port(int(host.rpartition(':')[2]), f'give another in --distributed={host},...')
    options |= {'coordinator_address': host, 'num_processes': processes, 'process_id': rank}
  elif port := _usual_port():
    _check_port(port, 'set JAX_COORDINATOR_PORT, on all machines, to one that is free.')
  import jax  # slow to import

  jax.config.update('jax_enable_preemption_service', False)  # it swallows SIGTERM
  # JAX's own timeout ends the process with a poorer message, so this one comes first.
  timeout = threading.Timer(wait, _give_up, (where, wait))
  timeout.daemon = True
  timeout.start()
  try:
    timeouts = {'initialization_timeout': wait + GRACE, 'shutdown_timeout_seconds': GRACE}
    jax.distributed.initialize(**options, **timeouts)
  except (RuntimeError, ValueError) as error:
    if NO_CLUSTER not in str(error):
      raise ValueError(f'{where} was not found: {error}') from error
    _check_alone()
    print('--distributed: no TPU pod, Slurm or SkyPilot is here, so this process is the whole run')
  finally:
    timeout.cancel()


def _give_up(where: str, wait: int) -> None:
  print(
    f'error: {where} was not reached by all processes within {wait} s. Are all of them running, is '
    'the address right, and does no firewall close the port? --wait=SECONDS waits longer.',
    file=sys.stderr, flush=True,
  )  # fmt: skip
  os._exit(exits.STOPPED)  # the others may come later


def _parse(how: str) -> tuple[str, int, int] | None:
  if how == 'auto':
    return _skypilot()
  try:
    address, processes, rank = how.split(',')
    parsed = address, int(processes), int(rank)
    if not 0 < int(address.rpartition(':')[2]) < 2**16 or not 0 <= parsed[2] < parsed[1]:
      raise ValueError
  except ValueError as error:
    raise ValueError(
      f'--distributed={how!r} is not understood; write ADDRESS:PORT,PROCESSES,RANK, for example '
      '--distributed=10.0.0.1:8476,2,0. Ports go from 1 to 65535.'
    ) from error
  return parsed


def _skypilot() -> tuple[str, int, int] | None:
  """SkyPilot's environment, which JAX does not read; None unless it has several machines."""
  machines = os.environ.get('SKYPILOT_NODE_IPS', '').split()
  if len(machines) < 2:
    return None
  return f'{machines[0]}:{PORT}', len(machines), int(os.environ['SKYPILOT_NODE_RANK'])


def _own_devices() -> list[int] | None:
  """Indices of the GPUs of this process under Slurm; []: all that it sees.

  None leaves the choice to JAX, which takes one GPU: that of the process's index on its machine.

  Raises:
    ValueError: some GPUs would belong to no process.
  """
  names = 'SLURM_NTASKS', 'SLURM_STEP_NUM_NODES'
  if not all(os.environ.get(name, '').isdigit() for name in names):
    return None
  tasks, machines = (int(os.environ[name]) for name in names)
  visible = len(list(filter(None, os.environ.get('CUDA_VISIBLE_DEVICES', '').split(','))))
  one_each = visible == 1 or 'SLURM_GPUS_PER_TASK' in os.environ
  if tasks == machines or one_each:
    return []
  if visible and visible * machines != tasks:
    raise ValueError(
      f'Slurm started {tasks} tasks on {machines} machines of {visible} GPUs; a process takes all '
      'of its machine or one of them. Give srun --ntasks-per-node=1, or '
      f'--ntasks-per-node={visible}.'
    )
  return None


def _check_alone() -> None:
  """Raises ValueError where Slurm has several tasks and this process is none of them."""
  tasks = os.environ.get('SLURM_NTASKS', '1')
  if tasks != '1':
    raise ValueError(
      f'--distributed: Slurm has {tasks} tasks here, and srun started none of them; start the '
      'command with srun.'
    )


def _usual_port() -> int | None:
  """The port that JAX will open here as process 0 of Slurm or of a TPU pod; None elsewhere."""
  chosen = os.environ.get('JAX_COORDINATOR_PORT')
  if os.environ.get('SLURM_PROCID') == '0' and 'SLURM_STEP_NODELIST' in os.environ:
    return int(chosen or int(os.environ['SLURM_JOB_ID']) % 2**12 + 2**16 - 2**12)
  return int(chosen or 8482) if os.environ.get('TPU_WORKER_ID') == '0' else None


def _check_port(port: int, instead: str) -> None:
  """Raises ValueError where the port is taken: JAX would end the process without a message."""
  if not 0 < port < 2**16:
    raise ValueError(f'port {port} is none: ports go from 1 to {2**16 - 1}; {instead}')
  with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('', port))
    except OSError as error:
      raise ValueError(
        f'port {port} of this machine is in use ({error.strerror}); {instead}'
      ) from error
