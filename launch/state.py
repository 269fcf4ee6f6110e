"""What became of a job: done, running, stalled, failed or waiting, by the files that it left."""

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Sequence

from launch.job import Job
from pe_research import cli, digest, paths, records

DONE, RUNNING, STALLED, FAILED, WAITING = 'done', 'running', 'stalled', 'failed', 'waiting'
PATIENCE = 900.0  # seconds without a sign of life; a first compilation can take minutes


@dataclasses.dataclass(frozen=True)
class State:
  """Of one job.

  Attributes:
    name: one of DONE, RUNNING, STALLED, FAILED, WAITING.
    step: the last that was written down; None: none was.
    loss: at that step, nats/token.
    age: seconds since the last sign of life; None: there was none.
    said: the last line of its output, where it failed.
  """

  name: str
  step: int | None = None
  loss: float | None = None
  age: float | None = None
  said: str = ''


def of(job: Job, patience: float = PATIENCE, clock: float | None = None) -> State:
  """The state of a job at a time, now unless `clock` says otherwise (seconds, as time.time)."""
  clock = time.time() if clock is None else clock
  signs = [job.log, job.folder / 'metrics.jsonl', job.folder / 'results.jsonl']
  signs += job.folder.glob('heartbeat-*.json') if job.folder.exists() else []
  last = max((paths.modified(path) for path in signs if path.exists()), default=None)
  rows = [row for row in records.read_rows(job.folder / 'metrics.jsonl') if 'loss' in row]
  step, loss = (rows[-1]['step'], rows[-1]['loss']) if rows else (None, None)
  age = None if last is None else max(0.0, clock - last)
  found = lambda name, said='': State(name, step, loss, age, said)
  if job.done.exists():
    return found(DONE)
  if _failure(job).exists():
    return found(FAILED, records.read_json(_failure(job))['said'])
  if age is None:
    return found(WAITING)
  return found(RUNNING if age < patience else STALLED)


def local_log(job: Job) -> pathlib.Path:
  """Where a job's output goes as it comes; a bucket takes whole files only."""
  if not paths.in_bucket(job.log):
    return job.log
  own = pathlib.Path(tempfile.gettempdir()) / f'pe_research-{os.getpid()}'
  own.mkdir(exist_ok=True)
  return own / f'{digest.of_bytes(str(job.log).encode())[:16]}.txt'


def keep_log(job: Job) -> None:
  """Puts the output of a job that has ended where it belongs."""
  if paths.in_bucket(job.log):
    records.write_bytes(job.log, local_log(job).read_bytes())


def _failure(job: Job):
  return job.log.with_suffix('.failed')


def mark_failed(job: Job, status: int) -> None:
  """Notes that a job ended without being done; starting it again takes that back."""
  records.write_json(_failure(job), {'status': status, 'said': _last_line(job)})


def unmark(job: Job) -> None:
  """Takes a failure back."""
  _failure(job).unlink(missing_ok=True)


def _last_line(job: Job) -> str:
  lines = job.log.read_text(errors='replace').strip().splitlines() if job.log.exists() else []
  return lines[-1] if lines else ''


def last_words(job: Job) -> str:
  """What a failed job said last, and where the rest is."""
  return f'{job.name} failed: {_last_line(job)}  (see {job.log})'


def table(jobs: Sequence[Job], states: Sequence[State]) -> str:
  """A line a job, and a last one that counts."""
  rows = [['job', 'state', 'step', 'loss', 'last sign', 'said']]
  text = lambda value, form: '' if value is None else format(value, form)
  for job, one in zip(jobs, states, strict=True):
    age = '' if one.age is None or one.name == DONE else f'{one.age:.0f} s ago'
    rows.append([job.name, one.name, text(one.step, 'd'), text(one.loss, '.4f'), age, one.said])
  names = [one.name for one in states]
  counts = [
    f'{names.count(n)} {n}' for n in (DONE, RUNNING, STALLED, FAILED, WAITING) if n in names
  ]
  return '\n'.join([*cli.aligned(rows), ', '.join(counts)])
