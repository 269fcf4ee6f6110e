"""Where numbers of a run go: metrics.jsonl always; console, TensorBoard and W&B as asked."""

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
    """Shows `name`, from step `start` of `steps`."""
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


class JSONLines:
  """metrics.jsonl, the source of truth; of a step that was run again after a kill, the last row."""

  def __init__(self, path: pathlib.Path):
    """Appends to `path`."""
    self.path = path

  def write(self, step: int, row: Mapping[str, float]) -> None:
    """Appends one row."""
    files.append_row(self.path, {'step': step} | dict(row))

  def close(self) -> None:
    """Nothing to do: every row is on disk when `write` returns."""


class TensorBoard:
  """Scalars for TensorBoard, through tensorboardX."""

  def __init__(self, workdir: pathlib.Path):
    """Writes below `workdir`/tensorboard."""
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
    """Starts or resumes the run named after the workdir."""
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
  """Sends rows to every place that the config asks for; process 0 alone writes."""

  def __init__(
    self,
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    start: int,
    process: int,
    least: float | None = None,
  ):
    """Opens the places.

    Args:
      workdir: the run's directory.
      config: the resolved config.
      start: the step that the run goes on from.
      process: index of this process; all but 0 stay silent.
      least: seconds a token takes at the devices' peak; None, where it is not known, gives no MFU.
    """
    run, self.places = config['run'], []
    self.steps = config['steps']
    self.tokens_per_step = config['length'] * config['optimizer']['batch']
    self.last, self.least = (start, None), least
    if process:
      return
    self.places.append(JSONLines(workdir / 'metrics.jsonl'))
    if run['tensorboard']:
      self.places.append(TensorBoard(workdir))
    if run['wandb']:
      self.places.append(WandB(run['wandb'], workdir, config))
    self.places.append(Console(config['position']['name'], self.steps, start))

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Adds speed and time left to a row of training, and sends it everywhere."""
    row = dict(row)
    if 'loss' in row:
      row |= self._speed(step)
    for place in self.places:
      place.write(step, row)

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
    """Says what a reader of the results should know, where this process speaks at all."""
    if self.places:
      print(f'note: {text}', flush=True)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_) -> None:
    for place in self.places:
      place.close()
