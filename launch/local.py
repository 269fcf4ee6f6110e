"""Runs jobs on this machine: a pool of one-core workers, or of one worker an accelerator.

A model of a few hundred thousand parameters does not fill two cores: two processes pinned to one
core each get through more tokens together than one process on both.
"""

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from launch import devices, hold, state
from launch.job import Job
from pe_research import cli, records

PAUSE = 0.2  # seconds between looks at what runs
STARTED = 'started'
REFUSED = 2  # exit status of a user's mistake, as cli.errors ends
LATE = 10.0  # seconds after which a shared disk shows what another machine wrote


@dataclasses.dataclass
class Running:
  """A job that this process started: where, since when, and what holds it.

  Attributes:
    many: whether its process is one of several, on as many machines.
  """

  job: Job
  process: subprocess.Popen
  worker: devices.Worker
  many: bool
  held: hold.Lock | hold.Lease
  since: float = dataclasses.field(default_factory=time.monotonic)

  def over(self) -> bool:
    """Whether its process has ended; to be asked again and again while it has not."""
    with _reported(self.job):
      self.held.keep()
    return self.process.poll() is not None

  def wait(self) -> None:
    """Until its process has ended."""
    while not self.over():
      time.sleep(PAUSE)


def run(
  jobs: Sequence[Job],
  watch: Callable[[], None],
  workers: int = 0,
  ended: Callable[[Job, float], None] = lambda job, seconds: None,
  tries: int = state.TRIES,
) -> dict[str, str]:
  """Runs the jobs that are not done, `workers` at a time.

  Several processes may run the same jobs at once: each is started by one of them.

  Args:
    jobs: in the order in which they start, but for those that wait for others.
    watch: called a few times a second.
    workers: 0 means one a core, or one an accelerator. A job that is alone gets all of the machine.
    ended: told of every job that this process finished, and the seconds that it took.
    tries: times in a row that a job may stop where it stopped before.

  Returns:
    What became of each job that is not done, by its name: it failed, stopped before its end, waited
    for one that did, or runs elsewhere. An interrupt is passed on to the jobs, which save and
    leave.
  """
  waiting, running, left = [job for job in jobs if not job.done.exists()], [], {}
  free, told = devices.workers(workers, alone=len(waiting) == 1), set()
  try:
    while waiting or running:
      waiting = [job for job in waiting if not job.done.exists()]
      elsewhere = False
      for job in [job for job in waiting if job.ready()]:
        if not free:
          break
        name = start(job, free[0], running)
        if name == state.RUNNING:
          elsewhere = True  # and may yet fail there
          _tell(job, told)
          continue
        waiting.remove(job)
        if name == STARTED:
          free.pop(0)
        elif name == state.FAILED:
          left[job.name] = name
      for one in [one for one in running if one.over()]:
        running.remove(one)
        free.append(one.worker)
        name = end(one, tries, ended)
        if name != state.DONE:
          left[one.job.name] = name
      watch()
      if waiting and not running and not elsewhere and not any(job.ready() for job in waiting):
        blocked = [job.name for job in waiting if not job.done.exists()]
        return left | dict.fromkeys(blocked, state.WAITING)
      time.sleep(PAUSE)
  except BaseException:
    leave(running, tries, ended)
    raise
  return left


def finish(jobs: Sequence[Job], workers: int = 0) -> None:
  """Runs the jobs that are not done, and says when each is.

  Raises:
    ChildProcessError: some are not done; has the last line of each one's output.
  """
  waiting = [job for job in jobs if not job.done.exists()]

  def watch() -> None:
    for job in [job for job in waiting if job.done.exists()]:
      waiting.remove(job)
      print(f'{job.name} done', flush=True)

  left = run(jobs, watch, workers)
  if left:
    raise ChildProcessError('\n'.join(state.last_words(job) for job in jobs if job.name in left))


def together(jobs: Sequence[Job], rank: int = 0, tries: int = state.TRIES) -> dict[str, str]:
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
      if name != state.DONE:
        return {job.name: name}
  except BaseException:
    leave(running, tries)
    raise
  return {}


def _over_all(job: Job, rank: int, running: list[Running], tries: int) -> str:
  """Runs a job of `together` to its end."""
  own = job.log.with_name(f'{job.log.stem}-{rank}{job.log.suffix}') if rank else job.log
  mine, told = dataclasses.replace(job, log=own), set()
  name = state.RUNNING
  while name == state.RUNNING and not job.done.exists():
    if not job.ready():
      return state.WAITING
    name = start(mine, devices.Worker(), running, many=True)
    if name == state.RUNNING:
      _tell(mine, told)
      time.sleep(1.0)
  if name != STARTED:
    return state.DONE if job.done.exists() else name
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


def command(job: Job, worker: devices.Worker, many: bool) -> tuple[dict[str, str], list[str]]:
  """What starts a job on a part of this machine: variables to set, and arguments."""
  variables = {'GLIBC_TUNABLES': cli.TUNABLES} if 'GLIBC_TUNABLES' not in os.environ else {}
  more = ('--distributed',) if many else ()
  return variables | dict(worker.environment), [
    *worker.prefix, sys.executable, *job.command, *more,
  ]  # fmt: skip


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


def start(job: Job, worker: devices.Worker, running: list[Running], many: bool = False) -> str:
  """Starts a job and adds it to `running`.

  Returns:
    STARTED; or RUNNING where another launcher has it, DONE, or FAILED, which is said.
  """
  with _reported(job):
    held, one = hold.take(job), None
    if held is None:
      return state.RUNNING
    try:
      if job.done.exists():  # another launcher was quicker
        return state.DONE
      state.unmark(job)
      variables, arguments = command(job, worker, many)
      with state.local_log(job).open('ab') as log, _unbroken():
        # A session of its own: Ctrl-C reaches this process, which passes it on once.
        process = subprocess.Popen(
          arguments, env=os.environ | variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
          start_new_session=True, pass_fds=held.inherited,
        )  # fmt: skip
        one = Running(job, process, worker, many, held)
        running.append(one)
      with _reported(job):
        held.say(process.pid)
        state.keep_log(job)
      return STARTED
    finally:
      if one is None:
        held.close()
  return state.FAILED


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


def end(
  one: Running,
  tries: int,
  ended: Callable[[Job, float], None] = lambda job, seconds: None,
  told: bool = False,
) -> str:
  """What became of a job whose process has ended, noted beside its log; see state.mark."""
  job, status = one.job, one.process.returncode
  name = state.DONE if job.done.exists() else state.FAILED
  with _reported(job):
    state.keep_log(job)
  with _reported(job):
    if name == state.DONE:
      ended(job, time.monotonic() - one.since)
    elif not one.held.keep() or (status == REFUSED and records.holder(job.folder)):
      name = state.RUNNING
    else:
      # One of several that lost the others is killed by a signal; one alone that was is too large.
      lost = one.many and (status < 0 or status > 128)
      name = state.mark(job, status, lost or status in (0, cli.STOPPED), tries, told)
  with _reported(job):
    one.held.close()
  return name


def leave(
  running: Sequence[Running],
  tries: int,
  ended: Callable[[Job, float], None] = lambda job, seconds: None,
) -> None:
  """Tells jobs to save and leave, and waits until they have."""
  for one in running:
    one.process.terminate()
  for one in running:
    one.wait()
    end(one, tries, ended, told=True)


@contextlib.contextmanager
def _reported(job: Job) -> Iterator[None]:
  """Says what could not be done for one job, a full disk above all: the others go on."""
  try:
    yield
  except (OSError, ValueError) as error:
    print(f'{job.name}: {error}', file=sys.stderr, flush=True)


def _tell(job: Job, told: set[str]) -> None:
  """Says once who has a job."""
  if job.name not in told:
    told.add(job.name)
    print(
      f'{job.name} is run by {hold.who(job)}; this waits for it. If it hangs, kill -9 that process '
      'there, and the job goes on here.',
      file=sys.stderr, flush=True,
    )  # fmt: skip
