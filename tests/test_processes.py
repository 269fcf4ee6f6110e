"""Whole processes: killed, stopped, on other numbers of devices, and two at once."""

import json
import math
import socket
import time

import pytest
import small

from pe_research import records

COMMAND = ('-m', 'pe_research.main')
EIGHT = '--xla_force_host_platform_device_count=8'
FOUR = '--xla_force_host_platform_device_count=4'


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return small.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


def train(workdir, flags, **environment):
  done = small.run(*COMMAND, *flags, f'--workdir={workdir}', **environment)
  assert done.returncode == 0, done.stderr
  return workdir


@pytest.fixture(scope='module')
def straight(corpus, tmp_path_factory):
  """The workdir of a run on one device that nothing happened to."""
  return train(tmp_path_factory.mktemp('straight'), small.flags(corpus, 't5'))


LONG = {'steps': 400, 'run__save_every': 1000}  # long enough for a signal to come in between


@pytest.fixture(scope='module')
def straight_long(corpus, tmp_path_factory):
  """The same, of 400 steps."""
  return train(tmp_path_factory.mktemp('long'), small.flags(corpus, 't5', **LONG))


def state(workdir):
  """Digest of the last checkpoint's state, as saved beside it."""
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name))
  return json.loads((newest / 'extra' / 'metadata').read_text())['digest']


def rows(workdir):
  fields = 'eval_length', 'value', 'tokens', 'documents'
  return [[row[f] for f in fields] for row in records.read_rows(workdir / 'results.jsonl')]


def wait_for(condition, process, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline, 'did not happen'
    time.sleep(0.002)


def test_kill_in_the_middle_of_a_save_loses_nothing(corpus, straight, tmp_path):
  flags = [*small.flags(corpus, 't5'), f'--workdir={tmp_path}']
  process = small.start(*COMMAND, *flags)
  folder = tmp_path / 'checkpoints'
  partial = lambda: folder.exists() and any('tmp' in p.name for p in folder.iterdir())
  wait_for(partial, process)
  process.kill()
  process.wait()
  assert not (tmp_path / 'done.json').exists()
  train(tmp_path, small.flags(corpus, 't5'))
  assert state(tmp_path) == state(straight)
  assert rows(tmp_path) == rows(straight)
  assert small.losses(tmp_path) == small.losses(straight)


def stop_in_the_middle(workdir, flags, **environment):
  """Starts a run, asks it to stop, and returns what it printed."""
  process = small.start(*COMMAND, *flags, f'--workdir={workdir}', **environment)
  wait_for(lambda: (workdir / 'metrics.jsonl').exists(), process)
  process.terminate()
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 0 and 'the same command goes on' in out, out
  assert not (workdir / 'done.json').exists()


def test_sigterm_exits_cleanly_and_the_same_command_goes_on(corpus, straight_long, tmp_path):
  flags = small.flags(corpus, 't5', **LONG)
  stop_in_the_middle(tmp_path, flags)
  assert state(train(tmp_path, flags)) == state(straight_long)


def test_a_second_process_in_the_same_workdir_is_refused(corpus, tmp_path):
  flags = [*small.flags(corpus, 't5'), f'--workdir={tmp_path}']
  with records.claim(tmp_path):
    second = small.run(*COMMAND, *flags)
  assert second.returncode == 2 and 'is in use by process' in second.stderr
  assert not (tmp_path / 'config.json').exists()


MESHES = {
  'data': {},
  'fsdp': {'run__mesh__data': 1, 'run__mesh__fsdp': 8},
  'data, fsdp and tensor': {'run__mesh__fsdp': 2, 'run__mesh__tensor': 2},
}


@pytest.mark.parametrize('mesh', MESHES)
def test_eight_devices_equal_one(mesh, corpus, straight, tmp_path):
  flags = small.flags(corpus, 't5', **MESHES[mesh])
  assert_same_run(train(tmp_path, flags, XLA_FLAGS=EIGHT), straight)


def test_kernel_is_split_over_rows_and_heads(corpus, straight, tmp_path):
  flags = small.flags(
    corpus, 't5', run__mesh__tensor=2, run__mesh__fsdp=2,
    attention__implementation='interpreted', eval__implementation='interpreted',
  )  # fmt: skip
  losses = small.losses(train(tmp_path, flags, XLA_FLAGS=FOUR))
  expected = small.losses(straight)
  assert all(math.isclose(losses[s], expected[s], rel_tol=1e-5) for s in expected)
  for row, wanted in zip(rows(tmp_path), rows(straight), strict=True):
    assert math.isclose(row[1], wanted[1], rel_tol=1e-5)


def test_heads_that_do_not_split_are_refused_for_the_kernel(corpus, tmp_path):
  flags = small.flags(
    corpus, run__mesh__tensor=2, model__projection='mqa', attention__implementation='interpreted'
  )
  done = small.run(*COMMAND, *flags, f'--workdir={tmp_path}', XLA_FLAGS=FOUR)
  assert done.returncode == 2 and '1 key heads do not split over run.mesh.tensor=2' in done.stderr
  assert not (tmp_path / 'run.json').exists()


def assert_same_run(one, other, tolerance=1e-5):
  """Same start, same data, losses to tolerance."""
  runs = [records.read_json(w / 'run.json') for w in (one, other)]
  for field in ('initial_parameters', 'batches', 'fingerprint'):
    assert runs[0][field] == runs[1][field]
  losses, expected = small.losses(one), small.losses(other)
  assert losses.keys() == expected.keys()
  assert all(math.isclose(losses[s], expected[s], rel_tol=tolerance) for s in expected)
  for row, wanted in zip(rows(one), rows(other), strict=True):
    assert math.isclose(row[1], wanted[1], rel_tol=tolerance)


def test_a_run_goes_on_on_other_devices_with_the_same_data(corpus, straight_long, tmp_path):
  flags = small.flags(corpus, 't5', **LONG)
  stop_in_the_middle(tmp_path, flags, XLA_FLAGS=EIGHT)
  assert_same_run(train(tmp_path, flags), straight_long, tolerance=1e-3)


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def start_all(commands, devices):
  """A process for each command, of one run; each has so many devices."""
  port, count = free_port(), len(commands)
  flags = f'--xla_force_host_platform_device_count={devices}'
  return [
    small.start(*COMMAND, *c, f'--distributed=127.0.0.1:{port},{count},{rank}', XLA_FLAGS=flags)
    for rank, c in enumerate(commands)
  ]


def join(processes, timeout=240):
  """What each said; none is left behind."""
  try:
    return [process.communicate(timeout=timeout)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()


TOPOLOGIES = {  # processes, devices of each, mesh
  'data': (2, 4, {}),
  'data and fsdp': (2, 4, {'run__mesh__data': 2, 'run__mesh__fsdp': 4}),
  'fsdp and tensor': (4, 2, {'run__mesh__data': 1, 'run__mesh__fsdp': 4, 'run__mesh__tensor': 2}),
  'data, fsdp and tensor': (4, 2, {'run__mesh__fsdp': 2, 'run__mesh__tensor': 2}),
}


@pytest.mark.parametrize('topology', TOPOLOGIES)
def test_several_processes_equal_one(topology, corpus, straight, tmp_path):
  count, devices, mesh = TOPOLOGIES[topology]
  command = [*small.flags(corpus, 't5', **mesh), f'--workdir={tmp_path}']
  processes = start_all([command] * count, devices)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [0] * count, outputs
  assert all('step' not in output for output in outputs[1:])  # process 0 alone reports
  assert_same_run(tmp_path, straight)


@pytest.mark.parametrize('moment', ['step', 'save'])
def test_a_killed_process_loses_nothing_and_others_go_on_elsewhere(
  moment, corpus, straight_long, tmp_path
):
  mesh = {'run__mesh__data': 2, 'run__mesh__fsdp': 2, 'run__patience': 30.0}
  given = LONG | {'run__save_every': 10}
  command = [*small.flags(corpus, 't5', **given, **mesh), f'--workdir={tmp_path}']
  processes = start_all([command] * 2, 2)
  folder = tmp_path / 'checkpoints'
  saved = lambda: {p.name for p in folder.iterdir()} if folder.exists() else set()
  whole = lambda: {name for name in saved() if name.isdigit()}
  begun = {
    'step': lambda: len(whole()) > 1,
    'save': lambda: whole() and any('tmp' in name for name in saved()),
  }[moment]
  try:
    wait_for(begun, processes[0])
    processes[1].kill()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert processes[0].returncode != 0 and not (tmp_path / 'done.json').exists(), outputs
  train(tmp_path, small.flags(corpus, 't5', **given), XLA_FLAGS=FOUR)
  assert_same_run(tmp_path, straight_long, tolerance=1e-3)


def test_one_that_is_told_to_leave_takes_the_others_along(corpus, straight_long, tmp_path):
  mesh = {'run__mesh__data': 2, 'run__mesh__fsdp': 2}
  command = [*small.flags(corpus, 't5', **LONG, **mesh), f'--workdir={tmp_path}']
  processes = start_all([command] * 2, 2)
  try:
    wait_for((tmp_path / 'metrics.jsonl').exists, processes[0])
    processes[1].terminate()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert all('the same command goes on' in output for output in outputs)
  assert not (tmp_path / 'done.json').exists()
  train(tmp_path, small.flags(corpus, 't5', **LONG))
  assert_same_run(tmp_path, straight_long, tolerance=1e-3)


def test_processes_that_disagree_are_refused_with_the_difference(corpus, tmp_path):
  workdir = f'--workdir={tmp_path}'
  commands = [[*small.flags(corpus, steps=steps), workdir] for steps in (12, 13)]
  processes = start_all(commands, 1)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [2, 2]
  for output in outputs:
    assert 'processes 0 and 1 disagree about the config' in output and 'steps: 12 -> 13' in output
  assert not any(tmp_path.iterdir())


def test_a_workdir_that_is_not_shared_is_refused(corpus, tmp_path):
  commands = [[*small.flags(corpus), f'--workdir={tmp_path / name}'] for name in 'ab']
  processes = start_all(commands, 1)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [2, 2]
  assert all('is not the same directory on process 1 as on process 0' in o for o in outputs)
  assert not list(tmp_path.glob('*/*'))


@pytest.mark.parametrize('rank', [0, 1])
def test_processes_that_never_come_are_given_up(rank, corpus, tmp_path):
  flags = [*small.flags(corpus), f'--workdir={tmp_path}', '--wait=3']
  start = time.monotonic()
  done = small.run(*COMMAND, *flags, f'--distributed=127.0.0.1:{free_port()},2,{rank}')
  assert done.returncode == 2 and 'was not reached by all processes within 3 s' in done.stderr
  assert time.monotonic() - start < 90


def test_a_port_that_is_taken_is_named(corpus, tmp_path):
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen()
    port = taken.getsockname()[1]
    command = (*small.flags(corpus), f'--workdir={tmp_path}')
    done = small.run(*COMMAND, *command, f'--distributed=127.0.0.1:{port},2,0')
  assert done.returncode == 2 and f'port {port} of this machine is in use' in done.stderr


@pytest.mark.parametrize('how', ['x', '1.2.3.4:80,2', '1.2.3.4:80,2,2', '1.2.3.4,2,0', 'a:b,2,0'])
def test_addresses_that_are_none_are_refused(how, corpus, tmp_path):
  done = small.run(*COMMAND, *small.flags(corpus), f'--workdir={tmp_path}', f'--distributed={how}')
  assert done.returncode == 2 and 'write ADDRESS:PORT,PROCESSES,RANK' in done.stderr
