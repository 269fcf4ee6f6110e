"""Job status, from its files."""

import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence

from launch.job import Job
from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files, local_copies, paths

DONE, RUNNING, STALLED = 'done', 'running', 'stalled'
STOPPED, FAILED, WAITING = 'stopped', 'failed', 'waiting'
NAMES = (DONE, RUNNING, STALLED, STOPPED, FAILED, WAITING)
PATIENCE = 900.0  # seconds without activity; a first compilation can take minutes
TRIES = 3  # times in a row that a job may stop where it stopped before


@dataclasses.dataclass(frozen=True)
class State:
  """State of a job.

  Attributes:
    name: one of NAMES; STOPPED: it ended early, and the same command resumes it.
    step: the last in metrics.jsonl; None: none was written.
    loss: at that step, nats/token.
    age: seconds since its last activity; None: there was none.
    said: the last line of its output, if it failed or stopped.
  """

  name: str
  step: int | None = None
  loss: float | None = None
  age: float | None = None
  said: str = ''


def of(job: Job, patience: float = PATIENCE, clock: float | None = None) -> State:
  """The state of a job at a time, now unless `clock` says otherwise (seconds, as time.time).

  One whose files are damaged has FAILED, and says which.
  """
  try:
    return _of(job, patience, clock)
  except files.WorkdirError as error:
    return State(FAILED, said=str(error))


def _of(job: Job, patience: float, clock: float | None) -> State:
  clock, last = time.time() if clock is None else clock, last_activity(job)
  step, loss = (None, None) if job.continues else _trained(job)
  age = max(0.0, clock - last) if last else None
  found = lambda name, said='': State(name, step, loss, age, said)
  if job.done.exists():
    return found(DONE)
  noted = _last_exit(job)
  if 'state' in noted:
    return found(noted['state'], noted['said'])
  if age is None:
    return found(WAITING)
  return found(RUNNING if age < patience else STALLED)


def last_activity(job: Job) -> float:
  """Time of its last output or progress, as time.time; 0: there was none."""
  signs = [job.log, _exit_file(job)]
  if not job.continues or job.log.exists():  # else they are those of the job before it
    signs += [job.folder / 'metrics.jsonl', job.folder / 'results.jsonl']
    signs += job.folder.glob('heartbeat-*.json') if job.folder.exists() else []
  return max((paths.modified(path) for path in signs if path.exists()), default=0.0)


def _trained(job: Job) -> tuple[int | None, float | None]:
  """The last step in metrics.jsonl, and its loss."""
  rows = [row for row in files.read_rows(job.folder / 'metrics.jsonl') if 'loss' in row]
  return (rows[-1]['step'], rows[-1]['loss']) if rows else (None, None)


def local_log(job: Job) -> pathlib.Path:
  """Local file for live output; a bucket takes whole files only."""
  return local_copies.growing(job.log)


def keep_log(job: Job) -> None:
  """Copies the output of a job that has ended to its log."""
  local_copies.upload(job.log)


def _exit_file(job: Job):
  return job.log.with_suffix('.ended')


def _last_exit(job: Job) -> dict:
  """Record of the last exit; `tries` and `far` survive a restart."""
  return files.read_json(_exit_file(job)) or {}


def record_exit(job: Job, status: int, resumable: bool, tries: int, requested: bool = False) -> str:
  """Records that a job ended without being done, until it is started again.

  Args:
    job: the job.
    status: exit status of its process.
    resumable: whether the same command resumes the job.
    tries: times in a row that it may stop without progress.
    requested: the launcher asked it to stop; not counted as a try.

  Returns:
    STOPPED; or FAILED, if it cannot be resumed or has no tries left.
  """
  noted = _last_exit(job)
  far = (_trained(job)[0] or 0) + len(files.read_rows(job.folder / 'results.jsonl'))
  count = 0 if far > noted.get('far', -1) else noted.get('tries', 0)
  count += not requested
  state = STOPPED if requested or (resumable and count < tries) else FAILED
  said = _last_line(job)
  if state == FAILED and resumable:
    said = f'stopped {count} times at one place: {said}'
  kept = {'tries': count, 'far': max(far, noted.get('far', 0))} if state == STOPPED else {}
  files.write_json(_exit_file(job), {'state': state, 'status': status, 'said': said} | kept)
  return state


def clear_exit(job: Job) -> None:
  """Clears the recorded exit, keeping the retry count."""
  noted = _last_exit(job)
  if 'state' in noted:
    files.write_json(_exit_file(job), {k: noted[k] for k in ('tries', 'far') if k in noted})


def _last_line(job: Job) -> str:
  said = job.log.read_bytes().decode(errors='replace') if job.log.exists() else ''
  return said.strip().rpartition('\n')[2]


def failure_message(job: Job, name: str) -> str:
  """Why a job is not done: its state, the last line of its output, and the path of its log."""
  if name in (WAITING, RUNNING):
    why = 'waited for one that is not done' if name == WAITING else 'is run by another process'
    return f'{job.name} {why}'
  became = 'stopped before its end' if name == STOPPED else 'failed'
  return f'{job.name} {became}: {_last_line(job)}  (see {job.log})'


def status(left: Mapping[str, str]) -> int:
  """Exit status of a command that ran jobs, from the states of those that are not done.

  0: all jobs are done; exits.STOPPED: some stopped or are still running, and the same command
  resumes them; 1: some failed.
  """
  if {STOPPED, RUNNING} & set(left.values()):
    return exits.STOPPED
  return 1 if left else 0


def table(jobs: Sequence[Job], states: Sequence[State]) -> str:
  """One line per job, and a last line with the number of jobs in each state."""
  rows = [['job', 'state', 'step', 'loss', 'last sign', 'said']]
  text = lambda value, form: '' if value is None else format(value, form)
  for job, one in zip(jobs, states, strict=True):
    age = '' if one.age is None or one.name == DONE else f'{one.age:.0f} s ago'
    rows.append([job.name, one.name, text(one.step, 'd'), text(one.loss, '.4f'), age, one.said])
  names = [one.name for one in states]
  counts = [f'{names.count(n)} {n}' for n in NAMES if n in names]
  return '\n'.join([*cli.aligned(rows), ', '.join(counts)])
