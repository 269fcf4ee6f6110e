"""Whole processes: killed, stopped, on other numbers of devices, and two at once."""

import math
import time

import decoder_fixtures as fixtures
import pytest
import run_fixtures
from process_fixtures import COMMAND, DEVICES, LONG, assert_same_run, rows, state, train, wait_for

from pe_research.storage import locks

EIGHT, FOUR = f'{DEVICES}8', f'{DEVICES}4'


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.fixture(scope='module')
def straight(corpus, tmp_path_factory):
  """The workdir of a run on one device that nothing happened to."""
  return train(tmp_path_factory.mktemp('straight'), run_fixtures.flags(corpus, 't5'))


@pytest.fixture(scope='module')
def straight_long(corpus, tmp_path_factory):
  """The same, of 400 steps."""
  return train(tmp_path_factory.mktemp('long'), run_fixtures.flags(corpus, 't5', **LONG))


def test_kill_in_the_middle_of_a_save_loses_nothing(corpus, straight, tmp_path):
  flags = [*run_fixtures.flags(corpus, 't5'), f'--workdir={tmp_path}']
  process = run_fixtures.start(*COMMAND, *flags)
  folder = tmp_path / 'checkpoints'
  partial = lambda: folder.exists() and any('tmp' in p.name for p in folder.iterdir())
  wait_for(partial, process)
  process.kill()
  process.wait()
  assert not (tmp_path / 'done.json').exists()
  train(tmp_path, run_fixtures.flags(corpus, 't5'))
  assert state(tmp_path) == state(straight)
  assert rows(tmp_path) == rows(straight)
  assert run_fixtures.losses(tmp_path) == run_fixtures.losses(straight)


def stop_in_the_middle(workdir, flags, times=1, **environment):
  """Starts a run and asks it to stop, so many times in a row."""
  process = run_fixtures.start(*COMMAND, *flags, f'--workdir={workdir}', **environment)
  wait_for(lambda: (workdir / 'metrics.jsonl').exists(), process)
  for _ in range(times):
    process.terminate()
    time.sleep(0.03)  # signals that come at once are one
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 0 and 'the same command resumes' in out, out
  assert not (workdir / 'done.json').exists()


@pytest.mark.slow  # the first tier has it in one process, and on other devices
@pytest.mark.parametrize('times', [1, 2])
def test_sigterm_exits_cleanly_and_the_same_command_goes_on(times, corpus, straight_long, tmp_path):
  flags = run_fixtures.flags(corpus, 't5', **LONG)
  stop_in_the_middle(tmp_path, flags, times)
  assert state(train(tmp_path, flags)) == state(straight_long)


def test_a_second_process_in_the_same_workdir_is_refused(corpus, tmp_path):
  flags = [*run_fixtures.flags(corpus, 't5'), f'--workdir={tmp_path}']
  with locks.claim(tmp_path):
    second = run_fixtures.run(*COMMAND, *flags)
  assert second.returncode == 2 and 'is in use by process' in second.stderr
  assert not (tmp_path / 'config.json').exists()


MESHES = {
  'data, fsdp and tensor': {'run__mesh__fsdp': 2, 'run__mesh__tensor': 2},
  'data': {},
  'fsdp': {'run__mesh__data': 1, 'run__mesh__fsdp': 8},
}


@pytest.mark.parametrize('mesh', fixtures.slow_but([*MESHES][:1], MESHES))
def test_eight_devices_equal_one(mesh, corpus, straight, tmp_path):
  flags = run_fixtures.flags(corpus, 't5', **MESHES[mesh])
  assert_same_run(train(tmp_path, flags, XLA_FLAGS=EIGHT), straight)


@pytest.mark.slow
def test_kernel_is_split_over_rows_and_heads(corpus, straight, tmp_path):
  flags = run_fixtures.flags(
    corpus, 't5', run__mesh__tensor=2, run__mesh__fsdp=2,
    attention__implementation='interpreted', eval__implementation='interpreted',
  )  # fmt: skip
  losses = run_fixtures.losses(train(tmp_path, flags, XLA_FLAGS=FOUR))
  expected = run_fixtures.losses(straight)
  assert all(math.isclose(losses[s], expected[s], rel_tol=1e-5) for s in expected)
  for row, wanted in zip(rows(tmp_path), rows(straight), strict=True):
    assert math.isclose(row[1], wanted[1], rel_tol=1e-5)


def test_heads_that_do_not_split_are_refused_for_the_kernel(corpus, tmp_path):
  flags = run_fixtures.flags(
    corpus, run__mesh__tensor=2, model__projection='mqa', attention__implementation='interpreted'
  )
  done = run_fixtures.run(*COMMAND, *flags, f'--workdir={tmp_path}', XLA_FLAGS=FOUR)
  assert done.returncode == 2 and '1 key heads do not split over run.mesh.tensor=2' in done.stderr
  assert not (tmp_path / 'run.json').exists()


def test_a_run_goes_on_on_other_devices_with_the_same_data(corpus, straight_long, tmp_path):
  flags = run_fixtures.flags(corpus, 't5', **LONG)
  stop_in_the_middle(tmp_path, flags, XLA_FLAGS=EIGHT)
  assert_same_run(train(tmp_path, flags), straight_long, tolerance=1e-3)
