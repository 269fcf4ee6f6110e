"""Files in a bucket: replaced whole, without locks.

A machine that was lost cannot release anything: the newest process owns a workdir, and a lease that
is not renewed is free.
"""

import contextlib
import os
import pathlib
import secrets
import time
from collections.abc import Callable, Iterator

from pe_research.storage import paths
from pe_research.storage.disk import signature
from pe_research.storage.paths import WorkdirError

LEASE = 120.0  # seconds after which a lease that is not renewed is free
RENEW = 30.0  # seconds between renewals
SETTLE = 1.0  # seconds after which two that took a lease at once see who wrote last


def write(path: pathlib.Path, content: bytes) -> None:
  """Replaces a file: a bucket writes it whole, or not at all."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  except OSError as error:
    raise WorkdirError(f'{path} cannot be written: {error}.') from error


def append(path: pathlib.Path, line: bytes) -> None:
  """Replaces the file by one with a line more."""
  write(path, (path.read_bytes() if path.exists() else b'') + line)


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
  """See locks.claim; the newest process has the workdir."""
  owner, token = workdir / '.owner', secrets.token_hex(16)
  write(owner, token.encode())

  def check() -> None:
    if owner.read_text(encoding='utf-8') != token:
      raise WorkdirError(f'workdir {workdir} was taken over by a newer process; this one leaves.')

  yield check


def holder(workdir: pathlib.Path) -> str:
  """See locks.holder; a claim never fails here."""
  del workdir
  return ''


class Lease:
  """See locks.take: a file that is written again and again, and free once it is old."""

  inherited = ()

  def __init__(self, path: pathlib.Path):
    self.path, self.token, self.pid = path, secrets.token_hex(8), os.getpid()
    self._write()

  def _write(self) -> None:
    write(self.path, (signature(self.pid) + self.token).encode())
    self.written = time.monotonic()

  def owned(self) -> bool:
    """Whether nobody else has written it since."""
    return self.path.exists() and self.path.read_text(encoding='utf-8').endswith(self.token)

  def note(self, pid: int) -> None:
    """See disk.Lock."""
    self.pid = pid
    self._write()

  def renew(self) -> bool:
    """See disk.Lock; writes every RENEW seconds."""
    if time.monotonic() - self.written < RENEW:
      return True
    if not self.owned():
      return False
    self._write()
    return True

  def close(self) -> None:
    """Ends the lease."""
    if self.owned():
      self.path.unlink(missing_ok=True)


def _now(path: pathlib.Path) -> float:
  """The bucket's own time, as `paths.modified`: clocks of machines may be minutes apart."""
  probe = path.with_name(f'{path.name}.{secrets.token_hex(8)}.now')
  write(probe, b'')
  try:
    return paths.modified(probe)
  finally:
    probe.unlink(missing_ok=True)


def take(path: pathlib.Path) -> Lease | None:
  """See locks.take."""
  if path.exists() and _now(path) - paths.modified(path) < LEASE:
    return None
  lease = Lease(path)
  time.sleep(SETTLE)
  return lease if lease.owned() else None
