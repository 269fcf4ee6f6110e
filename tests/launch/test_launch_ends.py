"""What the end of a job means: it is done, it failed for good, or the same command goes on."""

import json
import re
import signal
import subprocess
import time

import pytest
import run_fixtures
from failing_jobs import launch, make, runs, write

from launch import job_process, job_status, local, ownership
from launch.engines import base
from pe_research.storage import files, locks


def test_a_job_that_its_watchdog_ends_goes_on_by_the_same_command(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate='hang'), make(tmp_path, 'b')])
  done = launch('run', path, '--workers=1')
  assert done.returncode == base.STOPPED and '1 of 2 jobs done' in done.stdout, done.stderr
  assert 'the same command resumes them' in done.stdout
  assert '1 done, 1 stopped' in launch('status', path).stdout
  assert launch('run', path).returncode == 0 and runs(tmp_path) == {'a': 2, 'b': 1}


@pytest.mark.parametrize(
  'fate, how, status',
  [
    ('stop', '--all-chips', base.STOPPED),  # another machine was told to leave
    ('abort', '--all-chips', base.STOPPED),  # JAX ends a process that lost its peers
    ('kill', '--all-chips', base.STOPPED),
    ('crash', '--all-chips', 1),
    ('stop', '--workers=1', base.STOPPED),
    ('kill', '--workers=1', 1),  # too large for the machine, as a rule
  ],
)
def test_ends_that_come_from_elsewhere_are_no_failures(fate, how, status, tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate=fate)])
  assert launch('run', path, how).returncode == status
  named = 'stopped' if status == base.STOPPED else 'failed'
  assert launch('status', path).stdout.endswith(f'\n1 {named}\n')
  assert launch('run', path, how).returncode == 0 and runs(tmp_path) == {'a': 2}


def test_a_job_that_stops_again_and_again_at_one_place_has_failed(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate='stop\nabort\nstop\n')])
  found = [launch('run', path, '--all-chips', '--tries=2') for _ in range(4)]
  assert [done.returncode for done in found] == [base.STOPPED, 1, base.STOPPED, 0]
  assert launch('run', path, '--tries=0').returncode == 2


def test_tries_are_counted_anew_when_a_job_gets_further(tmp_path):
  one = make(tmp_path, 'a')
  stops = lambda **more: job_status.record_exit(one, 75, resumable=True, tries=2, **more)
  at = lambda step: files.write_rows(one.folder / 'metrics.jsonl', [{'step': step, 'loss': 1.0}])
  for step in (5, 10, 15):
    at(step)
    assert stops() == job_status.STOPPED
    job_status.clear_exit(one)
  assert [stops(requested=True) for _ in range(5)] == [job_status.STOPPED] * 5
  at(12)  # thrown back to a checkpoint
  assert stops() == job_status.FAILED
  assert job_status.of(one).said.startswith('stopped 2 times at one place')
  job_status.clear_exit(one)
  assert stops() == job_status.STOPPED


def test_who_is_told_twice_to_leave_still_waits_for_what_is_saved(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate='save slowly')])
  process = run_fixtures.start('-m', 'launch', 'run', path)
  until((tmp_path / 'runs/a/ready').exists, process)
  for _ in range(2):
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == base.STOPPED and 'the same command resumes' in out
  assert (tmp_path / 'runs/a/saved').exists()
  assert '1 stopped' in launch('status', path).stdout


def test_a_signal_in_the_middle_of_a_start_comes_after_it(tmp_path, monkeypatch):
  started, popen = [], subprocess.Popen

  def slow(*given, **more):
    started.append(popen(*given, **more))
    signal.raise_signal(signal.SIGINT)
    return started[-1]

  monkeypatch.setattr(job_process.subprocess, 'Popen', slow)
  before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as a process begins
  try:
    with pytest.raises(KeyboardInterrupt):
      local.run([make(tmp_path, 'a', fate='sleep')], lambda: None, workers=1)
  finally:
    signal.signal(signal.SIGINT, before)
  assert started[0].poll() is not None  # it was told, and waited for


def test_a_disk_without_room_for_the_launcher_ends_nobody_else(tmp_path):
  made = [
    make(tmp_path, 'a', fate='no room for the launcher'), make(tmp_path, 'b', fate='room again'),
    make(tmp_path, 'c', 'b'),
  ]  # fmt: skip
  path = write(tmp_path, made)
  done = launch('run', path, '--workers=2')
  assert done.returncode == 1 and '2 of 3 jobs done' in done.stdout, done.stderr
  assert 'a: ' in done.stderr and 'log.ended cannot be written: File too large' in done.stderr
  assert runs(tmp_path) == {'a': 1, 'b': 1, 'c': 1}
  assert launch('run', path).returncode == 0 and runs(tmp_path) == {'a': 2, 'b': 1, 'c': 1}


def test_what_cannot_be_started_is_said_and_the_others_are(tmp_path):
  bad, good = make(tmp_path, 'a'), make(tmp_path, 'b')
  (bad.folder / 'log.job').mkdir()
  left = local.run([bad, good], lambda: None, workers=1)
  assert left == {'a': 'failed'} and good.done.exists()


def waits(*arguments) -> tuple[subprocess.Popen, int]:
  """A launcher that finds a job taken, and the number of the process that has it."""
  process = run_fixtures.start('-m', 'launch', *arguments)
  line = process.stdout.readline()
  found = re.search(r'is run by process (\d+) on .*; this waits for it. .* kill -9', line)
  assert found, line
  return process, int(found[1])


@pytest.mark.parametrize('how', ['--workers=1', '--all-chips'])
def test_a_second_launcher_waits_and_says_for_whom(how, tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate='sleep')])
  first = run_fixtures.start('-m', 'launch', 'run', path, how)
  until(lambda: runs(tmp_path), first)
  second, pid = waits('run', path, how)
  subprocess.run(['kill', '-9', str(pid)], check=True)
  assert second.communicate(timeout=60) and second.returncode == 0
  first.communicate(timeout=60)
  assert first.returncode == (base.STOPPED if how == '--all-chips' else 1)
  assert runs(tmp_path) == {'a': 2}


def test_a_job_outlives_its_launcher_and_is_still_taken(tmp_path):
  one = make(tmp_path, 'a', fate='sleep')
  path = write(tmp_path, [one])
  first = run_fixtures.start('-m', 'launch', 'run', path)
  until(lambda: runs(tmp_path), first)
  first.kill()
  first.wait()
  assert ownership.take(one) is None
  second, pid = waits('run', path)
  subprocess.run(['kill', '-9', str(pid)], check=True)
  assert second.communicate(timeout=60) and second.returncode == 0
  assert runs(tmp_path) == {'a': 2}


def test_a_job_whose_folder_another_process_has_did_not_fail(tmp_path):
  code = (
    'from pe_research.machines import exits; from pe_research.storage import locks; '
    'import pathlib, sys\n'
    'with exits.errors(), locks.claim(pathlib.Path(sys.argv[1])): pass'
  )
  one = make(tmp_path, 'a')
  one = type(one)(one.name, ('-c', code, str(one.folder)), one.log, one.done)
  with locks.claim(one.folder):
    assert local.run([one], lambda: None, workers=1) == {'a': job_status.RUNNING}
    assert local.run_on_all_chips([one]) == {'a': job_status.RUNNING}
  assert job_status.of(one).name != job_status.FAILED


def test_each_machine_has_a_log_and_marks_of_its_own(tmp_path):
  one = make(tmp_path, 'a', fate='crash\n')
  assert local.run_on_all_chips([one], rank=1) == {'a': job_status.FAILED}
  assert job_status.of(one).name != job_status.FAILED and not one.log.exists()
  assert 'it crashed' in (one.folder / 'log-1.txt').read_text()
  assert json.loads((one.folder / 'log-1.ended').read_text())['status'] == 1


def until(happened, process, seconds=60):
  deadline = time.monotonic() + seconds
  while not happened():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.05)
