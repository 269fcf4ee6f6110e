"""Sweeps in a bucket, where nothing can be locked: a job is leased, and engines see the jobs."""

import re
import signal
import subprocess
import sys
import time

import pytest
import run_fixtures
from etils import epath

from launch import job, job_status, ownership
from launch.engines import base
from launch.job import Job
from pe_research.storage import bucket as leases

emulated_bucket = pytest.importorskip('emulated_bucket')
bucket = emulated_bucket.bucket


@pytest.fixture(autouse=True)
def no_google(monkeypatch):
  """Credentials are not looked for where there are none, which takes seconds each time."""
  monkeypatch.setenv('NO_GCE_CHECK', 'true')


WORK = """
import pathlib, sys, time
from etils import epath
with (pathlib.Path(sys.argv[2]) / 'ran').open('a') as file: file.write(sys.argv[1] + '\\n')
print('it began', flush=True)
time.sleep(float(sys.argv[3]))
(epath.Path(sys.argv[1]) / 'done.json').write_text('1')
"""


def sweep(bucket, name, local, count, seconds=0.0) -> tuple[str, list[Job]]:
  """The path of a file of jobs in the bucket, which note on this machine that they ran."""
  root = epath.Path(f'{bucket}/{name}')
  made = []
  for i in range(count):
    folder = root / 'runs' / str(i)
    work = ('-c', WORK, str(folder), str(local), str(seconds), str(i))
    made.append(Job(f'job{i}', work, folder / 'log.txt', folder / 'done.json'))
  job.write(root / 'jobs.json', made)
  return str(root / 'jobs.json'), made


def ran(local) -> list[str]:
  """Numbers of the jobs that ran, in their order."""
  noted = (local / 'ran').read_text() if (local / 'ran').exists() else ''
  return [line.rpartition('/')[2] for line in noted.splitlines()]


def start(out, *arguments, **environment) -> subprocess.Popen:
  """Starts `launch run`; gcsfs says more than a pipe holds that nobody reads."""
  with out.open('w') as file:
    return subprocess.Popen(
      [sys.executable, '-m', 'launch', 'run', *arguments], cwd=run_fixtures.ROOT,
      stdout=file, stderr=file, env=run_fixtures.environment(**environment),
    )  # fmt: skip


def test_a_job_is_leased_to_one_launcher_until_that_is_silent(bucket, tmp_path, monkeypatch):
  _, (one,) = sweep(bucket, 'leased', tmp_path, 1)
  first = ownership.take(one)
  first.note(4711)
  assert ownership.take(one) is None and ownership.owner(one).startswith('process 4711 on ')
  assert first.renew()
  with monkeypatch.context() as patch:  # a machine whose clock is ahead
    ahead = time.time() + 10_000
    patch.setattr(time, 'time', lambda: ahead)
    assert ownership.take(one) is None
  monkeypatch.setattr(leases, 'RENEW', 0.0)
  assert first.renew()
  monkeypatch.setattr(leases, 'LEASE', 0.0)
  second = ownership.take(one)
  assert second is not None and not first.renew()
  first.close()
  assert second.renew()
  second.close()
  monkeypatch.setattr(leases, 'LEASE', 120.0)
  assert ownership.take(one) is not None


def test_two_launchers_share_the_jobs_of_a_bucket(bucket, tmp_path):
  path, made = sweep(bucket, 'shared', tmp_path, 4, seconds=1.0)
  both = [
    start(tmp_path / f'{rank}.txt', path, '--workers=1', '--hosts=2', PE_RANK=str(rank))
    for rank in range(2)
  ]
  assert [process.wait(timeout=200) for process in both] == [0, 0]
  assert sorted(ran(tmp_path)) == list('0123') and all(one.done.exists() for one in made)


def test_what_an_interrupted_job_said_reaches_the_bucket(bucket, tmp_path):
  path, (one,) = sweep(bucket, 'interrupted', tmp_path, 1, seconds=600.0)
  process = start(tmp_path / 'out.txt', path)
  deadline = time.monotonic() + 200
  while not ran(tmp_path):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=200) == base.STOPPED
  assert 'it began' in one.log.read_text() and job_status.of(one).name == job_status.STOPPED
  assert ownership.take(one) is not None


KUBECTL = """#!/bin/sh
test "$3" = get && exit
basename "$5" >> {0}/got
case "$5" in *-$(cat {0}/bad).yaml) exit 4;; esac
"""


@pytest.fixture
def cluster(tmp_path):
  """Settings of a cluster, and a kubectl that refuses the share whose number is in `bad`."""
  names = ('context', 'queue', 'accelerator', 'image')
  (tmp_path / 'v5e.toml').write_text(
    'engine = "jobset"\nsweep = "alibi"\ntopology = "2x2"\n'
    + ''.join(f'{name} = "mine"\n' for name in names)
  )
  (tmp_path / 'kubectl').write_text(KUBECTL.format(tmp_path))
  (tmp_path / 'kubectl').chmod(0o755)
  (tmp_path / 'bad').write_text('1')
  return tmp_path


def test_a_share_that_is_refused_does_not_keep_back_the_others(bucket, cluster):
  path, made = sweep(bucket, 'handed in', cluster, 3)
  submit_jobs = lambda command, *more: run_fixtures.run(
    '-m',
    'launch',
    command,
    path,
    f'--on={cluster}/v5e.toml',
    *more,
    PATH=f'{cluster}:/usr/bin:/bin',
  )
  handed_in = lambda: (cluster / 'got').read_text().split()
  done = submit_jobs('submit')
  assert done.returncode == 1 and 'alibi-1 was not submitted: kubectl ended with 4' in done.stderr
  assert 'alibi-2 submitted' in done.stdout
  assert handed_in() == [f'alibi-{i}.yaml' for i in range(3)]
  (cluster / 'bad').write_text('none')
  job_status.record_exit(made[1], 1, resumable=False, tries=3)
  job_status.record_exit(made[2], 75, resumable=True, tries=3)
  shown = submit_jobs('retry', '--dry-run')
  names = ['alibi-1.yaml', 'alibi-2-2.yaml']  # the first was never taken
  assert re.findall(r'apply -f (\S+)', shown.stdout) == names
  assert submit_jobs('retry').returncode == 0 and handed_in()[3:] == names


def test_jobs_of_this_machine_are_refused_before_anything_is_created(cluster):
  one = Job('a', ('-c', 'x'), cluster / 'a' / 'log.txt', cluster / 'a' / 'done.json')
  job.write(cluster / 'jobs.json', [one])
  done = run_fixtures.run(
    '-m', 'launch', 'submit', cluster / 'jobs.json', f'--on={cluster}/v5e.toml', '--dry-run',
  )  # fmt: skip
  assert done.returncode == 2 and '--jobs=gs://BUCKET' in done.stderr and not done.stdout
  assert not (cluster / 'got').exists()
