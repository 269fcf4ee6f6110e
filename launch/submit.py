"""Submitting the shares of a file of jobs to an engine, and what was submitted already."""

import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from launch import job, job_status
from launch.engines import base
from launch.engines.gcloud import Gcloud
from launch.engines.skypilot import Skypilot
from launch.engines.slurm import Slurm
from launch.engines.xpk import Xpk
from launch.job import Job
from pe_research.storage import files, paths

ENGINES = {made.kind: made for made in (Xpk, Gcloud, Slurm, Skypilot)}


def hand_in(
  jobs_file: str, settings: pathlib.Path, jobs: Sequence[Job], wanted: Sequence[Job], dry: bool
) -> int:
  """Submits the shares that hold a wanted job, or prints what it would submit.

  Args:
    jobs_file: path of the file of jobs.
    settings: of the engine, TOML.
    jobs: all of the file, so that each share keeps its number and its jobs.
    wanted: those of them that are to be done.
    dry: print only.

  Returns:
    1 where the engine did not take one.
  """
  made = base.load(settings, ENGINES)
  made.check(jobs_file, jobs)
  shares = _shares(jobs, made)
  left = [i for i, own in enumerate(shares) if any(one in wanted for one in own)]
  before = _before(jobs_file)
  names = made.names(left, [row['name'] for row in files.read_rows(before)])
  submissions = made.submissions(jobs_file, names, len(shares))
  if dry:
    print(base.show(submissions))
    return 0
  made.ready()
  heard = [_heard(own) for own in shares]  # before the engine can begin one
  refused = False
  for one in submissions:
    with tempfile.TemporaryDirectory() as folder:
      for name, text in one.files.items():
        (pathlib.Path(folder) / name).write_text(text)
      command = [str(pathlib.Path(folder) / c) if c in one.files else c for c in one.command]
      status = subprocess.run(command, check=False).returncode
    if status:
      refused = True
      print(f'{one.name} was not taken: {command[0]} ended with {status}', file=sys.stderr)
      continue
    held = [i for i, name in names.items() if name == one.name] or left  # an array has all
    row = {'name': one.name, 'engine': made.kind, 'heard': {i: heard[i] for i in held}}
    files.append_row(before, row)
    print(f'{one.name} submitted', flush=True)
  return 1 if refused else 0


def queued(
  jobs_file: str, settings: pathlib.Path, jobs: Sequence[Job], bad: Sequence[Job]
) -> list[Job]:
  """Those of the bad jobs of which nothing was heard since their share was submitted."""
  shares = _shares(jobs, base.load(settings, ENGINES))
  number = {one.name: str(i) for i, own in enumerate(shares) for one in own}
  last = {i: t for row in files.read_rows(_before(jobs_file)) for i, t in row['heard'].items()}
  return [one for one in bad if job_status.heard(one) <= last.get(number[one.name], -1.0)]


def _heard(share: Sequence[Job]) -> float:
  return max(job_status.heard(one) for one in share)


def _shares(jobs: Sequence[Job], made: base.Engine) -> list[list[Job]]:
  return job.shares(jobs, -(-len(jobs) // made.jobs))


def _before(jobs_file: str) -> pathlib.Path:
  """Where it is noted what was submitted."""
  return paths.place(jobs_file).with_suffix('.submitted.jsonl')
