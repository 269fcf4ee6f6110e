"""The process of one job on this machine: started, watched, terminated, and its exit recorded."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from launch import devices, job_status, ownership
from launch.job import Job
from pe_research.machines import exits
from pe_research.storage import files, locks

PAUSE = 0.2  # seconds between polls
COSTS = 'costs.jsonl'  # in the folder of a job: core seconds of each of its starts
STARTED = 'started'
REFUSED = 2  # exit status of a user's mistake, see machines.exits


@dataclasses.dataclass
class Running:
  """A job that this process started.

  Attributes:
    job: the job.
    process: its process.
    worker: the cores or accelerator that it runs on.
    many: whether its process is one of several, on as many machines.
    held: lock or lease of the job.
    seconds: core seconds of the process, once it has ended.
  """

  job: Job
  process: subprocess.Popen
  worker: devices.Worker
  many: bool
  held: locks.Lock | locks.Lease
  seconds: float = 0.0

  def renew_lease(self) -> None:
    """Renews the lease; to be called repeatedly."""
    with _errors_printed(self.job):
      self.held.renew()

  def has_ended(self) -> bool:
    """Whether its process has ended; renews the lease."""
    self.renew_lease()
    if self.process.returncode is None:
      gone, status, used = os.wait4(self.process.pid, os.WNOHANG)
      if gone:
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = used.ru_utime + used.ru_stime
    return self.process.returncode is not None

  def wait(self) -> None:
    """Returns when its process has ended."""
    while not self.has_ended():
      time.sleep(PAUSE)


def command(job: Job, worker: devices.Worker, many: bool) -> tuple[dict[str, str], list[str]]:
  """Environment variables and arguments that start a job on a worker."""
  variables = {'GLIBC_TUNABLES': exits.TUNABLES} if 'GLIBC_TUNABLES' not in os.environ else {}
  more = ('--distributed',) if many else ()
  return variables | dict(worker.environment), [
    *worker.prefix, sys.executable, *job.command, *more,
  ]  # fmt: skip


def start(job: Job, worker: devices.Worker, running: list[Running], many: bool = False) -> str:
  """Starts a job and adds it to `running`.

  Returns:
    STARTED; RUNNING if another launcher has it; DONE; or FAILED, with the error printed.
  """
  with _errors_printed(job):
    held, one = ownership.take(job), None
    if held is None:
      return job_status.RUNNING
    try:
      if job.done.exists():  # another launcher was quicker
        return job_status.DONE
      job_status.clear_exit(job)
      variables, arguments = command(job, worker, many)
      with job_status.local_log(job).open('ab') as log, _signals_deferred():
        # A session of its own: Ctrl-C reaches this process, which passes it on once.
        process = subprocess.Popen(
          arguments, env=os.environ | variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
          start_new_session=True, pass_fds=held.inherited,
        )  # fmt: skip
        one = Running(job, process, worker, many, held)
        running.append(one)
      with _errors_printed(job):
        held.note(process.pid)
        job_status.keep_log(job)
      return STARTED
    finally:
      if one is None:
        held.close()
  return job_status.FAILED


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
  """Delays SIGTERM and SIGINT: they would not reach a process that is not yet in `running`."""
  came = []

  def note(number: int, _) -> None:
    came.append(number)

  before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    for number in came[:1]:
      signal.raise_signal(number)


def end(one: Running, tries: int, requested: bool = False) -> str:
  """Records the exit of a job whose process has ended; returns its state."""
  job, status = one.job, one.process.returncode
  name = job_status.DONE if job.done.exists() else job_status.FAILED
  with _errors_printed(job):
    job_status.keep_log(job)
  if name != job_status.DONE:
    with _errors_printed(job):
      if not one.held.renew() or (status == REFUSED and locks.holder(job.folder)):
        name = job_status.RUNNING
      else:
        # JAX kills a process by a signal when it loses its peers; a single process that is killed
        # ran out of memory.
        lost_peers = one.many and (status < 0 or status > 128)
        resumable = lost_peers or status in (0, exits.STOPPED)
        name = job_status.record_exit(job, status, resumable, tries, requested)
  with _errors_printed(job):
    if not one.many:  # the seconds of the other processes are unknown
      row = {'job': job.name, 'seconds': round(one.seconds, 1), 'ended': name}
      files.append_row(job.folder / COSTS, row)
  with _errors_printed(job):
    one.held.close()
  return name


def terminate_all(running: Sequence[Running], tries: int) -> None:
  """Terminates jobs, which save first, and waits for them."""
  for one in running:
    one.process.terminate()
  for one in running:
    one.wait()
    end(one, tries, requested=True)


@contextlib.contextmanager
def _errors_printed(job: Job) -> Iterator[None]:
  """Prints an error of one job, such as a full disk, so that the others continue."""
  try:
    yield
  except Exception as error:
    if exits.status(error) is None:
      raise
    print(f'{job.name}: {error}', file=sys.stderr, flush=True)
