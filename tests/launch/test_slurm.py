"""A sweep on a cluster of Slurm: a notice and a lost node cost no bit of the results."""

import re
import sys
import time

import process_fixtures
import pytest
import run_fixtures
import slurm_cluster

from launch import job
from launch.engines.slurm import Slurm

pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(
    not all(map(slurm_cluster.program, (*slurm_cluster.DAEMONS, *Slurm.needs))),
    reason='needs slurmctld, slurmd and munged: apt-get install slurm-wlm munge',
  ),
]
SWEEP = {'steps': 3000, 'run__save_every': 250, 'run__log_every': 10}
TOML = """
engine = "slurm"
sweep = "tiny"
partition = "gpu"
time = "00:10:00"
gpus = 1
cores = 1
logs = "{root}"
checkout = "{root}/check out"
"""


@pytest.fixture
def cluster(tmp_path):
  made = slurm_cluster.Cluster(tmp_path / 'slurm')
  try:
    made.start()
    yield made
  except TimeoutError as error:
    pytest.skip(f'Slurm does not start here: {error}')
  finally:
    made.kill()


def sweep(workdir, corpus):
  """The file of jobs of a sweep of two runs, and these."""
  config, *rest = run_fixtures.flags(corpus, **SWEEP)
  done = run_fixtures.run(
    '-m', 'experiments.sweep', config.replace('position=rope,', ''), *rest,
    '--positions=rope,alibi', f'--workdir={workdir}', f'--jobs={workdir}/jobs.json',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return workdir / 'jobs.json', job.read(workdir / 'jobs.json')


def settings(root):
  """The file of an engine whose checkout has the tests' own environment."""
  python = root / 'check out' / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
  python.chmod(0o755)
  (root / 'slurm.toml').write_text(TOML.format(root=root))
  return root / 'slurm.toml'


def test_what_is_told_to_leave_and_what_is_lost_goes_on_to_the_same_bits(cluster, tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  path, expected = sweep(tmp_path / 'undisturbed', corpus)
  alone = [run_fixtures.start('-m', 'launch', 'run', path, f'--share={i}/2') for i in range(2)]
  assert [process.wait(timeout=120) for process in alone] == [0, 0]

  path, jobs = sweep(tmp_path / 'disturbed', corpus)
  submitted = run_fixtures.run(
    '-m', 'launch', 'submit', path, f'--on={settings(tmp_path)}', **cluster.environment
  )
  assert submitted.returncode == 0 and 'tiny submitted' in submitted.stdout, submitted.stderr
  number = re.search(r'Submitted batch job (\d+)', submitted.stdout)[1]
  disturb = {
    # Slurm does that `notice` seconds before the limit, by a clock that ticks every 30 s.
    0: lambda task: cluster.run('scancel', '--signal=TERM', task),
    1: lambda task: cluster.lose(cluster.run('squeue', '-h', '-o', '%N', '-j', task).strip()),
  }
  deadline = time.monotonic() + 90
  while disturb:
    assert time.monotonic() < deadline
    time.sleep(0.05)
    for i in [i for i in disturb if (jobs[i].folder / 'checkpoints' / '250').exists()]:
      disturb.pop(i)(f'{number}_{i}')

  for i, (one, other) in enumerate(zip(jobs, expected, strict=True)):
    task = lambda i=i: cluster.run('scontrol', 'show', 'job', f'{number}_{i}')
    slurm_cluster.until(lambda task=task: 'JobState=COMPLETED' in task(), f'task {i} is done', 120)
    assert 'Restarts=1 ' in task() and one.done.exists()
    said = (tmp_path / f'tiny-{i}.log').read_text()
    assert ('stopped; the same command resumes' in said) == (i == 0) and '1 of 1 jobs done' in said
    assert one.log.read_text().count(' step 10/') == 1  # it did not begin again
    assert run_fixtures.losses(one.folder) == run_fixtures.losses(other.folder)
    assert process_fixtures.state(one.folder) == process_fixtures.state(other.folder)
    assert process_fixtures.rows(one.folder) == process_fixtures.rows(other.folder)
