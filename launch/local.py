"""Runs jobs on this machine, in a pool of workers: one per accelerator, or one per core.

A small model does not fill two cores: two processes pinned to one core each train on more tokens a
second together than one process on both.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence

from launch import devices, job_status, ownership
from launch.job import Job
from launch.job_process import PAUSE, STARTED, Running, command, end, start, terminate_all

LATE = 10.0  # seconds until a file of another machine appears on a shared disk


def run(
  jobs: Sequence[Job],
  watch: Callable[[], None] = lambda: None,
  workers: int = 0,
  tries: int = job_status.TRIES,
) -> dict[str, str]:
  """Runs the jobs that are not done, `workers` at a time.

  Several processes may run the same jobs at once: each job is started by one of them. An interrupt
  is passed on to the jobs, which save and exit.

  Args:
    jobs: in the order in which they start, unless they have to wait for others.
    watch: called a few times a second.
    workers: 0 means one per accelerator, or one per core. A single job gets the whole machine.
    tries: a job that stops so many times in a row without progress has failed.

  Returns:
    Name of each job that is not done -> its state: failed, stopped, waiting for another, or running
    elsewhere.
  """
  waiting, running, left = [job for job in jobs if not job.done.exists()], [], {}
  free, reported = devices.workers(workers, alone=len(waiting) == 1), set()
  try:
    while waiting or running:
      elsewhere = False
      for job in list(waiting):  # in a bucket, every look is a request
        for one in running:
          one.renew_lease()
        if not free:
          break
        if job.done.exists():
          waiting.remove(job)
          continue
        if not job.ready():
          continue
        name = start(job, free[0], running)
        if name == job_status.RUNNING:
          elsewhere = True  # and may still fail there
          _report_owner(job, reported)
          continue
        waiting.remove(job)
        if name == STARTED:
          free.pop(0)
        elif name == job_status.FAILED:
          left[job.name] = name
      for one in [one for one in running if one.has_ended()]:
        running.remove(one)
        free.append(one.worker)
        name = end(one, tries)
        if name != job_status.DONE:
          left[one.job.name] = name
      watch()
      if waiting and not running and not elsewhere and not any(job.ready() for job in waiting):
        blocked = [job.name for job in waiting if not job.done.exists()]
        return left | dict.fromkeys(blocked, job_status.WAITING)
      time.sleep(PAUSE)
  except BaseException:
    terminate_all(running, tries)
    raise
  return left


def run_on_all_chips(
  jobs: Sequence[Job], rank: int = 0, tries: int = job_status.TRIES
) -> dict[str, str]:
  """Runs the jobs one after another, each on all machines that call this at the same time.

  Args:
    jobs: the same on all machines.
    rank: of this machine; each has its own log.
    tries: as for `run`.

  Returns:
    As `run`, for the last job that was started: all machines stop at the first that is not done, so
    that they never run different jobs.
  """
  running = []
  try:
    for job in jobs:
      name = _run_on_all(job, rank, running, tries)
      if name != job_status.DONE:
        return {job.name: name}
  except BaseException:
    terminate_all(running, tries)
    raise
  return {}


def _run_on_all(job: Job, rank: int, running: list[Running], tries: int) -> str:
  """Runs one job of `run_on_all_chips`."""
  log = job.log.with_name(f'{job.log.stem}-{rank}{job.log.suffix}') if rank else job.log
  mine, reported = dataclasses.replace(job, log=log), set()
  name = job_status.RUNNING
  while name == job_status.RUNNING and not job.done.exists():
    if not job.ready():
      return job_status.WAITING
    name = start(mine, devices.Worker(), running, many=True)
    if name == job_status.RUNNING:
      _report_owner(mine, reported)
      time.sleep(1.0)
  if name != STARTED:
    return job_status.DONE if job.done.exists() else name
  one = running[0]
  one.wait()
  if rank and one.process.returncode == 0:
    _await_done(job)
  running.clear()
  return end(one, tries)


def _await_done(job: Job) -> None:
  """Waits for the `done` file of a job, which process 0 writes on another machine."""
  deadline = time.monotonic() + LATE
  while not job.done.exists() and time.monotonic() < deadline:
    time.sleep(PAUSE)


def show(jobs: Sequence[Job], workers: int, many: bool) -> str:
  """Shell commands of the jobs that are not done, one per line."""
  jobs = [job for job in jobs if not job.done.exists()]
  pool = [devices.Worker()] if many else devices.workers(workers, alone=len(jobs) == 1)
  lines = []
  for i, job in enumerate(jobs):  # `run` gives a later job whichever worker is free by then
    variables, arguments = command(job, pool[i % len(pool)], many)
    named = [f'{name}={shlex.quote(value)}' for name, value in variables.items()]
    lines.append(' '.join([*named, shlex.join(arguments)]))
  return '\n'.join(lines)


def _report_owner(job: Job, reported: set[str]) -> None:
  """Prints once which process runs a job."""
  if job.name not in reported:
    reported.add(job.name)
    print(
      f'{job.name} is run by {ownership.owner(job)}; this waits for it. If it hangs, kill -9 that '
      'process there, and the job resumes here.',
      file=sys.stderr, flush=True,
    )  # fmt: skip
