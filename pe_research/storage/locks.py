"""Who may write: one process at a time owns a workdir, or works on a job."""

import contextlib
import pathlib
from collections.abc import Callable

from pe_research.storage import disk, paths
from pe_research.storage.bucket import Lease
from pe_research.storage.disk import Lock
from pe_research.storage.files import store

__all__ = ['Lease', 'Lock', 'claim', 'holder', 'locked', 'take', 'taken_by']

locked = disk.locked


def claim(workdir: pathlib.Path) -> contextlib.AbstractContextManager[Callable[[], None]]:
  """Owns the workdir while the context is open.

  Yields:
    A function that raises WorkdirError once another process has taken the workdir over: in a
    bucket the newest process has it, on a disk the first.

  Raises:
    WorkdirError: it cannot be written, or another process owns it.
  """
  paths.check_plain(workdir)
  return store(workdir).claim(workdir)


def holder(workdir: pathlib.Path) -> str:
  """The number of the process that keeps others from a workdir; '' where none does."""
  return store(workdir).holder(workdir)


def take(path: pathlib.Path) -> Lock | Lease | None:
  """Takes the lock file `path` without waiting; None where another process has it.

  Raises:
    OSError: its folder cannot be written, or its disk has no locks.
  """
  return store(path).take(path)


def taken_by(path: pathlib.Path) -> str:
  """Who has a lock file: 'process 4711 on tpu-vm-1'."""
  text = path.read_text(encoding='utf-8') if path.exists() else ''
  return text.partition('\n')[0] or 'a process'
