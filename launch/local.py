"""Runs jobs on this machine: a pool of one-core workers, or of one worker an accelerator.

A model of a few hundred thousand parameters does not fill two cores: two processes pinned to one
core each get through more tokens together than one process on both.
"""

import fcntl
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO

from launch import devices, state
from launch.job import Job
from pe_research import cli, paths


def run(
  jobs: Sequence[Job],
  watch: Callable[[], None],
  workers: int = 0,
  ended: Callable[[Job, float], None] = lambda job, seconds: None,
) -> list[str]:
  """Runs the jobs that are not done, `workers` at a time.

  Several processes may run the same jobs at once: each is started by one of them.

  Args:
    jobs: in the order in which they start, but for those that wait for others.
    watch: called a few times a second.
    workers: 0 means one a core, or one an accelerator. A job that is alone gets all of the machine.
    ended: told of every job that this process finished, and the seconds that it took.

  Returns:
    Names of the jobs that failed, or that waited for one that did; the others are done. An
    interrupt is passed on to the workers, which save and leave.
  """
  waiting, running, failed = [job for job in jobs if not job.done.exists()], {}, []
  free = devices.workers(workers, alone=len(waiting) == 1)
  try:
    while waiting or running:
      waiting = [job for job in waiting if not job.done.exists()]
      elsewhere = False
      for job in [job for job in waiting if job.ready()]:
        if not free:
          break
        lock = _lock(job)
        if lock is None:
          elsewhere = True  # another process runs it, and may yet fail to
          continue
        if job.done.exists():  # by another process, since the list was made
          lock.close()
          continue
        waiting.remove(job)
        worker = free.pop(0)
        running[start(job, worker)] = job, worker, lock, time.monotonic()
      for process in [p for p in running if p.poll() is not None]:
        job, worker, lock, begun = running.pop(process)
        state.keep_log(job)
        lock.close()
        free.append(worker)
        if job.done.exists():
          ended(job, time.monotonic() - begun)
        else:
          state.mark_failed(job, process.returncode)
          failed.append(job.name)
      watch()
      if waiting and not running and not elsewhere and not any(job.ready() for job in waiting):
        return failed + [job.name for job in waiting if not job.done.exists()]
      time.sleep(0.2)
  except BaseException:
    for process in running:
      process.terminate()
    for process, (job, _, _, begun) in running.items():
      process.wait()
      if job.done.exists():  # it was at its end
        ended(job, time.monotonic() - begun)
    raise
  return failed


def finish(jobs: Sequence[Job], workers: int = 0) -> None:
  """Runs the jobs that are not done, and says when each is.

  Raises:
    ChildProcessError: some failed; has the last line of each one's output.
  """
  waiting = [job for job in jobs if not job.done.exists()]

  def watch() -> None:
    for job in [job for job in waiting if job.done.exists()]:
      waiting.remove(job)
      print(f'{job.name} done', flush=True)

  failed = run(jobs, watch, workers)
  if failed:
    raise ChildProcessError('\n'.join(state.last_words(job) for job in jobs if job.name in failed))


def together(jobs: Sequence[Job]) -> list[str]:
  """Runs the jobs one after another, each over all machines that run this at the same time.

  Returns:
    Names of the jobs that failed; the first of them is the last that was started, since the other
    machines must not go on to another.
  """
  for job in jobs:
    if job.done.exists():
      continue
    if not job.ready():
      return [job.name]
    process = start(job, devices.Worker(), ('--distributed',))
    try:
      process.wait()
    except BaseException:
      process.terminate()
      process.wait()
      raise
    state.keep_log(job)
    if not job.done.exists():
      state.mark_failed(job, process.returncode)
      return [job.name]
  return []


def start(job: Job, worker: devices.Worker, more: Sequence[str] = ()) -> subprocess.Popen:
  """Starts a job on a part of this machine."""
  state.unmark(job)
  log = state.local_log(job)
  environment = {'GLIBC_TUNABLES': cli.TUNABLES} | dict(os.environ) | dict(worker.environment)
  job.folder.mkdir(parents=True, exist_ok=True)
  with log.open('ab') as log:
    # A session of its own: Ctrl-C reaches this process, which passes it on once.
    return subprocess.Popen(
      [*worker.prefix, sys.executable, *job.command, *more], env=environment, stdout=log,
      stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _lock(job: Job) -> IO | None:
  """Holds a job for this process until the file is closed; None where another process has it.

  In a bucket nothing can be held: each share of a sweep is for one machine there.
  """
  if paths.in_bucket(job.log):
    return io.StringIO()
  job.folder.mkdir(parents=True, exist_ok=True)
  file = job.log.with_suffix('.job').open('a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    return None
  return file
