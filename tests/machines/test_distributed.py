"""One run of several processes: equal to one process, stopped, killed, hung, and not alike."""

import signal
import socket
import time

import pytest
import run_fixtures
from process_fixtures import (
  COMMAND,
  DEVICES,
  LONG,
  assert_same_run,
  free_port,
  join,
  rows,
  start_all,
  train,
  wait_for,
)

from pe_research.machines import exits, multiprocess
from pe_research.storage import files

STEPS = {'steps': 20}


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.fixture(scope='module')
def straight(corpus, tmp_path_factory):
  """The workdir of twenty steps on one device."""
  return train(tmp_path_factory.mktemp('straight'), run_fixtures.flags(corpus, 't5', **STEPS))


@pytest.fixture(scope='module')
def straight_long(corpus, tmp_path_factory):
  """The same, of 400 steps."""
  return train(tmp_path_factory.mktemp('long'), run_fixtures.flags(corpus, 't5', **LONG))


MESHES = {  # of eight devices
  'data': {},
  'fsdp': {'run__mesh__data': 1, 'run__mesh__fsdp': 8},
  'tensor': {'run__mesh__data': 1, 'run__mesh__tensor': 8},
  'data, fsdp and tensor': {'run__mesh__fsdp': 2, 'run__mesh__tensor': 2},
}


MIXED = 'data, fsdp and tensor'


@pytest.mark.parametrize(
  ('mesh', 'count'),
  [(MIXED, 2)]
  + [
    pytest.param(mesh, count, marks=pytest.mark.slow)
    for mesh in MESHES
    for count in (2, 4)
    if (mesh, count) != (MIXED, 2)
  ],
)
def test_several_processes_equal_one(mesh, count, corpus, straight, tmp_path):
  command = [*run_fixtures.flags(corpus, 't5', **STEPS, **MESHES[mesh]), f'--workdir={tmp_path}']
  processes = start_all([command] * count, 8 // count)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [0] * count, outputs
  assert all('step' not in output for output in outputs[1:])  # process 0 alone reports
  assert_same_run(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'given'), [('randomized', {'position__span': 256}), ('pose', {})])
def test_what_is_drawn_is_drawn_alike_by_several_processes(name, given, corpus, tmp_path):
  flags = run_fixtures.flags(corpus, name, **STEPS, **given)
  alone = train(tmp_path / 'alone', flags)
  command = [*flags, f'--workdir={tmp_path / "shared"}']
  processes = start_all([command] * 2, 4)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert_same_run(tmp_path / 'shared', alone)


@pytest.mark.slow
@pytest.mark.parametrize('moment', ['step', 'save'])
def test_a_killed_process_loses_nothing_and_others_go_on_elsewhere(
  moment, corpus, straight_long, tmp_path
):
  mesh = {'run__mesh__data': 2, 'run__mesh__fsdp': 2, 'run__patience': 30.0}
  given = LONG | {'run__save_every': 10}
  command = [*run_fixtures.flags(corpus, 't5', **given, **mesh), f'--workdir={tmp_path}']
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
  assert processes[0].returncode == exits.STOPPED, outputs
  assert not (tmp_path / 'done.json').exists()
  train(tmp_path, run_fixtures.flags(corpus, 't5', **given), XLA_FLAGS=f'{DEVICES}4')
  assert_same_run(tmp_path, straight_long, tolerance=1e-3)


@pytest.mark.slow
def test_one_that_is_told_to_leave_takes_the_others_along(corpus, straight_long, tmp_path):
  mesh = {'run__mesh__data': 2, 'run__mesh__fsdp': 2}
  command = [*run_fixtures.flags(corpus, 't5', **LONG, **mesh), f'--workdir={tmp_path}']
  processes = start_all([command] * 2, 2)
  try:
    wait_for((tmp_path / 'metrics.jsonl').exists, processes[0])
    processes[1].terminate()
    outputs = [process.communicate(timeout=120)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert all('the same command resumes' in output for output in outputs)
  assert not (tmp_path / 'done.json').exists()
  train(tmp_path, run_fixtures.flags(corpus, 't5', **LONG))
  assert_same_run(tmp_path, straight_long, tolerance=1e-3)


@pytest.mark.slow
def test_a_process_that_hangs_is_named_with_the_step_by_the_others(corpus, tmp_path):
  given = run_fixtures.flags(
    corpus, 't5', **LONG, run__patience=45.0
  )  # to begin with, on a machine that is busy
  processes = start_all([[*given, f'--workdir={tmp_path}']] * 2, 1)
  try:
    wait_for((tmp_path / 'metrics.jsonl').exists, processes[0], seconds=240)
    processes[1].send_signal(signal.SIGSTOP)
    said = processes[0].communicate(timeout=150)[0]
  finally:
    for process in processes:
      process.kill()
  assert processes[0].returncode == exits.STOPPED, said
  assert 'process 0 of 2 on ' in said and ' hangs: step ' in said
  silent = f'nothing is heard of process 1 of 2 on {socket.gethostname()} (pid {processes[1].pid})'
  assert silent in said


def test_processes_that_disagree_are_refused_with_the_difference(corpus, tmp_path):
  workdir = f'--workdir={tmp_path}'
  commands = [[*run_fixtures.flags(corpus, steps=steps), workdir] for steps in (12, 13)]
  processes = start_all(commands, 1)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [2, 2]
  for output in outputs:
    assert 'processes 0 and 1 disagree about the config' in output and 'steps: 12 -> 13' in output
  assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_what_process_0_alone_finds_ends_all(corpus, straight, tmp_path):
  command = [*run_fixtures.flags(corpus, 't5', steps=21), f'--workdir={straight}']
  processes = start_all([command] * 2, 1)
  outputs = join(processes, timeout=60)
  assert [process.returncode for process in processes] == [2, 2]
  assert all('holds a run with another config' in output for output in outputs)


GONE = (  # texts of jaxlib
  'UNKNOWN: Gloo AllGather failed: [gloo/transport/tcp/pair.cc:547] Connection closed by peer',
  'UNKNOWN: Gloo context initialization failed: [pair.cc] connect: Connection refused',
  'Gloo all-reduce failed: Read error [127.0.0.1]:50123: Connection reset by peer',
  'Gloo ReduceScatter timed out: 30 s',
  'UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was preempted',
  'DEADLINE_EXCEEDED: Barrier timed out. Id: async_write_complete.7',
  'INTERNAL: Barrier failed because: task 1 is unhealthy',
  'The following tasks are unhealthy (stopped sending heartbeats):',
  'ABORTED: Coordination service has stopped. RecordHeartbeat() from task: 1',
)
MISTAKES = (  # which words alone would take for the others
  'steps is -1; it must be at least 1.',
  'no folder /data/peers/UNAVAILABLE: give the path of an existing folder of text files.',
  "--patience=timed out is not a number; the others' heartbeat is 30 s.",
  "no corpus 'gloo'; the coordination service of /mnt/peer is not needed.",
  'https://example.org: Connection refused. Name another host.',
)


@pytest.mark.parametrize('text', GONE)
def test_an_error_of_a_process_that_has_gone_is_one(text):
  caused = ValueError('the checkpoint is not written')
  caused.__cause__ = RuntimeError(text)
  assert multiprocess.lost_peer(RuntimeError(text)) and multiprocess.lost_peer(caused)


@pytest.mark.parametrize('text', [  # of orbax
  'Timed out while waiting for async_write_complete barrier.',
  'Timed out after 600.0 seconds.',
  'ChainedFuture completed 1/2 futures but timed out after 600.0 seconds.',
  "Timeout waiting at barrier 'x'. The original error raised was: INTERNAL",
  "Timeout waiting for key 'x'",
  'Thread commit did not complete within 600 seconds.',
])  # fmt: skip
def test_a_wait_of_orbax_in_vain_is_one_and_the_same_text_of_another_error_is_none(text):
  assert multiprocess.lost_peer(TimeoutError(text))
  assert not multiprocess.lost_peer(ValueError(text))


def test_a_time_out_of_a_socket_or_a_file_is_none():
  of_file = TimeoutError(110, 'Connection timed out', '/data/peer')
  for error in (TimeoutError('The read operation timed out'), of_file, TimeoutError()):
    assert not multiprocess.lost_peer(error)


def test_a_wait_in_vain_is_one_unless_the_error_hides_it():
  handled = ValueError('steps is -1')
  handled.__context__ = TimeoutError('Timed out while waiting for async_write_complete barrier.')
  assert multiprocess.lost_peer(handled.__context__) and multiprocess.lost_peer(handled)
  handled.__suppress_context__ = True  # raise ... from None
  assert not multiprocess.lost_peer(handled)


@pytest.mark.parametrize('text', MISTAKES)
def test_a_mistake_is_none(text):
  caused = ValueError(text)
  caused.__cause__ = FileNotFoundError(2, 'No such file or directory', '/data/peer/heartbeat')
  assert not multiprocess.lost_peer(caused)
  assert not multiprocess.lost_peer(OSError(28, 'No space left on device'))


FIRST = """
import sys
from gcsfs.retry import HttpError
from pe_research.machines import cluster, exits, multiprocess
def work():
  raise {error}
with exits.errors():
  cluster.join(sys.argv[1])
  multiprocess.on_process_0(work)
"""


@pytest.mark.parametrize(
  ('error', 'status'),
  [("HttpError({'code': 503, 'message': 'busy'})", exits.STOPPED), ("OSError('busy')", 2)],
  ids=['bucket', 'disk'],
)
def test_what_process_0_meets_means_the_same_for_all(error, status):
  code, among = FIRST.format(error=error), f'127.0.0.1:{free_port()},2'
  processes = [run_fixtures.start('-c', code, f'{among},{rank}') for rank in range(2)]
  outputs = join(processes, timeout=100)
  assert [process.returncode for process in processes] == [status] * 2, outputs
  assert all('busy' in output for output in outputs)


@pytest.mark.slow
def test_a_workdir_that_cannot_be_written_is_refused_by_all(corpus):
  command = [*run_fixtures.flags(corpus), '--workdir=/proc/nowhere/run']
  processes = start_all([command] * 2, 1)
  outputs = join(processes, timeout=60)
  assert [process.returncode for process in processes] == [2, 2]
  assert all('error: ' in output and '/proc/nowhere' in output for output in outputs)


def test_processes_of_other_code_are_refused_with_the_difference(corpus, tmp_path):
  """The second as it would be with another commit on its machine."""
  own = """
import runpy
from pe_research.common import provenance
own = provenance.provenance()
provenance.provenance = lambda: own | {'code': 'of another commit'}
runpy.run_module('pe_research.main', run_name='__main__')
"""
  flags = [*run_fixtures.flags(corpus), f'--workdir={tmp_path}']
  among = f'--distributed=127.0.0.1:{free_port()},2'
  processes = [
    run_fixtures.start(*start, *flags, f'{among},{rank}')
    for rank, start in enumerate([COMMAND, ('-c', own)])
  ]
  outputs = join(processes, timeout=60)
  assert [process.returncode for process in processes] == [2, 2]
  wanted = 'processes 0 and 1 disagree about code and versions'
  assert all(wanted in output and 'of another commit' in output for output in outputs)


def test_a_workdir_that_is_not_shared_is_refused(corpus, tmp_path):
  commands = [[*run_fixtures.flags(corpus), f'--workdir={tmp_path / name}'] for name in 'ab']
  processes = start_all(commands, 1)
  outputs = join(processes)
  assert [process.returncode for process in processes] == [2, 2]
  assert all('is not the same directory on process 1 as on process 0' in o for o in outputs)
  assert not list(tmp_path.glob('*/*'))


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_processes_that_never_come_are_given_up(rank, corpus, tmp_path):
  flags = [*run_fixtures.flags(corpus), f'--workdir={tmp_path}', '--wait=3']
  start = time.monotonic()
  done = run_fixtures.run(*COMMAND, *flags, f'--distributed=127.0.0.1:{free_port()},2,{rank}')
  assert (
    done.returncode == exits.STOPPED
    and 'was not reached by all processes within 3 s' in done.stderr
  )
  assert time.monotonic() - start < 90


def test_a_port_that_is_taken_is_named(corpus, tmp_path):
  with socket.socket() as taken:
    taken.bind(('', 0))
    taken.listen()
    port = taken.getsockname()[1]
    command = (*run_fixtures.flags(corpus), f'--workdir={tmp_path}')
    done = run_fixtures.run(*COMMAND, *command, f'--distributed=127.0.0.1:{port},2,0')
  assert done.returncode == 2 and f'port {port} of this machine is in use' in done.stderr


NONE = ('x', '1.2.3.4:80,2', '1.2.3.4:80,2,2', '1.2.3.4,2,0', 'a:b,2,0', 'a:99999,2,0')


@pytest.mark.spread(3)
@pytest.mark.parametrize('how', NONE)
def test_addresses_that_are_none_are_refused(how, corpus, tmp_path):
  done = run_fixtures.run(
    *COMMAND, *run_fixtures.flags(corpus), f'--workdir={tmp_path}', f'--distributed={how}'
  )
  assert done.returncode == 2 and 'write ADDRESS:PORT,PROCESSES,RANK' in done.stderr


@pytest.fixture(scope='module')
def rope(corpus, tmp_path_factory):
  """A run that may be stretched."""
  return train(tmp_path_factory.mktemp('rope'), run_fixtures.flags(corpus, 'rope', steps=4))


def stretched(rope, into):
  """Arguments of a measurement of that run under YaRN, on sequences of up to 256 tokens."""
  return [
    f'--workdir={rope}', '--position=yarn:factor=4', f'--into={into}', '--lengths=64,256',
    '--windows=3', '--targets=8', '--protocols=fixed_targets,by_position',
  ]  # fmt: skip


@pytest.fixture(scope='module')
def alone(rope, tmp_path_factory):
  """Its rows, as one device measures them."""
  into = tmp_path_factory.mktemp('alone')
  done = run_fixtures.run('-m', 'pe_research.evaluate', *stretched(rope, into))
  assert done.returncode == 0, done.stderr
  return rows(into)


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
def test_a_sequence_is_shared_by_the_devices_of_several_processes(count, rope, alone, tmp_path):
  command = [*stretched(rope, tmp_path), '--mesh=context=8']
  several = start_all([command] * count, 8 // count, 'pe_research.evaluate')
  outputs = join(several)
  assert [process.returncode for process in several] == [0] * count, outputs
  assert 'fixed_targets' in outputs[0] and all('nats' not in output for output in outputs[1:])
  found = rows(tmp_path)
  assert len(found) == len(alone) == 4
  for row, wanted in zip(found, alone, strict=True):
    assert row[0] == wanted[0] and row[2] == wanted[2]
    assert row[1] == pytest.approx(wanted[1], rel=1e-6)


@pytest.mark.slow
def test_candidates_of_a_search_are_shared_by_the_devices_of_several_processes(rope, tmp_path):
  command = [
    f'--run={rope}', '--factor=4', '--method=random', '--population=8', '--mutations=5',
    '--iterations=1', '--documents=2', '--held-out=2', '--batch-tokens=1',
  ]  # fmt: skip
  one = run_fixtures.run('-m', 'pe_research.search', *command, f'--workdir={tmp_path / "one"}')
  assert one.returncode == 0, one.stderr
  both = [*command, f'--workdir={tmp_path / "two"}']
  several = start_all([both] * 2, 2, 'pe_research.search')
  outputs = join(several)
  assert [process.returncode for process in several] == [0, 0], outputs
  assert 'held out' in outputs[0] and 'nats' not in outputs[1]
  tried = [_tried(tmp_path / name) for name in ('one', 'two')]
  assert [key for key, _ in tried[0]] == [key for key, _ in tried[1]] and len(tried[0]) > 10
  losses = [[loss for _, loss in each] for each in tried]
  assert losses[1] == pytest.approx(losses[0], rel=1e-6)
  wanted, found = (files.read_json(tmp_path / name / 'factors.json') for name in ('one', 'two'))
  for name, loss in wanted['losses'].items():
    assert found['losses'][name] == pytest.approx(loss, rel=1e-6)


def _tried(workdir):
  written = files.read_rows(workdir / 'evaluations.jsonl')
  return [
    ((*factors, start), loss) for row in written for factors, start, loss in row['candidates']
  ]
