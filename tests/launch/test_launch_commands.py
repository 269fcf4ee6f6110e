"""`python -m launch`: a sweep full of faults loses nothing and repeats nothing."""

import json
import os
import signal
import subprocess
import time

import pytest
import run_fixtures
from failing_jobs import launch, make, runs, write

from launch import job_status
from launch.engines import base
from launch.job import Job


def test_twenty_jobs_with_faults_in_them_are_all_done_and_none_twice(tmp_path):
  fates = {3: 'crash', 7: 'full', 12: 'kill', 15: 'hang', 16: 'crash'}
  made = [make(tmp_path, f'job{i}', fate=fates.get(i, '')) for i in range(19)]
  made.append(make(tmp_path, 'last', 'job3', 'job4'))
  path = write(tmp_path, made)
  done = launch('run', path, '--workers=2')
  assert done.returncode == base.STOPPED and '14 of 20 jobs done' in done.stdout, done.stderr
  for name, said in (('job3', 'it crashed'), ('job7', 'No space left'), ('job12', 'job12 failed')):
    assert name in done.stderr and said in done.stderr
  shown = launch('status', path)
  assert shown.returncode == 1
  assert shown.stdout.endswith('14 done, 1 stopped, 4 failed, 1 waiting\n'), shown.stdout
  before = runs(tmp_path)
  assert set(before.values()) == {1} and 'last' not in before
  again = launch('retry', path)
  assert again.returncode == 0
  assert again.stdout.startswith('6 of 20 jobs are not done; again: job3, job7')
  assert runs(tmp_path) == before | {f'job{i}': 2 for i in fates} | {'last': 1}
  assert launch('status', path).stdout.endswith('\n20 done\n')
  assert launch('run', path).returncode == launch('retry', path).returncode == 0
  assert sum(runs(tmp_path).values()) == 25


def test_a_hang_is_seen_stopped_and_gone_on_with(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a'), make(tmp_path, 'b', fate='sleep')])
  process = run_fixtures.start('-m', 'launch', 'run', path, '--workers=2')
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
  assert process.returncode == base.STOPPED and 'the same command resumes' in out
  assert launch('retry', path).returncode == 0 and runs(tmp_path) == {'a': 1, 'b': 2}


def test_shares_together_are_the_whole(tmp_path):
  path = write(tmp_path, [make(tmp_path, f'job{i}') for i in range(5)])
  said = [launch('run', path, f'--share={i}/2').stdout for i in range(2)]
  assert said == ['3 of 3 jobs done\n', '2 of 2 jobs done\n']
  assert runs(tmp_path) == {f'job{i}': 1 for i in range(5)}


def test_machines_that_would_share_jobs_on_a_disk_are_refused(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a')])
  done = launch('run', path, '--hosts=2', PE_RANK='0')
  assert (
    done.returncode == 2 and 'share jobs in a bucket only' in done.stderr and not runs(tmp_path)
  )


def test_machines_that_work_together_do_the_same_jobs_in_their_order(tmp_path):
  made = [make(tmp_path, 'a'), make(tmp_path, 'b', 'a', fate='crash'), make(tmp_path, 'c')]
  path = write(tmp_path, made)
  done = launch('run', path, '--all-chips')
  assert done.returncode == 1 and 'b failed: it crashed' in done.stderr
  assert '1 of 3 jobs done' in done.stdout
  assert runs(tmp_path) == {'a': 1, 'b': 1}
  assert launch('run', path, '--all-chips').returncode == 0
  assert runs(tmp_path) == {'a': 1, 'b': 2, 'c': 1}


def test_rows_come_home(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a'), make(tmp_path, 'b')])
  launch('run', path)
  done = launch('collect', path)
  assert done.returncode == 2 and 'required: --into' in done.stderr
  done = launch('collect', path, f'--into={tmp_path / "home"}', '--dry-run')
  assert f'{tmp_path}/runs/a/done.json -> {tmp_path}/home/runs/a/done.json' in done.stdout
  assert not (tmp_path / 'home').exists()
  done = launch('collect', path, f'--into={tmp_path / "home"}')
  assert done.returncode == 0
  found = {
    p.relative_to(tmp_path / 'home').as_posix() for p in (tmp_path / 'home').rglob('*.json*')
  }
  assert found == {
    f'runs/{name}/{file}' for name in 'ab' for file in ('metrics.jsonl', 'costs.jsonl', 'done.json')
  }


@pytest.mark.parametrize('how', [['--workers=2'], ['--all-chips']])
def test_a_dry_run_prints_what_a_shell_can_do_instead(how, tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a'), make(tmp_path, "it's b")])
  lines = launch('run', path, '--dry-run', *how).stdout
  assert not runs(tmp_path) and lines.count(' --distributed\n') == 2 * ('--all-chips' in how)
  subprocess.run(['bash', '-ec', lines], check=True)
  assert runs(tmp_path) == {'a': 1, "it's b": 1}
  assert launch('status', path).stdout.endswith('\n2 done\n')
  if '--workers=2' in how:
    assert 'JAX_PLATFORMS=cpu OMP_NUM_THREADS=1 taskset -c ' in lines


def test_folders_that_would_lose_their_places_are_not_brought_home(tmp_path):
  path = write(tmp_path / 'runs' / 'elsewhere', [make(tmp_path, 'a')])
  done = launch('collect', path, f'--into={tmp_path / "home"}')
  assert done.returncode == 2 and 'is not below' in done.stderr


FOREIGN = {
  'run': ['--on=v5e.toml', '--into=home', '--patience=9', '--again'],
  'submit': ['--all-chips', '--hosts=4', '--share=0/2', '--workers=3'],
  'status': ['--dry-run', '--on=v5e.toml'],
  'collect': ['--share=0/2'],
}


@pytest.mark.parametrize('flag', [(c, flag) for c, flags in FOREIGN.items() for flag in flags])
def test_flags_that_a_command_does_not_read_are_refused(flag, tmp_path):
  needed = {'submit': ['--on=v5e.toml'], 'collect': ['--into=home']}.get(flag[0], [])
  done = launch(flag[0], tmp_path / 'jobs.json', *needed, flag[1])
  assert done.returncode == 2 and f'unrecognized arguments: {flag[1]}\n' in done.stderr


@pytest.mark.parametrize('flag', ['--workers=-1', '--workers=0', '--hosts=0', '--tries=0'])
def test_numbers_that_cannot_be_are_refused(flag, tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a')])
  done = launch('run', path, flag)
  assert done.returncode == 2 and f'{flag[:-2].rstrip("=")} is ' in done.stderr
  assert not runs(tmp_path)


def test_what_waits_is_not_said_to_have_failed(tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a', fate='crash'), make(tmp_path, 'b', 'a')])
  done = launch('run', path)
  assert done.returncode == 1 and 'a failed: it crashed' in done.stderr
  assert 'b waited for one that is not done\n' in done.stderr


@pytest.mark.parametrize('share', ['3', '2/2', '-1/2', 'a/b'])
def test_shares_that_are_none_are_refused(share, tmp_path):
  done = launch('run', tmp_path / 'jobs.json', f'--share={share}')
  assert done.returncode == 2 and 'write 3/8 for the fourth of 8' in done.stderr


def test_a_file_of_jobs_that_is_not_there_is_named(tmp_path):
  done = launch('status', tmp_path / 'jobs.json')
  assert done.returncode == 2 and 'does not exist; write it with --jobs=' in done.stderr


def test_a_state_is_what_the_files_say(tmp_path):
  one = make(tmp_path, 'a')
  assert job_status.of(one) == job_status.State(job_status.WAITING)
  (one.folder / 'heartbeat-0.json').write_text('{}')
  now = (one.folder / 'heartbeat-0.json').stat().st_mtime
  assert job_status.of(one, 60, now + 59).name == job_status.RUNNING
  assert job_status.of(one, 60, now + 61) == job_status.State(job_status.STALLED, age=61)
  rows = [{'step': 5, 'loss': 2.5}, {'step': 6, 'validation_loss': 9.0}]
  (one.folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  assert (job_status.of(one).step, job_status.of(one).loss) == (5, 2.5)
  one.log.write_text('first\nout of memory\n')
  assert job_status.record_exit(one, 1, resumable=False, tries=3) == job_status.FAILED
  assert job_status.of(one).name == job_status.FAILED and job_status.of(one).said == 'out of memory'
  job_status.clear_exit(one)
  assert job_status.of(one).name == job_status.RUNNING
  one.done.write_text('1')
  assert job_status.of(one).name == job_status.DONE


def test_what_a_training_left_is_no_sign_of_its_measurement(tmp_path):
  training = make(tmp_path, 'a')
  measuring = Job(
    'a measured', ('-c', 'x'), training.folder / 'measure.txt', training.folder / 'm.json',
    (training.done,),
  )  # fmt: skip
  for name in ('done.json', 'heartbeat-0.json'):
    (training.folder / name).write_text('{}')
  (training.folder / 'metrics.jsonl').write_text('{"step": 7, "loss": 1.25}\n')
  assert job_status.of(training).step == 7
  assert job_status.of(measuring) == job_status.State(job_status.WAITING)
  measuring.log.touch()
  assert (
    job_status.of(measuring).name == job_status.RUNNING and job_status.of(measuring).step is None
  )
