"""Which launcher has a job: one at a time, by a lock on a disk and by a lease in a bucket."""

import pathlib

from launch.job import Job
from pe_research.storage import locks


def take(job: Job) -> locks.Lock | locks.Lease | None:
  """The job for this launcher, or None where another has it; see locks.take."""
  return locks.take(_path(job))


def who(job: Job) -> str:
  """'process 4711 on tpu-vm-1', which runs a job that is taken."""
  return locks.taken_by(_path(job))


def _path(job: Job) -> pathlib.Path:
  return job.log.with_suffix('.job')
