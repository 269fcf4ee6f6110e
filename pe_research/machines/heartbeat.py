"""Signs of life in the workdir, and an end to a run that hangs."""

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

EVERY = 20.0  # seconds between signs of life, at least


class Heartbeat:
  """Writes workdir/heartbeat-PROCESS.json as a run gets on; ends the process when it does not.

  A collective hangs for ever when a machine is lost, and a scheduler sees a process that lives.
  """

  def __init__(
    self, workdir: pathlib.Path, patience: float, mine: Callable[[], None] = lambda: None
  ):
    """Watches a run.

    Args:
      workdir: of the run.
      patience: seconds, for one step or one measurement; 0: for ever.
      mine: raises where the workdir is no longer this process's, see locks.claim.
    """
    self.workdir, self.path = workdir, workdir / f'heartbeat-{jax.process_index()}.json'
    self.patience, self.me, self.mine = patience, multiprocess.me(), mine
    self.doing, self.since, self.written = 'starting', time.monotonic(), -EVERY
    self.left = threading.Event()

  def __enter__(self) -> 'Heartbeat':
    if self.patience:
      threading.Thread(target=self._watch, name='watchdog', daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self.left.set()

  def beat(self, doing: str) -> None:
    """Says what is begun now; what was said before is over."""
    self.doing, self.since = doing, time.monotonic()
    if self.since - self.written >= EVERY:
      self.mine()
      self.written = self.since
      sign = {'doing': doing, 'time': time.time(), 'process': self.me}
      files.write_json(self.path, sign)

  def _watch(self) -> None:
    while not self.left.wait(min(self.patience / 4, 10.0)):
      took = time.monotonic() - self.since
      if took > self.patience / 4:
        self._wait()
      if took > self.patience:
        print(
          f'{self.me} hangs: {self.doing} began {took:.0f} s ago and run.patience is '
          f'{self.patience:g} s{self._silent()}. It exits; the same command resumes from the last '
          'checkpoint.',
          file=sys.stderr, flush=True,
        )  # fmt: skip
        faulthandler.dump_traceback(all_threads=True)
        os._exit(exits.STOPPED)

  def _mark(self, rank: int) -> pathlib.Path:
    """What a process that hangs keeps writing while it is there; no sign that it gets on."""
    return self.workdir / f'.waits-{rank}'

  def _wait(self) -> None:
    with contextlib.suppress(ValueError, OSError):  # the watch goes on
      files.write_bytes(self._mark(jax.process_index()), self.doing.encode())

  def _silent(self) -> str:
    """Names the other processes that do not even wait."""
    others = set(range(jax.process_count())) - {jax.process_index()}
    silent = []
    for rank in sorted(others):
      with contextlib.suppress(OSError):
        if time.time() - paths.modified(self._mark(rank)) < self.patience / 2:
          continue
      sign = files.read_json(self.workdir / f'heartbeat-{rank}.json') or {}
      silent.append(sign.get('process', f'process {rank}'))
    return f'; nothing is heard of {", ".join(silent)}' if silent else ''
