"""Handing shares to an engine: each once, until it is done, and what is refused is said."""

import pytest
from failing_jobs import launch, make, write

PROGRAMS = ('sbatch', 'srun', 'scontrol', 'sinfo')


@pytest.fixture
def cluster(tmp_path):
  """A path of settings for Slurm, whose programs keep what they are handed; see `submit`."""
  for name in PROGRAMS:
    (tmp_path / name).write_text(
      f'#!/bin/sh\n[ -e {tmp_path}/{name}.refuses ] && exit 3\n'
      f'[ {name} != sbatch ] || cat $1 > {tmp_path}/got\n'
    )
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'logs').mkdir()
  (tmp_path / 'slurm.toml').write_text(
    f'engine = "slurm"\nsweep = "alibi"\npartition = "gpu"\nlogs = "{tmp_path}/logs"\njobs = 2\n'
  )
  return tmp_path / 'slurm.toml'


def submit_jobs(command, path, cluster, *more, programs=''):
  """Runs `launch submit` or `launch retry` beside such programs, or beside others."""
  there = programs or f'{cluster.parent}:/usr/bin:/bin'
  return launch(command, path, f'--on={cluster}', *more, PATH=there)


def array(cluster) -> str:
  """The shares that were handed in last."""
  lines = (cluster.parent / 'got').read_text().splitlines()
  return next(line for line in lines if '--array' in line).removeprefix('#SBATCH --array=')


def test_programs_credentials_and_folders_are_asked_for_before_anything_is_created(
  cluster, tmp_path
):
  path = write(tmp_path, [make(tmp_path, 'a')])
  done = submit_jobs('submit', path, cluster, programs=f'{tmp_path}/logs')
  assert done.returncode == 2 and 'slurm needs sbatch, srun, scontrol on PATH' in done.stderr
  (tmp_path / 'sinfo.refuses').touch()
  done = submit_jobs('submit', path, cluster)
  assert done.returncode == 2 and 'Sign in first. Nothing was created.' in done.stderr
  (tmp_path / 'sinfo.refuses').unlink()
  (tmp_path / 'logs').rmdir()
  done = submit_jobs('submit', path, cluster)
  assert done.returncode == 2 and f'mkdir -p {tmp_path}/logs' in done.stderr
  assert not (tmp_path / 'got').exists()


def test_a_share_is_handed_in_until_it_is_done(cluster, tmp_path):
  made = [make(tmp_path, f'job{i}') for i in range(6)]
  path = write(tmp_path, made)
  assert submit_jobs('submit', path, cluster).returncode == 0 and array(cluster) == '0,1,2%8'
  assert launch('run', path, '--share=1/3').returncode == 0
  shown = submit_jobs('submit', path, cluster, '--dry-run')
  assert '--array=0,2%8' in shown.stdout and array(cluster) == '0,1,2%8'
  assert submit_jobs('submit', path, cluster).returncode == 0 and array(cluster) == '0,2%8'
  assert launch('run', path).returncode == 0
  (tmp_path / 'got').unlink()
  done = submit_jobs('submit', path, cluster)
  assert done.returncode == 0 and done.stdout == 'all jobs are done\n'
  assert not (tmp_path / 'got').exists()


def test_a_retry_hands_in_what_began_and_did_not_end_well(cluster, tmp_path):
  made = [make(tmp_path, f'job{i}') for i in range(6)]
  path = write(tmp_path, made)
  done = submit_jobs('retry', path, cluster)
  assert done.stdout.startswith('0 of 6 jobs') and not (tmp_path / 'got').exists()
  (made[0].folder / 'fate').write_text('stop')
  (made[5].folder / 'fate').write_text('crash')
  launch('run', path, '--share=0/3')
  launch('run', path, '--share=2/3')
  done = submit_jobs('retry', path, cluster)
  assert done.returncode == 0 and done.stdout.startswith('2 of 6 jobs to run again: job0, job5')
  assert array(cluster) == '0,2%8'
  # Both are in the queue until they begin, or end once more.
  (tmp_path / 'got').unlink()
  done = submit_jobs('retry', path, cluster)
  assert 'left in the queue (--again submits it once more): job0, job5\n' in done.stdout
  assert done.returncode == 0 and '\n0 of 6 jobs to run again: none\n' in done.stdout
  assert not (tmp_path / 'got').exists()
  (made[0].folder / 'fate').write_text('crash')
  launch('run', path, '--share=0/3')
  shown = submit_jobs('retry', path, cluster, '--dry-run').stdout
  assert shown.startswith('# submitted since') and '--array=0%8' in shown
  assert '--array=0,2%8' in submit_jobs('retry', path, cluster, '--again', '--dry-run').stdout
  done = submit_jobs('retry', path, cluster, '--workers=2')
  assert done.returncode == 2 and '--workers is for jobs on this machine' in done.stderr


def test_an_engine_that_refuses_is_reported(cluster, tmp_path):
  path = write(tmp_path, [make(tmp_path, 'a')])
  (tmp_path / 'sbatch.refuses').touch()
  done = submit_jobs('submit', path, cluster)
  assert done.returncode == 1 and 'alibi was not submitted: sbatch ended with 3' in done.stderr
  assert 'Traceback' not in done.stderr and 'submitted' not in done.stdout
