"""Runs jobs on this machine: a pool of one-core workers, or of one worker an accelerator.

A model of a few hundred thousand parameters does not fill two cores: two processes pinned to one
core each get through more tokens together than one process on both.
"""

import dataclasses
import shlex
import sys
import time
from collections.abc import Callable, Sequence

from launch import devices, job_status, ownership
from launch.job import Job
from launch.job_process import PAUSE, STARTED, Running, command, end, leave, start

LATE = 10.0  # seconds after which a shared disk shows what another machine wrote


def run(
  jobs: Sequence[Job],
  watch: Callable[[], None],
  workers: int = 0,
  tries: int = job_status.TRIES,
) -> dict[str, str]:
  """Runs the jobs that are not done, `workers` at a time.

  Several processes may run the same jobs at once: each is started by one of them.

  Args:
    jobs: in the order in which they start, but for those that wait for others.
    watch: called a few times a second.
    workers: 0 means one a core, or one an accelerator. A job that is alone gets all of the machine.
    tries: times in a row that a job may stop where it stopped before.

  Returns:
    The status of each job that is not done, by its name: it failed, stopped before its end, waited
    for one that did, or runs elsewhere. An interrupt is passed on to the jobs, which save and
    leave.
  """
  waiting, running, left = [job for job in jobs if not job.done.exists()], [], {}
  free, told = devices.workers(workers, alone=len(waiting) == 1), set()
  try:
    while waiting or running:
      elsewhere = False
      for job in list(waiting):  # of a bucket every look is a request
        for one in running:
          one.keep()
        if not free:
          break
        if job.done.exists():
          waiting.remove(job)
          continue
        if not job.ready():
          continue
        name = start(job, free[0], running)
        if name == job_status.RUNNING:
          elsewhere = True  # and may yet fail there
          _tell(job, told)
          continue
        waiting.remove(job)
        if name == STARTED:
          free.pop(0)
        elif name == job_status.FAILED:
          left[job.name] = name
      for one in [one for one in running if one.over()]:
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
    leave(running, tries)
    raise
  return left


def on_all_chips(
  jobs: Sequence[Job], rank: int = 0, tries: int = job_status.TRIES
) -> dict[str, str]:
  """Runs the jobs one after another, each over all machines that run this at the same time.

  Args:
    jobs: the same on all machines.
    rank: of this one; each has a log of its own.
    tries: times in a row that a job may stop where it stopped before.

  Returns:
    As `run`, of the last job that was started: the machines must not go on to different ones.
  """
  running = []
  try:
    for job in jobs:
      name = _over_all(job, rank, running, tries)
      if name != job_status.DONE:
        return {job.name: name}
  except BaseException:
    leave(running, tries)
    raise
  return {}


def _over_all(job: Job, rank: int, running: list[Running], tries: int) -> str:
  """Runs a job of `on_all_chips` to its end."""
  own = job.log.with_name(f'{job.log.stem}-{rank}{job.log.suffix}') if rank else job.log
  mine, told = dataclasses.replace(job, log=own), set()
  name = job_status.RUNNING
  while name == job_status.RUNNING and not job.done.exists():
    if not job.ready():
      return job_status.WAITING
    name = start(mine, devices.Worker(), running, many=True)
    if name == job_status.RUNNING:
      _tell(mine, told)
      time.sleep(1.0)
  if name != STARTED:
    return job_status.DONE if job.done.exists() else name
  one = running[0]
  one.wait()
  if rank and one.process.returncode == 0:
    _appears(job)
  running.clear()
  return end(one, tries)


def _appears(job: Job) -> None:
  """Waits for the mark of a job that process 0 writes, on another machine."""
  deadline = time.monotonic() + LATE
  while not job.done.exists() and time.monotonic() < deadline:
    time.sleep(PAUSE)


def show(jobs: Sequence[Job], workers: int, many: bool) -> str:
  """The commands of the jobs that are not done, a line each, as a shell takes them."""
  jobs = [job for job in jobs if not job.done.exists()]
  own = [devices.Worker()] if many else devices.workers(workers, alone=len(jobs) == 1)
  lines = []
  for i, job in enumerate(jobs):  # a later job gets whichever worker is free by then
    variables, arguments = command(job, own[i % len(own)], many)
    named = [f'{name}={shlex.quote(value)}' for name, value in variables.items()]
    lines.append(' '.join([*named, shlex.join(arguments)]))
  return '\n'.join(lines)


def _tell(job: Job, told: set[str]) -> None:
  """Says once who has a job."""
  if job.name not in told:
    told.add(job.name)
    print(
      f'{job.name} is run by {ownership.who(job)}; this waits for it. If it hangs, kill -9 that '
      'process there, and the job goes on here.',
      file=sys.stderr, flush=True,
    )  # fmt: skip
