"""Locks: of a file, waited for; of a workdir, which one process at a time owns."""

import contextlib
import fcntl
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator

from pe_research.storage import files, paths


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
  """Holds the lock file `path`, waiting for whoever has it; the system frees it if they die."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  with open(path, 'a') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
  """Holds the workdir for this process.

  Yields:
    What raises WorkdirError once another process has taken it over. On a disk none can; a bucket
    has no locks, and a machine that was lost cannot let go: there the newest process has it.

  Raises:
    WorkdirError: it cannot be written, or another process holds it.
  """
  if paths.in_bucket(workdir):
    yield _take_over(workdir)
    return
  path = workdir / '.lock'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = path.open('a+')
  except OSError as error:
    raise files.WorkdirError(
      f'workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir.'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      lock.seek(0)
      raise files.WorkdirError(
        f'workdir {workdir} is in use by process {lock.read() or "unknown"}; wait for it or choose '
        'another --workdir.'
      ) from error
    except OSError as error:
      raise files.WorkdirError(
        f'workdir {workdir} cannot be locked: {error.strerror}. Choose a --workdir on a disk that '
        'has locks.'
      ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    yield lambda: None


def holder(workdir: pathlib.Path) -> str:
  """The process that holds a workdir of a disk, by number; '' where none does."""
  path = workdir / '.lock'
  if paths.in_bucket(workdir) or not path.exists():
    return ''
  with path.open() as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return lock.read() or 'unknown'
  return ''


def _take_over(workdir: pathlib.Path) -> Callable[[], None]:
  owner, token = workdir / '.owner', secrets.token_hex(16)
  files.put(owner, token.encode())

  def check() -> None:
    if owner.read_text() != token:
      raise files.WorkdirError(
        f'workdir {workdir} was taken over by a newer process; this one leaves.'
      )

  return check
