"""SIGTERM and SIGINT ask a run to stop; it saves a checkpoint first."""

import signal
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

APART = 1.0  # seconds; a second Ctrl-C sooner than this may be the first, sent twice
EVERY, MOST = 2.0, 100  # seconds, and at most steps, between the processes' agreements


class Stop:
  """Records SIGTERM and SIGINT, so that the loop can save before it ends.

  A process in a tree may get one signal twice, directly and through its parent: so SIGTERM never
  ends the run before it has saved. SIGKILL does, and a second Ctrl-C.
  """

  def __enter__(self) -> 'Stop':
    self.noted, self.since = False, 0.0
    self.next, self.last, self.asked = 0, 0, time.monotonic()
    self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
    return self

  def _note(self, number, _) -> None:
    if not self.noted:
      self.noted, self.since = True, time.monotonic()
    elif number == signal.SIGINT and time.monotonic() - self.since > APART:
      raise KeyboardInterrupt

  def agreed(self, step: int) -> bool:
    """Whether any process was asked to stop; all must agree, since saving is collective.

    A single process looks after each step; several communicate every few seconds.
    """
    if jax.process_count() == 1:
      return self.noted
    if step < self.next:
      return False
    now = time.monotonic()
    mine = np.array([self.noted, (now - self.asked) / max(step - self.last, 1)])
    noted, seconds = multihost_utils.process_allgather(mine).max(0)  # the same in all processes
    self.last, self.asked = step, now
    self.next = step + int(np.clip(EVERY / max(seconds, 1e-9), 1, MOST))
    return bool(noted)

  def __exit__(self, *_) -> None:
    for number, handler in self.before.items():
      signal.signal(number, handler)
