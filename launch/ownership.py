"""Which launcher runs a job: one at a time, by a lock on a disk or a lease in a bucket."""

import pathlib

from launch.job import Job
from pe_research.storage import locks


def take(job: Job) -> locks.Lock | locks.Lease | None:
  """The lock or lease of a job, or None if another launcher has it; see locks.take."""
  return locks.take(_path(job))


def owner(job: Job) -> str:
  """The process that runs a job, as 'process 4711 on tpu-vm-1'."""
  return locks.taken_by(_path(job))


def _path(job: Job) -> pathlib.Path:
  return job.log.with_suffix('.job')
