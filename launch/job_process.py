"""One job on a part of this machine: started, held, told to leave, and what it came to."""

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

PAUSE = 0.2  # seconds between looks at what runs
COSTS = 'costs.jsonl'  # in the folder of a job: what each of its starts took
STARTED = 'started'
REFUSED = 2  # exit status of a user's mistake, as cli.errors ends


@dataclasses.dataclass
class Running:
  """A job that this process started: where, what holds it, and what it took.

  Attributes:
    many: whether its process is one of several, on as many machines.
    seconds: of a core, once it has ended; what else the machine does is not in them.
  """

  job: Job
  process: subprocess.Popen
  worker: devices.Worker
  many: bool
  held: locks.Lock | locks.Lease
  seconds: float = 0.0

  def keep(self) -> None:
    """Says that its launcher lives; to be called again and again."""
    with _reported(self.job):
      self.held.renew()

  def over(self) -> bool:
    """Whether its process has ended; to be asked again and again while it has not."""
    self.keep()
    if self.process.returncode is None:
      gone, status, used = os.wait4(self.process.pid, os.WNOHANG)
      if gone:
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = used.ru_utime + used.ru_stime
    return self.process.returncode is not None

  def wait(self) -> None:
    """Until its process has ended."""
    while not self.over():
      time.sleep(PAUSE)


def command(job: Job, worker: devices.Worker, many: bool) -> tuple[dict[str, str], list[str]]:
  """What starts a job on a part of this machine: variables to set, and arguments."""
  variables = {'GLIBC_TUNABLES': exits.TUNABLES} if 'GLIBC_TUNABLES' not in os.environ else {}
  more = ('--distributed',) if many else ()
  return variables | dict(worker.environment), [
    *worker.prefix, sys.executable, *job.command, *more,
  ]  # fmt: skip


def start(job: Job, worker: devices.Worker, running: list[Running], many: bool = False) -> str:
  """Starts a job and adds it to `running`.

  Returns:
    STARTED; or RUNNING where another launcher has it, DONE, or FAILED, which is said.
  """
  with _reported(job):
    held, one = ownership.take(job), None
    if held is None:
      return job_status.RUNNING
    try:
      if job.done.exists():  # another launcher was quicker
        return job_status.DONE
      job_status.unmark(job)
      variables, arguments = command(job, worker, many)
      with job_status.local_log(job).open('ab') as log, _unbroken():
        # A session of its own: Ctrl-C reaches this process, which passes it on once.
        process = subprocess.Popen(
          arguments, env=os.environ | variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
          start_new_session=True, pass_fds=held.inherited,
        )  # fmt: skip
        one = Running(job, process, worker, many, held)
        running.append(one)
      with _reported(job):
        held.note(process.pid)
        job_status.keep_log(job)
      return STARTED
    finally:
      if one is None:
        held.close()
  return job_status.FAILED


@contextlib.contextmanager
def _unbroken() -> Iterator[None]:
  """Holds back signals to leave: a process that is not noted yet would not be told."""
  came = []
  note = lambda number, _: came.append(number)
  before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    for number in came[:1]:
      signal.raise_signal(number)


def end(one: Running, tries: int, told: bool = False) -> str:
  """The status of a job whose process has ended, noted beside its log; see job_status.mark."""
  job, status = one.job, one.process.returncode
  name = job_status.DONE if job.done.exists() else job_status.FAILED
  with _reported(job):
    job_status.keep_log(job)
  if name != job_status.DONE:
    with _reported(job):
      if not one.held.renew() or (status == REFUSED and locks.holder(job.folder)):
        name = job_status.RUNNING
      else:
        # One of several that lost the others is killed by a signal; one alone was too large.
        lost = one.many and (status < 0 or status > 128)
        name = job_status.mark(job, status, lost or status in (0, exits.STOPPED), tries, told)
  with _reported(job):
    if not one.many:  # what the others took is not known here
      row = {'job': job.name, 'seconds': round(one.seconds, 1), 'ended': name}
      files.append_row(job.folder / COSTS, row)
  with _reported(job):
    one.held.close()
  return name


def leave(running: Sequence[Running], tries: int) -> None:
  """Tells jobs to save and leave, and waits until they have."""
  for one in running:
    one.process.terminate()
  for one in running:
    one.wait()
    end(one, tries, told=True)


@contextlib.contextmanager
def _reported(job: Job) -> Iterator[None]:
  """Says what could not be done for one job, a full disk above all: the others go on."""
  try:
    yield
  except Exception as error:
    if exits.status(error) is None:
      raise
    print(f'{job.name}: {error}', file=sys.stderr, flush=True)
