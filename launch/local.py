"""Runs jobs on this machine: a pool of one-core workers, or one worker that has the accelerators.

A model of a few hundred thousand parameters does not fill two cores: two processes pinned to one
core each get through more tokens together than one process on both.
"""

import dataclasses
import fcntl
import glob
import importlib.util
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO

from pe_research import cli


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that can be started again until `done` exists.

  Attributes:
    name: of the run, for people.
    command: arguments after the Python interpreter.
    log: file that gets its output.
    done: file that it writes last.
    after: files that must be there before it can start, which other jobs write last.
  """

  name: str
  command: tuple[str, ...]
  log: pathlib.Path
  done: pathlib.Path
  after: tuple[pathlib.Path, ...] = ()

  def ready(self) -> bool:
    """Whether what it needs is there."""
    return all(path.exists() for path in self.after)


def cores() -> list[int]:
  """Processors that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [0]


def has_accelerator() -> bool:
  """Whether there is a GPU or a TPU, and the plugin for it; asking JAX itself is slow."""
  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    return False
  if not any(map(importlib.util.find_spec, ('jax_plugins', 'libtpu'))):
    return False
  return any(map(glob.glob, ('/dev/nvidia[0-9]*', '/dev/accel[0-9]*', '/dev/vfio/[0-9]*')))


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
    workers: 0 means one a core, or a single one where there is an accelerator. A job that is alone
      gets all cores.
    ended: told of every job that this process finished, and the seconds that it took.

  Returns:
    Names of the jobs that failed, or that waited for one that did; the others are done. An
    interrupt is passed on to the workers, which save and leave.
  """
  accelerated, free = has_accelerator(), cores()
  workers = workers or (1 if accelerated else len(free))
  waiting, running, failed = [job for job in jobs if not job.done.exists()], {}, []
  alone = accelerated or len(waiting) == 1  # then there is no one to leave a core to
  free = [None] * workers if alone else [free[i % len(free)] for i in range(workers)]
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
        core = free.pop(0)
        running[_start(job, core)] = job, core, lock, time.monotonic()
      for process in [p for p in running if p.poll() is not None]:
        job, core, lock, start = running.pop(process)
        lock.close()
        free.append(core)
        if job.done.exists():
          ended(job, time.monotonic() - start)
        else:
          failed.append(job.name)
      watch()
      if waiting and not running and not elsewhere and not any(job.ready() for job in waiting):
        return failed + [job.name for job in waiting if not job.done.exists()]
      time.sleep(0.2)
  except BaseException:
    for process in running:
      process.terminate()
    for process, (job, _, _, start) in running.items():
      process.wait()
      if job.done.exists():  # it was at its end
        ended(job, time.monotonic() - start)
    raise
  return failed


def _lock(job: Job) -> IO | None:
  """Holds a job for this process until the file is closed; None where another process has it."""
  job.log.parent.mkdir(parents=True, exist_ok=True)
  file = job.log.with_suffix('.job').open('a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    file.close()
    return None
  return file


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
    raise ChildProcessError('\n'.join(last_words(job) for job in jobs if job.name in failed))


def last_words(job: Job) -> str:
  """What a failed job said last, and where the rest is."""
  last = job.log.read_text(errors='replace').strip().splitlines()[-1:]
  return f'{job.name} failed: {"".join(last)}  (see {job.log})'


def _start(job: Job, core: int | None) -> subprocess.Popen:
  """Starts a worker, on one core if `core` names it."""
  environment = {'GLIBC_TUNABLES': cli.TUNABLES} | dict(os.environ)
  command = [sys.executable, *job.command]
  if core is not None:
    environment |= {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'}
    command = ['taskset', '-c', str(core), *command] if cores() != [0] else command
  with job.log.open('ab') as log:
    # A session of its own: Ctrl-C reaches this process, which passes it on once.
    return subprocess.Popen(
      command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
      start_new_session=True,
    )  # fmt: skip
