"""Files on a disk: replaced and appended whole, locked by flock, which a process's end frees."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from pe_research.common import checks
from pe_research.storage.paths import WorkdirError


def write(path: pathlib.Path, content: bytes) -> None:
  """Replaces a file, through a temporary one beside it."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  check_regular(path)
  try:
    with temporary.open('wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise WorkdirError(f'{path} cannot be written: {error.strerror}.') from error


def check_regular(path: pathlib.Path) -> None:
  """As checks.regular, with a WorkdirError."""
  try:
    checks.regular(path)
  except ValueError as error:
    raise WorkdirError(str(error)) from error


def check_writable(path: pathlib.Path, makes_folder: bool) -> None:
  """See files.check_writable; leaves nothing behind."""
  check_regular(path)
  folder = path.parent
  while makes_folder and not folder.exists():
    folder = folder.parent
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise WorkdirError(f'{path} cannot be written: {error.strerror}. Name another.') from error


def append(path: pathlib.Path, line: bytes) -> None:
  """Appends a line, and first removes one that a kill has cut off."""
  try:
    with path.open('ab+', buffering=0) as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      end = _end_of_lines(file)
      file.truncate(end)
      try:
        written = file.write(line)
        if written != len(line):
          raise OSError(errno.ENOSPC, f'only {written} of {len(line)} bytes fit')
        os.fsync(file.fileno())
      except OSError:
        file.truncate(end)
        raise
  except OSError as error:
    raise WorkdirError(
      f'{path}: a row of {len(line)} bytes cannot be written ({error.strerror}); none of it was '
      'kept. Free space or choose another --workdir.'
    ) from error


def _end_of_lines(file: IO[bytes]) -> int:
  """Bytes up to the end of the last whole line."""
  end = file.seek(0, os.SEEK_END)
  while end:
    begin = max(0, end - 65536)
    file.seek(begin)
    newline = file.read(end - begin).rfind(b'\n')
    if newline >= 0:
      return begin + newline + 1
    end = begin
  return 0


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
  """Holds the lock file `path`; waits while another process holds it."""
  os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
  with open(path, 'a', encoding='utf-8') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
  """See locks.claim; no other process can take a workdir over."""
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _lock_file(workdir).open('a+', encoding='utf-8')
  except OSError as error:
    raise WorkdirError(
      f'workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir.'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      lock.seek(0)
      raise WorkdirError(
        f'workdir {workdir} is in use by process {lock.read() or "unknown"}; wait for it or choose '
        'another --workdir.'
      ) from error
    except OSError as error:
      raise WorkdirError(
        f'workdir {workdir} cannot be locked: {error.strerror}. Choose a --workdir on a disk that '
        'has locks.'
      ) from error
    with contextlib.suppress(OSError):  # the disk is full, and the lock holds all the same
      lock.truncate(0)
      lock.write(str(os.getpid()))
      lock.flush()
    yield lambda: None


def holder(workdir: pathlib.Path) -> str:
  """See locks.holder."""
  path = _lock_file(workdir)
  if not path.exists():
    return ''
  with path.open(encoding='utf-8') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return lock.read() or 'unknown'
  return ''


def _lock_file(workdir: pathlib.Path) -> pathlib.Path:
  return workdir / '.lock'


class Lock:
  """See locks.take: a lock that is free once no process has `inherited` open.

  Attributes:
    inherited: file descriptors, for a child process to keep open.
  """

  def __init__(self, file: IO):
    self.file, self.inherited = file, (file.fileno(),)

  def note(self, pid: int) -> None:
    """Writes down which process works, for those who find it locked."""
    with contextlib.suppress(OSError):  # the disk is full, and the lock holds all the same
      self.file.truncate(0)
      self.file.write(signature(pid))
      self.file.flush()

  def renew(self) -> bool:
    """Says that this process lives; False where another has taken over."""
    return True

  def close(self) -> None:
    """Releases the lock."""
    with contextlib.suppress(OSError):
      self.file.close()


def take(path: pathlib.Path) -> Lock | None:
  """See locks.take."""
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open('a', encoding='utf-8')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  except OSError:
    file.close()
    raise
  return Lock(file)


def signature(pid: int) -> str:
  """The first line of a file that locks.take has made."""
  return f'process {pid} on {socket.gethostname()}\n'
