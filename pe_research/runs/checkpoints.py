"""Checkpoints: asynchronous, atomic, verified when they are read."""

import contextlib
import functools
import logging as stdlib_logging
import pathlib
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from pe_research.common import digest
from pe_research.storage import local_copies, paths

WHOLE, PREFIX = 'whole', 'digest:'  # the digest of what is saved with a state; older ones have none


class Checkpoints:
  """The checkpoints of one run, in workdir/checkpoints.

  Saving writes into a temporary directory that is renamed when complete, so a kill leaves the
  earlier checkpoints as they were. Digests of the state and of all that is saved with it are
  compared on reading, which also finds damage that decompresses into other numbers.
  """

  def __init__(self, workdir: pathlib.Path, keep: int, read_only: bool = False):
    """Opens the directory; the newest `keep` checkpoints are kept.

    With `read_only` nothing in it is changed, so that a run that still trains can be read, and a
    checkpoint in a bucket is copied to this machine once.
    """
    self.folder = paths.absolute(workdir / 'checkpoints')
    paths.check_plain(self.folder)
    self.read_only = read_only
    _drop_tracebacks()
    if read_only:
      logging.get_absl_logger().addFilter(_no_read_only_warning)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=None if read_only else keep,
      cleanup_tmp_directories=not read_only,
      create=not read_only,
      read_only=read_only,
    )
    with self._writing():
      self.manager = ocp.CheckpointManager(
        self.folder, item_names=('state', 'extra'), options=options
      )

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_) -> None:
    with self._writing():
      self.manager.wait_until_finished()
      self.manager.close()

  def save(self, step: int, state: Any, extra: dict[str, Any]) -> None:
    """Saves the state (arrays) and `extra` (JSON) after `step` steps, in the background."""
    extra = extra | {'step': step, 'digest': digest.of_arrays(state)}
    extra |= {WHOLE: PREFIX + digest.of_json(extra)}
    items = {'state': ocp.args.StandardSave(state), 'extra': ocp.args.JsonSave(extra)}
    with self._writing():  # this one, or the one before it
      self.manager.save(step, args=ocp.args.Composite(**items), force=True)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Raises WorkdirError where orbax or tensorstore cannot write."""
    try:
      yield
    except (OSError, ValueError) as error:
      if paths.failed(error) or isinstance(error, paths.WorkdirError):
        raise
      raise paths.WorkdirError(
        f'a checkpoint in {self.folder} cannot be written: {_first_line(error)}. Free space, or '
        'choose another --workdir.'
      ) from error

  def steps(self) -> list[int]:
    """Steps that have a checkpoint, oldest first."""
    return sorted(self.manager.all_steps())

  def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]] | None:
    """The newest whole checkpoint, or that of `step`, laid out as `like`.

    Damaged ones are skipped with a warning. Once an older one is read they are moved to
    checkpoints_damaged, so that their steps can be saved again.

    Args:
      like: a tree of jax.ShapeDtypeStruct with shardings.
      step: read the checkpoint of this step and no other.

    Returns:
      State and extra; None where there is no checkpoint at all.

    Raises:
      ValueError: there are checkpoints, but none (or not the one asked for) is whole.
    """
    damaged = []
    for candidate in self.steps()[::-1] if step is None else [step]:
      try:
        restored, problem = self._read(candidate, like), ''
      except Exception as error:  # orbax, tensorstore and JSON each raise their own errors
        if paths.failed(error):
          raise
        restored, problem = None, _first_line(error)
      if _any_process(problem):
        logging.warning('checkpoint of step %d is damaged (%s)', candidate, problem)
        damaged.append(candidate)
        continue
      if damaged:
        logging.warning('resuming from step %d instead of %d', candidate, damaged[0])
        self._set_aside(damaged)
      return restored
    if damaged:
      raise ValueError(
        f'no whole checkpoint in {self.manager.directory}: step(s) '
        f'{", ".join(map(str, damaged))} are damaged or do not exist, and there are '
        f'{self.steps() or "none"}. Restore the folder from a copy, or start in another --workdir.'
      )
    return None

  def _set_aside(self, steps: list[int]) -> None:
    if self.read_only:
      return
    aside = self.folder.with_name('checkpoints_damaged')
    if jax.process_index() == 0:
      aside.mkdir(exist_ok=True)
      for step in steps:
        (self.folder / str(step)).rename(aside / f'{step}.{time.time_ns()}')
    if jax.process_count() > 1:
      multihost_utils.sync_global_devices('damaged checkpoints are set aside')
    self.manager.reload()

  def _read(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    copy = None
    try:
      if self.read_only and jax.process_count() == 1:  # several processes fetch their parts of it
        copy = local_copies.checkpoint(self.folder, step)
      if copy:
        with Checkpoints(copy, 1, read_only=True) as local:
          return local._whole(step, like)
    except Exception as error:  # a full disk, a damaged copy; see restore
      logging.warning('reading from the bucket itself: %s', _first_line(error))
      if copy:
        shutil.rmtree(copy, ignore_errors=True)
    return self._whole(step, like)

  def _whole(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint; a damaged one raises errors of any kind."""
    restored = self.manager.restore(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardRestore(like), extra=ocp.args.JsonRestore()),
    )
    state, extra = restored['state'], dict(restored['extra'])
    marked = [name for name, x in extra.items() if name == WHOLE or str(x).startswith(PREFIX)]
    written = [extra.pop(name) for name in marked]
    if marked and (marked != [WHOLE] or written != [PREFIX + digest.of_json(extra)]):
      raise ValueError('what is saved with the state does not match its digest')
    if extra.pop('step', step) != step or extra.pop('digest') != digest.of_arrays(state):
      raise ValueError('its contents do not match the digest saved with them')
    return state, extra


@functools.cache
def _drop_tracebacks() -> None:
  """Drops what orbax prints of errors that it also raises, and of reads that it then gives up."""
  before = sys.unraisablehook

  def hook(raised) -> None:
    if str(raised.exc_value) != 'Event loop is closed':
      before(raised)

  sys.unraisablehook = hook
  warnings.filterwarnings('ignore', message='coroutine .* was never awaited')
  logging.get_absl_logger().addFilter(
    lambda record: not (record.exc_info and 'orbax' in record.pathname)
  )
  stdlib_logging.getLogger('asyncio').addFilter(
    lambda record: 'exception was never retrieved' not in record.getMessage()
  )


def _no_read_only_warning(record: stdlib_logging.LogRecord) -> bool:
  """A log filter that drops orbax's warnings about read-only managers."""
  warnings = 'CheckpointManagerOptions.read_only=True', 'Given directory is read only='
  return not record.getMessage().startswith(warnings)


def _any_process(problem: str) -> bool:
  """Whether any process has a problem; all must take the same checkpoint."""
  if jax.process_count() == 1:
    return bool(problem)
  return bool(np.any(multihost_utils.process_allgather(np.array(bool(problem)))))


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
