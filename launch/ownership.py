"""Who has a job: one launcher at a time, by a lock on a disk and by a lease in a bucket."""

import contextlib
import fcntl
import os
import secrets
import socket
import time
from typing import IO

from launch.job import Job
from pe_research.storage import files, paths

LEASE = 120.0  # seconds; a launcher that is silent for so long has lost its jobs of a bucket
RENEW = 30.0  # seconds between its signs of life
SETTLE = 1.0  # seconds after which two that took a job at once see which of them came last


class Lock:
  """A job of a disk; the system frees it once launcher and process of the job are both gone.

  Attributes:
    inherited: file descriptors that the process of the job keeps open.
  """

  def __init__(self, file: IO):
    """Has the file locked already."""
    self.file, self.inherited = file, (file.fileno(),)

  def say(self, pid: int) -> None:
    """Notes which process runs the job, for those who find it taken."""
    with contextlib.suppress(OSError):  # the disk is full, and the lock holds all the same
      self.file.truncate(0)
      self.file.write(_text(pid))
      self.file.flush()

  def keep(self) -> bool:
    """Says that this launcher lives; False where another has taken the job over."""
    return True

  def close(self) -> None:
    """Lets go."""
    with contextlib.suppress(OSError):
      self.file.close()


class Lease:
  """A job of a bucket: a file that is written again and again, and anybody's when it is old."""

  inherited = ()

  def __init__(self, path):
    """Writes the file."""
    self.path, self.token, self.pid = path, secrets.token_hex(8), os.getpid()
    self._write()

  def _write(self) -> None:
    files.write_bytes(self.path, (_text(self.pid) + self.token).encode())
    self.written = time.monotonic()

  def mine(self) -> bool:
    """Whether nobody has written it since."""
    return self.path.exists() and self.path.read_text().endswith(self.token)

  def say(self, pid: int) -> None:
    """As of a lock."""
    self.pid = pid
    self._write()

  def keep(self) -> bool:
    """As of a lock; writes only now and then."""
    if time.monotonic() - self.written < RENEW:
      return True
    if not self.mine():
      return False
    self._write()
    return True

  def close(self) -> None:
    """Lets go."""
    if self.mine():
      self.path.unlink(missing_ok=True)


def take(job: Job) -> Lock | Lease | None:
  """The job for this launcher, or None where another has it.

  Raises:
    OSError: its folder cannot be written, or its disk has no locks.
  """
  return _lease(_path(job)) if paths.in_bucket(job.log) else _lock(_path(job))


def who(job: Job) -> str:
  """'process 4711 on tpu-vm-1', which runs a job that is taken."""
  path = _path(job)
  return (path.read_text() if path.exists() else '').partition('\n')[0] or 'a process'


def _path(job: Job):
  return job.log.with_suffix('.job')


def _text(pid: int) -> str:
  return f'process {pid} on {socket.gethostname()}\n'


def _lock(path) -> Lock | None:
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open('a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  except OSError:
    file.close()
    raise
  return Lock(file)


def _lease(path) -> Lease | None:
  if path.exists() and time.time() - paths.modified(path) < LEASE:
    return None
  made = Lease(path)
  time.sleep(SETTLE)
  return made if made.mine() else None
