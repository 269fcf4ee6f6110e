"""Metrics of a run: to metrics.jsonl and the console, and to TensorBoard and W&B if asked."""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import rich.progress

from pe_research.common import digest
from pe_research.storage import files, paths


class Console:
  """A bar in a terminal; plain lines otherwise."""

  def __init__(self, name: str, steps: int, start: int):
    self.name, self.steps = name, steps
    self.bar = None
    if sys.stdout.isatty():
      self.bar = rich.progress.Progress(
        '{task.description}',
        rich.progress.BarColumn(),
        '{task.completed}/{task.total}',
        '{task.fields[text]}',
        rich.progress.TimeRemainingColumn(),
      )
      self.task = self.bar.add_task(name, total=steps, completed=start, text='compiling')
      self.bar.start()

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Shows one row."""
    rate = row.get('tokens_per_second')
    text = '  '.join(
      f'{key} {row[key]:.3f}' for key in ('loss', 'validation_loss') if row.get(key) is not None
    )
    if rate:
      text += f'  {rate / 1000:.1f}k tokens/s'
    if self.bar is not None:
      self.bar.update(self.task, completed=step, text=text)
    else:
      left = f'  {row["seconds_left"]:.0f} s left' if row.get('seconds_left') is not None else ''
      print(f'{self.name}  step {step}/{self.steps}  {text}{left}', flush=True)

  def close(self) -> None:
    """Ends the bar."""
    if self.bar is not None:
      self.bar.stop()


class TensorBoard:
  """Scalars for TensorBoard, through tensorboardX."""

  def __init__(self, workdir: pathlib.Path):
    try:
      import tensorboardX
    except ImportError as error:
      raise ValueError(
        'run.tensorboard needs the package tensorboardX: pip install tensorboardX.'
      ) from error
    paths.check_on_disk(workdir, 'run.tensorboard')
    self.writer = tensorboardX.SummaryWriter(str(workdir / 'tensorboard'))

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Adds every number of the row."""
    for key, value in row.items():
      if isinstance(value, (int, float)):
        self.writer.add_scalar(key, value, step)

  def close(self) -> None:
    """Flushes."""
    self.writer.close()


class WandB:
  """Scalars for Weights & Biases; WANDB_MODE=offline works."""

  def __init__(self, project: str, workdir: pathlib.Path, config: Mapping[str, Any]):
    try:
      import wandb
    except ImportError as error:
      raise ValueError('run.wandb needs the package wandb: pip install wandb.') from error
    paths.check_on_disk(workdir, 'run.wandb')
    self.run = wandb.init(
      project=project,
      name=workdir.name,
      id=digest.of_bytes(str(workdir.absolute()).encode())[:16],
      dir=str(workdir),
      config=dict(config),
      resume='allow',
    )

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Logs the row."""
    self.run.log(dict(row), step=step)

  def close(self) -> None:
    """Ends the run."""
    self.run.finish()


class Writer:
  """Sends rows to every destination of the config, from process 0."""

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    start: int,
    process: int,
    least: float | None = None,
  ):
    """Opens the destinations.

    Args:
      workdir: the run's directory.
      config: the resolved config.
      start: the step that the run resumes from.
      process: index of this process; all but 0 write nothing.
      least: seconds a token takes at the devices' peak; None: unknown, and there is no MFU.
    """
    run, self.destinations = config['run'], []
    self.file = workdir / 'metrics.jsonl'
    self.steps = config['steps']
    self.tokens_per_step = config['length'] * config['optimizer']['batch']
    self.last, self.least = (start, None), least
    if process:
      return
    if run['tensorboard']:
      self.destinations.append(TensorBoard(workdir))
    if run['wandb']:
      self.destinations.append(WandB(run['wandb'], workdir, config))
    self.destinations.append(Console(config['position']['name'], self.steps, start))

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Adds speed and time left to a row of training, and sends it to every destination."""
    row = dict(row)
    if 'loss' in row:
      row |= self._speed(step)
    if not self.destinations:
      return
    # A step that was repeated after a kill has two rows, of which the last counts.
    files.append_row(self.file, {'step': step} | row)
    for destination in self.destinations:
      destination.write(step, row)

  def _speed(self, step: int) -> dict[str, float]:
    (last_step, last_time), now = self.last, time.perf_counter()
    self.last = step, now
    if last_time is None or step <= last_step:
      return {}
    seconds = (now - last_time) / (step - last_step)
    left = seconds * (self.steps - step)
    rate = self.tokens_per_step / seconds
    speed = {'tokens_per_second': rate, 'seconds_left': left}
    return speed if self.least is None else speed | {'mfu': rate * self.least}

  def note(self, text: str) -> None:
    """Prints what a reader of the results should know, from process 0."""
    if self.destinations:
      print(f'note: {text}', flush=True)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    for destination in self.destinations:
      destination.close()
