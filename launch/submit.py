"""Submits the shares of a file of jobs to an engine, and notes what was submitted."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from launch import job, job_status
from launch.engines import base
from launch.engines.gcloud import Gcloud
from launch.engines.jobset import JobSet
from launch.engines.skypilot import Skypilot
from launch.engines.slurm import Slurm
from launch.job import Job
from pe_research.storage import files, paths

ENGINES = {engine.kind: engine for engine in (JobSet, Gcloud, Slurm, Skypilot)}


def submit_shares(
  jobs_file: str, settings: pathlib.Path, jobs: Sequence[Job], wanted: Sequence[Job], dry: bool
) -> int:
  """Submits the shares with a wanted job, or prints the commands.

  Args:
    jobs_file: path of the file of jobs.
    settings: TOML file of the engine.
    jobs: all jobs of the file, so that each share keeps its number and its jobs.
    wanted: the jobs to run.
    dry: print only.

  Returns:
    Exit status: 1 if the engine refused a share.
  """
  engine = base.load(settings, ENGINES)
  engine.check(jobs_file, jobs)
  shares = _shares(jobs, engine)
  left = [i for i, share in enumerate(shares) if any(one in wanted for one in share)]
  log = _log(jobs_file)
  names = engine.names(left, [row['name'] for row in files.read_rows(log)])
  submissions = engine.submissions(jobs_file, names, len(shares))
  if dry:
    print(base.show(submissions))
    return 0
  engine.check_tools()
  # Read before the engine can begin a share.
  active = [max(map(job_status.last_activity, share)) for share in shares]
  refused = False
  for one in submissions:
    with tempfile.TemporaryDirectory() as folder:
      for name, text in one.files.items():
        (pathlib.Path(folder) / name).write_text(text, encoding='utf-8')
      command = [str(pathlib.Path(folder) / c) if c in one.files else c for c in one.command]
      status = subprocess.run(command, check=False).returncode
    if status:
      refused = True
      print(f'{one.name} was not submitted: {command[0]} ended with {status}', file=sys.stderr)
      continue
    parts = [i for i, name in names.items() if name == one.name] or left  # an array has all
    row = {'name': one.name, 'engine': engine.kind, 'heard': {i: active[i] for i in parts}}
    files.append_row(log, row)
    print(f'{one.name} submitted', flush=True)
  return 1 if refused else 0


def queued(
  jobs_file: str, settings: pathlib.Path, jobs: Sequence[Job], bad: Sequence[Job]
) -> list[Job]:
  """Those of the `bad` jobs without activity since their share was submitted."""
  shares = _shares(jobs, base.load(settings, ENGINES))
  number = {one.name: str(i) for i, share in enumerate(shares) for one in share}
  last = {i: t for row in files.read_rows(_log(jobs_file)) for i, t in row['heard'].items()}
  return [one for one in bad if job_status.last_activity(one) <= last.get(number[one.name], -1.0)]


def _shares(jobs: Sequence[Job], engine: base.Engine) -> list[list[Job]]:
  return job.shares(jobs, -(-len(jobs) // engine.jobs))


def _log(jobs_file: str) -> pathlib.Path:
  """The file that lists submissions."""
  return paths.place(jobs_file).with_suffix('.submitted.jsonl')
