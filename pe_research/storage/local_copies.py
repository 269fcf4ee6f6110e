"""Copies on this machine of what lies in a bucket and is read often."""

import os
import pathlib
import shutil
import time
from collections.abc import Callable

from pe_research.common import digest, progress
from pe_research.storage import locks, paths

PART = 16 * 2**20  # bytes that are copied at a time
UNUSED = 86_400  # seconds after which a checkpoint that nobody read gives its room to others


def home() -> pathlib.Path:
  """Where copies and compiled programs are kept: $PE_DATA where that is on this machine."""
  given = os.environ.get('PE_DATA', '')
  return pathlib.Path(
    given if given and not paths.in_bucket(given) else '~/.cache/pe_research'
  ).expanduser()


def checkpoint(folder: pathlib.Path, step: int) -> pathlib.Path:
  """A workdir of this machine that has the checkpoint `folder`/`step`, named after its digest."""
  saved = folder / str(step)
  key = digest.of_bytes((saved / 'extra' / 'metadata').read_bytes())[:16]
  copies = home() / 'runs'
  if copies.exists():
    for other in copies.iterdir():
      if other.name != key and time.time() - other.stat().st_mtime > UNUSED:
        shutil.rmtree(other, ignore_errors=True)
  copy(saved, copies / key / 'checkpoints' / str(step))
  os.utime(copies / key)
  return copies / key


def copy(
  source: pathlib.Path, target: pathlib.Path, beat: Callable[[str], None] = progress.unheard
) -> None:
  """Copies a folder, unless it is there; all of it or nothing. `beat` is told of every file.

  Several processes may call it at once: one copies, the others wait.
  """
  if target.exists():
    return
  with locks.locked(str(target.with_name(f'{target.name}.lock'))):
    if target.exists() or not source.is_dir():
      return
    partial = target.with_name(f'.{target.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    _copy(source, partial, beat)
    partial.rename(target)


def _copy(source: pathlib.Path, target: pathlib.Path, beat: Callable[[str], None]) -> None:
  if source.is_dir():
    target.mkdir(parents=True)
    for path in source.iterdir():
      _copy(path, target / path.name, beat)
    return
  beat(f'fetching {source}')
  with source.open('rb') as read, target.open('wb') as written:
    shutil.copyfileobj(read, written, PART)
