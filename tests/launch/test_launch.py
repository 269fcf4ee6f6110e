"""The pool runs every job once, at most so many at a time, and says which failed."""

import json

import pytest

from launch import devices, job_process, local
from launch.job import Job
from pe_research.storage import files

WORK = """
import json, os, pathlib, sys, time
done, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
mine = folder / f'{os.getpid()}.running'
mine.touch()
seen = len(list(folder.glob('*.running')))
time.sleep(0.3)
mine.unlink()
print('worked')
if 'bad' in done.name: sys.exit(3)
cores = sorted(os.sched_getaffinity(0))
found = {'seen': seen, 'cores': cores, 'malloc': os.environ['GLIBC_TUNABLES']}
done.write_text(json.dumps(found | {'core_seconds': time.process_time()}))
"""


def jobs(tmp_path, names):
  return [
    Job(name, ('-c', WORK, str(tmp_path / f'{name}.json'), str(tmp_path)),
              tmp_path / f'{name}.log', tmp_path / f'{name}.json')
    for name in names
  ]  # fmt: skip


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')


def results(tmp_path):
  return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}


def test_jobs_run_on_a_core_each_as_many_as_there_are_workers(tmp_path):
  looked = []
  assert local.run(jobs(tmp_path, 'abcde'), lambda: looked.append(1), workers=2) == {}
  found = results(tmp_path)
  assert found.keys() == set('abcde') and looked
  assert max(f['seen'] for f in found.values()) == min(2, len(devices.cores()))
  assert all(len(f['cores']) == 1 for f in found.values())
  assert {f['malloc'] for f in found.values()} == {'glibc.malloc.hugetlb=1'}


def test_a_failed_job_is_named_and_the_rest_is_done(tmp_path):
  left = local.run(jobs(tmp_path, ['a', 'bad', 'c']), lambda: None, workers=1)
  assert left == {'bad': 'failed'}
  assert results(tmp_path).keys() == {'a', 'c'}
  assert 'worked' in (tmp_path / 'bad.log').read_text()


def test_done_jobs_do_not_run_again(tmp_path):
  (tmp_path / 'a.json').write_text('"mine"')
  local.run(jobs(tmp_path, 'ab'), lambda: None)
  assert results(tmp_path)['a'] == 'mine' and not (tmp_path / 'a.log').exists()


def test_an_interrupt_reaches_the_workers(tmp_path):
  def interrupt():
    if list(tmp_path.glob('*.running')):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    local.run(jobs(tmp_path, 'abcd'), interrupt, workers=1)
  assert results(tmp_path) == {}


KINDS = {'gpu': '/dev/nvidia[0-9]*', 'tpu': '/dev/accel[0-9]*'}


@pytest.fixture(params=KINDS)
def four_chips(request, monkeypatch):
  """A machine with four chips of a kind, and JAX's plugin for it."""
  monkeypatch.delenv('JAX_PLATFORMS')
  found = lambda pattern: list('0123') if pattern == KINDS[request.param] else []
  monkeypatch.setattr(devices.glob, 'glob', found)
  monkeypatch.setattr(devices.importlib.util, 'find_spec', lambda name: name == 'jax_plugins')
  return request.param


def test_each_chip_is_seen_by_one_worker(four_chips):
  assert devices.chips() == (four_chips, 4) and devices.count() == 4
  found = devices.workers(0, alone=False)
  seen = 'CUDA_VISIBLE_DEVICES' if four_chips == 'gpu' else 'TPU_VISIBLE_DEVICES'
  assert [worker.environment[seen] for worker in found] == list('0123')
  assert all(not worker.prefix and 'JAX_PLATFORMS' not in worker.environment for worker in found)
  ports = [worker.environment.get('TPU_MESH_CONTROLLER_PORT') for worker in found]
  assert len(set(ports)) == (4 if four_chips == 'tpu' else 1)
  assert devices.workers(0, alone=True)[0] == devices.Worker()


def test_chips_without_a_plugin_or_against_the_users_word_are_none(four_chips, monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert devices.chips() == ('', 0)
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(devices.importlib.util, 'find_spec', lambda name: None)
  assert devices.chips() == ('', 0) and devices.count() == len(devices.cores())


@pytest.mark.parametrize(
  'environment, hosts, rank',
  [
    ({}, 1, 0),
    ({'SLURM_PROCID': '3', 'SLURM_NTASKS': '4'}, 4, 3),
    ({'TPU_WORKER_ID': '1', 'TPU_WORKER_HOSTNAMES': 'a,b'}, 2, 1),
    ({'SKYPILOT_NODE_RANK': '0', 'SKYPILOT_NUM_NODES': '2'}, 2, 0),
    ({'PE_RANK': '1', 'TPU_WORKER_ID': '0'}, 2, 1),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, 1, 0),
  ],
)
def test_a_machine_knows_which_of_several_it_is(environment, hosts, rank, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  assert devices.rank(hosts) == rank


@pytest.mark.parametrize(
  'environment, hosts, message',
  [
    ({}, 2, 'none of PE_RANK, SLURM_PROCID'),
    ({'PE_RANK': '2'}, 2, 'PE_RANK=2 .* from 0 to 1'),
    ({'PE_RANK': '3'}, 1, 'PE_RANK=3 .* from 0 to 0'),
    ({'PE_RANK': '0', 'PE_HOSTS': '4'}, 1, 'one of 4 machines'),
    ({'SLURM_NTASKS': '4', 'SLURM_PROCID': '0'}, 1, 'one of 4 machines .* hosts = 4'),
    ({'TPU_WORKER_HOSTNAMES': 'a,b', 'TPU_WORKER_ID': '0'}, 1, 'one of 2 machines'),
  ],
)
def test_machines_that_do_not_know_each_other_are_refused(environment, hosts, message, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(ValueError, match=message):
    devices.rank(hosts)


def test_the_cost_of_a_job_is_what_it_computes_and_not_what_it_waits(tmp_path):
  own = jobs(tmp_path, 'ab')
  local.run(own, lambda: None, 1)
  folders = {job.folder for job in own}
  told = {row['job']: row for f in folders for row in files.read_rows(f / job_process.COSTS)}
  for name, found in results(tmp_path).items():
    took = told[name]['seconds']
    assert found['core_seconds'] - 0.06 <= took < found['core_seconds'] + 0.3  # which it slept
    assert told[name]['ended'] == 'done'
