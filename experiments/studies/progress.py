"""Shows the progress of a study: jobs as they end; for a sweep also bars, losses and results."""

import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.progress

from launch.job import Job
from pe_research import positions


class Ended:
  """Prints a line for each job that ends."""

  def __init__(self, jobs: Sequence[Job]):
    """Prints nothing for jobs that are done already."""
    self.total, self.start = len(jobs), time.monotonic()
    self.waiting = [job for job in jobs if not job.done.exists()]

  def __call__(self) -> None:
    """Looks for jobs that ended since the last call."""
    for job in [job for job in self.waiting if job.done.exists()]:
      self.waiting.remove(job)
      minutes = (time.monotonic() - self.start) / 60
      count = self.total - len(self.waiting)
      print(f'{count:4}/{self.total}  {minutes:6.1f} min  {job.name}', flush=True)


@dataclasses.dataclass(frozen=True)
class Planned:
  """A run of a sweep: its job, its directory and its resolved config."""

  job: Job
  workdir: pathlib.Path
  config: dict[str, Any]


class Tail:
  """New whole lines of a file that another process appends to."""

  def __init__(self, path: pathlib.Path):
    """Starts at the beginning of the file, which need not exist yet."""
    self.path, self.read = path, 0

  def rows(self) -> list[dict[str, Any]]:
    """Rows appended since the last call."""
    if not self.path.exists():
      return []
    with self.path.open('rb') as file:
      file.seek(self.read)
      text = file.read()
    whole = text[: text.rfind(b'\n') + 1]
    self.read += len(whole)
    return [json.loads(line) for line in whole.splitlines()]


class Monitor:
  """Follows metrics.jsonl and results.jsonl of every run."""

  def __init__(self, runs: list[Planned], every: float = 10.0):
    """Without a terminal, prints a line for each run every `every` seconds."""
    self.runs, self.every = runs, every
    self.printed: dict[pathlib.Path, float] = {}  # time of the last line of each run
    self.undefined: set[pathlib.Path] = set()  # runs whose scheme ends before the longest length
    self.metrics = {run.workdir: Tail(run.workdir / 'metrics.jsonl') for run in runs}
    self.results = {run.workdir: Tail(run.workdir / 'results.jsonl') for run in runs}
    self.is_terminal = sys.stdout.isatty()
    self.console = rich.console.Console()
    self.bars = rich.progress.Progress(
      '{task.description}',
      rich.progress.BarColumn(bar_width=24),
      '{task.completed}/{task.total}',
      '{task.fields[text]}',
      console=self.console,
      disable=not self.is_terminal,
    )
    self.tasks = {
      run.workdir: self.bars.add_task(run.workdir.name, total=run.config['steps'], text='waiting')
      for run in runs
    }

  def __enter__(self) -> 'Monitor':
    self.bars.start()
    return self

  def __exit__(self, *_) -> None:
    self.bars.stop()

  def __call__(self) -> None:
    """Shows the rows that were written since the last call."""
    for run in self.runs:
      trained = [row for row in self.metrics[run.workdir].rows() if 'loss' in row]
      if trained:
        self._show(run, trained[-1])
      for row in self.results[run.workdir].rows():
        if row['value'] is not None or run.workdir not in self.undefined:
          self.console.out(_result(row), highlight=False)
        if row['value'] is None:
          self.undefined.add(run.workdir)
      if run.job.done.exists():
        self.bars.update(self.tasks[run.workdir], completed=run.config['steps'], text='done')

  def _show(self, run: Planned, row: dict[str, Any]) -> None:
    text, last = f'loss {row["loss"]:.3f}', row['step'] == run.config['steps']
    if 'tokens_per_second' in row:
      text += (
        f'  {row["tokens_per_second"] / 1000:5.1f}k tokens/s  {row["seconds_left"]:4.0f} s left'
      )
    if self.is_terminal:
      text += '  evaluating' if last else ''
      self.bars.update(self.tasks[run.workdir], completed=row['step'], text=text)
    elif last or time.monotonic() - self.printed.get(run.workdir, -self.every) >= self.every:
      self.printed[run.workdir] = time.monotonic()
      line = f'{run.workdir.name:20} step {row["step"]:6}/{run.config["steps"]}  {text}'
      self.console.out(line, highlight=False)


def _result(row: dict[str, Any]) -> str:
  """A result as a line."""
  control = '' if row['control'] == 'none' else f' ({row["control"]})'
  head = (
    f'{positions.scheme(row["scheme"]).label:12} seed {row["seed"]}  length {row["eval_length"]:6}'
  )
  if row['value'] is None:
    return f'{head}  -  {row["undefined"]}'
  value = f'{row["value"]:.4f} {row["unit"]}'
  if 'bits_per_byte' in row:
    value += f'  {row["bits_per_byte"]:.4f} bits/byte'
  return f'{head}  {value}  {row["protocol"]}{control}'
