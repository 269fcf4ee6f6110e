"""Asking a run to stop: it saves first."""

import signal
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

APART = 1.0  # seconds between two signals that were meant as two


class Stop:
  """Notes SIGTERM and SIGINT, so that the loop can save before it leaves.

  Whoever stops a tree of processes may reach one of them twice, by itself and through its parent:
  so SIGTERM never ends the run before it has saved. SIGKILL does, and a second Ctrl-C.
  """

  def __init__(self, config: Mapping[str, Any]):
    """Several processes agree every `run.log_every` steps; one asks itself after each."""
    self.every = config['run']['log_every']

  def __enter__(self) -> 'Stop':
    self.noted, self.since = False, 0.0
    self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
    return self

  def _note(self, number, _) -> None:
    if not self.noted:
      self.noted, self.since = True, time.monotonic()
    elif number == signal.SIGINT and time.monotonic() - self.since > APART:
      raise KeyboardInterrupt

  def agreed(self, step: int) -> bool:
    """Whether any process was asked to stop; all must know, since saving is collective."""
    if jax.process_count() == 1:
      return self.noted
    if step % self.every:
      return False
    return bool(np.any(multihost_utils.process_allgather(np.array(self.noted))))

  def __exit__(self, *_) -> None:
    for number, handler in self.before.items():
      signal.signal(number, handler)
