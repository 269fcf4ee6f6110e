"""How processes find each other: under Slurm, without any cluster, and which GPUs each has."""

import socket

import pytest
import run_fixtures
from process_fixtures import DEVICES, free_port

from pe_research.machines import cluster

JOINS = """
import jax
from pe_research.machines import cluster
cluster.join('auto', 60)
print('joined', jax.process_index(), jax.process_count(), jax.device_count(),
      jax.config.read('jax_cuda_visible_devices'))
"""


def joined(**environment):
  """A process that joins by what its environment says; two devices."""
  return run_fixtures.start('-c', JOINS, XLA_FLAGS=f'{DEVICES}2', **environment)


def slurm(rank, machines):
  """What srun tells one of two tasks."""
  return {
    'SLURM_JOB_ID': '17', 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2',
    'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank if machines == 1 else 0),
    'SLURM_STEP_NUM_NODES': str(machines),
  }  # fmt: skip


@pytest.mark.parametrize(('machines', 'own'), [(2, ('all', 'all')), (1, ('0', '1'))])
def test_a_task_of_slurm_has_its_machine_or_one_gpu_of_it(machines, own):
  port = {'JAX_COORDINATOR_PORT': str(free_port())}
  tasks = [joined(**slurm(rank, machines), **port) for rank in range(2)]
  for rank, task in enumerate(tasks):
    said, _ = task.communicate(timeout=120)
    assert f'joined {rank} 2 4 {own[rank]}\n' in said


@pytest.mark.parametrize('told', [True, False], ids=['told', 'of the job'])
def test_a_port_that_is_taken_is_named_where_nobody_typed_it(told):
  with socket.socket() as taken:
    taken.bind(('', 0 if told else 2**16 - 2**12 + 1017))
    taken.listen()
    port = taken.getsockname()[1]
    named = {'JAX_COORDINATOR_PORT': str(port)} if told else {}
    task = joined(**slurm(0, 2) | {'SLURM_JOB_ID': str(4096 + 1017)}, **named)
    said, _ = task.communicate(timeout=120)
  assert f'ValueError: port {port} of this machine is in use' in said and task.returncode == 1
  assert 'set JAX_COORDINATOR_PORT' in said


def test_ports_nobody_typed_are_those_that_jax_opens(monkeypatch):
  from jax._src.clusters import cloud_tpu_cluster
  from jax._src.clusters.slurm_cluster import SlurmCluster

  for name, value in (slurm(0, 2) | {'SLURM_JOB_ID': '123457'}).items():
    monkeypatch.setenv(name, value)
  address = SlurmCluster.get_coordinator_address(1, None)
  assert cluster._usual_port() == int(address.rpartition(':')[2])
  monkeypatch.setenv('SLURM_PROCID', '1')
  assert cluster._usual_port() is None
  monkeypatch.setenv('TPU_WORKER_ID', '0')
  assert cluster._usual_port() == int(cloud_tpu_cluster.coordinator_port)


def test_machines_of_skypilot_find_each_other():
  port = free_port()
  script = f'from pe_research.machines import cluster\ncluster.PORT = {port}\n' + JOINS
  given = {'SKYPILOT_NODE_IPS': '127.0.0.1\n127.0.0.2', 'XLA_FLAGS': f'{DEVICES}2'}
  both = [run_fixtures.start('-c', script, **given, SKYPILOT_NODE_RANK=str(i)) for i in range(2)]
  for rank, one in enumerate(both):
    said, _ = one.communicate(timeout=120)
    assert f'joined {rank} 2 4 all\n' in said


def test_where_nothing_is_said_one_process_has_all_devices():
  said, _ = joined().communicate(timeout=120)
  assert 'no TPU pod, Slurm or SkyPilot is here, so this process is the whole run\n' in said
  assert 'joined 0 1 2 all\n' in said


def test_tasks_of_slurm_that_srun_did_not_start_are_refused():
  said, _ = joined(SLURM_JOB_ID='17', SLURM_NTASKS='2').communicate(timeout=120)
  assert (
    'Slurm has 2 tasks here, and srun started none of them; start the command with srun' in said
  )


@pytest.mark.parametrize(
  ('tasks', 'machines', 'seen', 'per_task', 'own'),
  [
    (2, 2, '0,1,2,3,4,5,6,7', '', []),  # a machine a task
    (1, 1, '', '', []),
    (16, 2, '0,1,2,3,4,5,6,7', '', None),  # a GPU a task, of all that each sees
    (16, 2, '', '', None),
    (16, 2, '5', '', []),  # a GPU a task, which sees no other
    (4, 2, '0,1', '2', []),
  ],
)
def test_gpus_belong_to_the_process_that_slurm_gives_them(
  tasks, machines, seen, per_task, own, monkeypatch
):
  given = {'SLURM_NTASKS': tasks, 'SLURM_STEP_NUM_NODES': machines}
  given |= {'CUDA_VISIBLE_DEVICES': seen, 'SLURM_GPUS_PER_TASK': per_task}
  for name, value in given.items():
    monkeypatch.setenv(name, str(value)) if value else monkeypatch.delenv(name, raising=False)
  assert cluster._own_devices() == own


def test_gpus_that_would_be_left_over_are_refused(monkeypatch):
  given = {'SLURM_NTASKS': '4', 'SLURM_STEP_NUM_NODES': '2', 'CUDA_VISIBLE_DEVICES': '0,1,2,3'}
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match='4 tasks on 2 machines of 4 GPUs'):
    cluster._own_devices()
