"""Heartbeats in the workdir, and a watchdog that ends a run that hangs."""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable

import jax

from pe_research.machines import exits, multiprocess
from pe_research.storage import files, paths

EVERY = 20.0  # seconds between heartbeats, at least


class Heartbeat:
  """Writes workdir/heartbeat-PROCESS.json while a run progresses; ends the process if it hangs.

  A collective hangs for ever when a machine is lost, while a scheduler sees a live process.
  """

  def __init__(
    self, workdir: pathlib.Path, patience: float, check_owner: Callable[[], None] = lambda: None
  ):
    """Watches a run.

    Args:
      workdir: of the run.
      patience: seconds for one step or one measurement; 0: for ever.
      check_owner: raises where another process has taken the workdir over, see locks.claim.
    """
    self.workdir, self.path = workdir, workdir / f'heartbeat-{jax.process_index()}.json'
    self.patience, self.me, self.check_owner = patience, multiprocess.process_name(), check_owner
    self.doing, self.since, self.written = 'starting', time.monotonic(), -EVERY
    self.ended = threading.Event()

  def __enter__(self) -> 'Heartbeat':
    if self.patience:
      threading.Thread(target=self._watch, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self.ended.set()

  def beat(self, doing: str) -> None:
    """Says what begins; what began before has ended."""
    self.doing, self.since = doing, time.monotonic()
    if self.since - self.written >= EVERY:
      self.check_owner()
      self.written = self.since
      files.write_json(self.path, {'doing': doing, 'time': time.time(), 'process': self.me})

  def _watch(self) -> None:
    while not self.ended.wait(min(self.patience / 4, 10.0)):
      took = time.monotonic() - self.since
      if took > self.patience / 4:
        with contextlib.suppress(ValueError, OSError):  # keep watching
          files.write_bytes(self._waiting(jax.process_index()), self.doing.encode())
      if took > self.patience:
        print(
          f'{self.me} hangs: {self.doing} began {took:.0f} s ago and run.patience is '
          f'{self.patience:g} s{self._silent()}. It exits; the same command resumes from the last '
          'checkpoint.',
          file=sys.stderr, flush=True,
        )  # fmt: skip
        faulthandler.dump_traceback(all_threads=True)
        os._exit(exits.STOPPED)

  def _waiting(self, rank: int) -> pathlib.Path:
    """A file that a process without progress rewrites while it lives."""
    return self.workdir / f'.waits-{rank}'

  def _silent(self) -> str:
    """Names the other processes that have not even rewritten their waiting file."""
    others = set(range(jax.process_count())) - {jax.process_index()}
    silent = []
    for rank in sorted(others):
      with contextlib.suppress(OSError):
        if time.time() - paths.modified(self._waiting(rank)) < self.patience / 2:
          continue
      beat = files.read_json(self.workdir / f'heartbeat-{rank}.json') or {}
      silent.append(beat.get('process', f'process {rank}'))
    return f'; nothing is heard of {", ".join(silent)}' if silent else ''
