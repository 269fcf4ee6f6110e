"""Asking a run to stop: it saves first."""

import signal
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


class Stop:
  """Notes SIGTERM and SIGINT, so that the loop can save before it leaves."""

  def __init__(self, config: Mapping[str, Any]):
    """Several processes agree every `run.log_every` steps; one asks itself after each."""
    self.every = config['run']['log_every']

  def __enter__(self) -> 'Stop':
    self.noted = False
    self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
    return self

  def _note(self, number, _) -> None:
    self.noted = True
    signal.signal(number, self.before[number])  # a second one acts at once

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
