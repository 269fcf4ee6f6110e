"""Runs the jobs of a study, then reports its comparisons."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from experiments.studies import progress
from experiments.studies.study import Comparison, Study
from launch import job, job_status, local
from launch.job import Job
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.storage import files, locks


def carry_out(
  study: Study,
  workers: int,
  report: Callable[[Comparison], None],
  watch: Callable[[], None] | None = None,
) -> int:
  """Runs the jobs that are not done, and reports each comparison.

  Args:
    study: the study.
    workers: jobs at a time; 0: one for each core, or for each accelerator.
    report: compares runs and writes the report.
    watch: called a few times a second; None prints a line for each job that ends.

  Returns:
    The exit status, see job_status.status.
  """
  checks.at_least('--workers', workers, 0)
  with locks.claim(study.workdir), resumable():
    if study.settings:
      file, settings = study.settings
      files.write_once(study.workdir / file, settings)
    if failed := run_jobs(study.jobs, workers, watch):
      return job_status.status(failed)
    for comparison in study.comparisons:
      if comparison.folder != study.workdir:
        print(f'\n{comparison.folder.name}')
      report(comparison)
  return 0


@contextlib.contextmanager
def resumable() -> Iterator[None]:
  """Ctrl-C and SIGTERM end the command with exits.STOPPED, once its workers have saved."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    yield
  except KeyboardInterrupt:
    print('stopped; the same command resumes')
    raise SystemExit(exits.STOPPED) from None


def list_jobs(jobs: Sequence[Job], given: argparse.Namespace) -> bool:
  """Prints or writes the jobs if a flag asks for it, and nothing is to be run; whether one does."""
  if given.dry_run:
    print(job.shell(jobs))
  elif given.jobs:
    job.write(given.jobs, jobs)
    print(f'wrote {len(jobs)} jobs to {given.jobs}; python -m launch runs them')
  return bool(given.dry_run or given.jobs)


def run_jobs(
  jobs: Sequence[Job], workers: int, watch: Callable[[], None] | None = None
) -> dict[str, str]:
  """Runs the jobs that are not done; prints and returns why some still are not, by their names."""
  failed = local.run(jobs, watch or progress.Ended(jobs), workers)
  for one in jobs:
    if one.name in failed:
      print(job_status.failure_message(one, failed[one.name]), file=sys.stderr)
  return failed
