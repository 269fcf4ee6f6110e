"""Local copies of files in a bucket: to read often, or to write line by line."""

import atexit
import functools
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

from pe_research.common import digest, progress
from pe_research.storage import files, locks, paths

CHUNK = 16 * 2**20  # bytes that are copied at a time
UNUSED = 86_400  # seconds after which the copy of a checkpoint that nobody read is removed


def home() -> pathlib.Path:
  """Where copies and compiled programs are kept: $PE_DATA if that is on this machine."""
  data = os.environ.get('PE_DATA', '')
  on_disk = data and not paths.in_bucket(data)
  return pathlib.Path(data if on_disk else '~/.cache/pe_research').expanduser()


def checkpoint(folder: pathlib.Path, step: int) -> pathlib.Path | None:
  """A workdir with a copy of the checkpoint `folder`/`step`, named after the checkpoint's digest.

  None where the checkpoint is on a disk and needs no copy.
  """
  if not paths.in_bucket(folder):
    return None
  saved = folder / str(step)
  key = digest.of_bytes((saved / 'extra' / 'metadata').read_bytes())[:16]
  copies = home() / 'runs'
  if copies.exists():
    for other in copies.iterdir():
      if other.name != key and time.time() - other.stat().st_mtime > UNUSED:
        shutil.rmtree(other, ignore_errors=True)
  _copy_once(saved, copies / key / 'checkpoints' / str(step), progress.unheard)
  os.utime(copies / key)
  return copies / key


def dataset(data_dir: str, name: str, beat: Callable[[str], None]) -> str:
  """A directory of this machine that has the prepared set `data_dir`/`name`, if there is one.

  `beat` is told of every file that is copied from a bucket. '' names no set.
  """
  if not paths.in_bucket(data_dir):
    return os.path.expanduser(data_dir)
  if name:
    _copy_once(paths.place(data_dir) / name, home() / name, beat)
  return str(home())


def _copy_once(source: pathlib.Path, target: pathlib.Path, beat: Callable[[str], None]) -> None:
  """Copies a folder unless the copy is there; all of it or nothing.

  Of several processes one copies while the others wait.
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
    shutil.copyfileobj(read, written, CHUNK)


def growing(path: pathlib.Path) -> pathlib.Path:
  """Where a file is written that grows line by line, which a bucket's cannot; see `upload`."""
  if not paths.in_bucket(path):
    return path
  return _own_folder() / f'{digest.of_bytes(str(path).encode())[:16]}.txt'


@functools.cache
def _own_folder() -> pathlib.Path:
  """A folder for this process that no other user can have made before."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='pe_research-'))
  atexit.register(shutil.rmtree, folder, ignore_errors=True)
  return folder


def upload(path: pathlib.Path) -> None:
  """Copies `growing(path)` to `path`, if they differ."""
  local = growing(path)
  if local != path:
    files.write_bytes(path, local.read_bytes())
