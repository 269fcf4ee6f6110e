"""Runs jobs on this machine: a pool of one-core workers, or one worker that has the accelerators.

A model of a few hundred thousand parameters does not fill two cores: two processes pinned to one
core each get through more tokens together than one process on both.
"""

import dataclasses
import glob
import importlib.util
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from pe_research import cli


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that can be started again until `done` exists.

  Attributes:
    name: of the run, for people.
    command: arguments after the Python interpreter.
    log: file that gets its output.
    done: file that it writes last.
  """

  name: str
  command: tuple[str, ...]
  log: pathlib.Path
  done: pathlib.Path


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


def run(jobs: Sequence[Job], watch: Callable[[], None], workers: int = 0) -> list[str]:
  """Runs the jobs that are not done, `workers` at a time.

  Args:
    jobs: in the order in which they start.
    watch: called a few times a second.
    workers: 0 means one a core, or a single one where there is an accelerator. A job that is alone
      gets all cores.

  Returns:
    Names of the jobs that failed; the others are done. An interrupt is passed on to the workers,
    which save and leave.
  """
  accelerated, free = has_accelerator(), cores()
  workers = workers or (1 if accelerated else len(free))
  waiting, running, failed = [job for job in jobs if not job.done.exists()], {}, []
  alone = accelerated or len(waiting) == 1  # then there is no one to leave a core to
  free = [None] * workers if alone else [free[i % len(free)] for i in range(workers)]
  try:
    while waiting or running:
      while waiting and free:
        job, core = waiting.pop(0), free.pop(0)
        running[_start(job, core)] = job, core
      for process in [p for p in running if p.poll() is not None]:
        job, core = running.pop(process)
        free.append(core)
        if not job.done.exists():
          failed.append(job.name)
      watch()
      time.sleep(0.2)
  except BaseException:
    for process in running:
      process.terminate()
    for process in running:
      process.wait()
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
  job.log.parent.mkdir(parents=True, exist_ok=True)
  with job.log.open('ab') as log:
    # A session of its own: Ctrl-C reaches this process, which passes it on once.
    return subprocess.Popen(
      command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
      start_new_session=True,
    )  # fmt: skip
