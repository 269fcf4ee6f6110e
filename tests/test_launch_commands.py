"""`python -m launch`: a sweep full of faults loses nothing and repeats nothing."""

import json
import os
import pathlib
import signal
import time

import pytest
import small

from launch import engine, job, state
from launch.job import Job

# Notes that it ran, then does as its folder's `fate` says, once: a second start does its work.
WORK = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / 'ran').open('a') as file: file.write('ran\\n')
(folder / 'metrics.jsonl').write_text(json.dumps({'step': 7, 'loss': 1.25}) + '\\n')
fate = folder / 'fate'
if fate.exists():
  what = fate.read_text()
  fate.unlink()
  if what == 'crash': sys.exit('it crashed')
  if what == 'full': raise OSError(28, 'No space left on device')
  if what == 'kill': os.kill(os.getpid(), 9)
  if what == 'hang': time.sleep(600)
print('done')
(folder / 'done.json').write_text('1')
"""


def make(root: pathlib.Path, name: str, *after: str, fate: str = '') -> Job:
  folder = root / 'runs' / name
  folder.mkdir(parents=True, exist_ok=True)
  if fate:
    (folder / 'fate').write_text(fate)
  needs = tuple(root / 'runs' / other / 'done.json' for other in after)
  return Job(name, ('-c', WORK, str(folder), name), folder / 'log.txt', folder / 'done.json', needs)


def write(root: pathlib.Path, jobs) -> str:
  job.write(root / 'jobs.json', jobs)
  return str(root / 'jobs.json')


def launch(*arguments, **environment):
  return small.run('-m', 'launch', *map(str, arguments), **environment)


def runs(root: pathlib.Path) -> dict[str, int]:
  """How often each job ran."""
  return {path.parent.name: len(path.read_text().split()) for path in root.glob('runs/*/ran')}


def test_twenty_jobs_with_faults_in_them_are_all_done_and_none_twice(tmp_path):
  fates = {3: 'crash', 7: 'full', 12: 'kill', 15: 'crash'}
  made = [make(tmp_path, f'job{i}', fate=fates.get(i, '')) for i in range(19)]
  made.append(make(tmp_path, 'last', 'job3', 'job4'))
  path = write(tmp_path, made)
  done = launch('run', path, '--workers=2')
  assert done.returncode == 1 and '15 of 20 jobs done' in done.stdout
  for name, said in (('job3', 'it crashed'), ('job7', 'No space left'), ('job12', 'job12 failed')):
    assert name in done.stderr and said in done.stderr
  shown = launch('status', path)
  assert shown.returncode == 1 and shown.stdout.endswith('15 done, 4 failed, 1 waiting\n')
  before = runs(tmp_path)
  assert set(before.values()) == {1} and 'last' not in before
  again = launch('retry', path)
  assert again.returncode == 0 and again.stdout.startswith('5 of 20 jobs to run again: job3')
  assert runs(tmp_path) == before | {f'job{i}': 2 for i in fates} | {'last': 1}
  assert launch('status', path).stdout.endswith('\n20 done\n')
  assert launch('run', path).returncode == launch('retry', path).returncode == 0
  assert sum(runs(tmp_path).values()) == 24


def test_a_hang_is_seen_stopped_and_gone_on_with(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a'), make(tmp_path, 'b', fate='hang')])
  process = small.start('-m', 'launch', 'run', path, '--workers=2')
  deadline = time.monotonic() + 60
  while (
    not (tmp_path / 'runs/b/metrics.jsonl').exists() or not (tmp_path / 'runs/a/done.json').exists()
  ):
    assert time.monotonic() < deadline
    time.sleep(0.05)
  assert '1 done, 1 running' in launch('status', path).stdout
  for sign in (tmp_path / 'runs/b').iterdir():
    os.utime(sign, (1e9, 1e9))
  shown = launch('status', path).stdout
  assert '1 done, 1 stalled' in shown and '7  1.2500' in shown
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == engine.STOPPED and 'the same command goes on' in out
  assert launch('retry', path).returncode == 0 and runs(tmp_path) == {'a': 1, 'b': 2}


def test_machines_take_parts_that_together_are_the_whole(tmp_path):
  path = write(tmp_path, [make(tmp_path, f'job{i}') for i in range(7)])
  said = [
    launch('run', path, f'--share={i}/2', '--hosts=2', PE_RANK=str(rank)).stdout
    for i in range(2)
    for rank in range(2)
  ]
  assert sorted(said) == ['1 of 1 jobs done\n', *['2 of 2 jobs done\n'] * 3]
  assert runs(tmp_path) == {f'job{i}': 1 for i in range(7)}


def test_machines_that_work_together_do_the_same_jobs_in_their_order(tmp_path):
  made = [make(tmp_path, 'a'), make(tmp_path, 'b', 'a', fate='crash'), make(tmp_path, 'c')]
  path = write(tmp_path, made)
  done = launch('run', path, '--together')
  assert done.returncode == 1 and 'b failed: it crashed' in done.stderr
  assert runs(tmp_path) == {'a': 1, 'b': 1}
  assert launch('run', path, '--together').returncode == 0
  assert runs(tmp_path) == {'a': 1, 'b': 2, 'c': 1}


def test_rows_come_home(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a'), make(tmp_path, 'b')])
  launch('run', path)
  assert launch('collect', path).returncode == 2
  done = launch('collect', path, f'--into={tmp_path / "home"}')
  assert done.returncode == 0
  found = {
    p.relative_to(tmp_path / 'home').as_posix() for p in (tmp_path / 'home').rglob('*.json*')
  }
  assert found == {f'{name}/{file}' for name in 'ab' for file in ('metrics.jsonl', 'done.json')}


@pytest.mark.parametrize('share', ['3', '2/2', '-1/2', 'a/b'])
def test_shares_that_are_none_are_refused(share, tmp_path):
  done = launch('run', tmp_path / 'jobs.json', f'--share={share}')
  assert done.returncode == 2 and 'write 3/8 for the fourth of 8' in done.stderr


def test_a_file_of_jobs_that_is_not_there_is_named(tmp_path):
  done = launch('status', tmp_path / 'jobs.json')
  assert done.returncode == 2 and 'does not exist; write it with --jobs=' in done.stderr


def test_a_state_is_what_the_files_say(tmp_path):
  one = make(tmp_path, 'a')
  assert state.of(one) == state.State(state.WAITING)
  (one.folder / 'heartbeat-0.json').write_text('{}')
  now = (one.folder / 'heartbeat-0.json').stat().st_mtime
  assert state.of(one, 60, now + 59).name == state.RUNNING
  assert state.of(one, 60, now + 61) == state.State(state.STALLED, age=61)
  rows = [{'step': 5, 'loss': 2.5}, {'step': 6, 'validation_loss': 9.0}]
  (one.folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert (state.of(one).step, state.of(one).loss) == (5, 2.5)
  one.log.write_text('first\nout of memory\n')
  state.mark_failed(one, 1)
  assert state.of(one).name == state.FAILED and state.of(one).said == 'out of memory'
  one.done.write_text('1')
  assert state.of(one).name == state.DONE
