"""Being asked to stop, once and again."""

import signal

import numpy as np
import pytest
import run_fixtures

from pe_research import main
from pe_research.machines import signals
from pe_research.runs import checkpoints


def test_only_a_second_interrupt_ends_at_once(monkeypatch):
  clock = [100.0]
  monkeypatch.setattr(signals.time, 'monotonic', lambda: clock[0])
  with signals.Stop() as asked:
    assert not asked.agreed(1)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)  # in a moment with the others
    assert asked.agreed(1)
    clock[0] += 2 * signals.APART
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
  ('seconds', 'apart'), [(0.001, signals.MOST), (0.5, 4), (18.0, 1)], ids=['fast', 'usual', 'slow']
)
def test_several_processes_ask_each_other_every_few_seconds(seconds, apart, monkeypatch):
  """The other takes as long for a step, and is told to stop in the end."""
  clock, other, gathered = [0.0], [False], []

  def gather(mine):
    gathered.append(step)
    return np.stack([mine, np.array([other[0], mine[1]])])

  monkeypatch.setattr(signals.time, 'monotonic', lambda: clock[0])
  monkeypatch.setattr(signals.jax, 'process_count', lambda: 2)
  monkeypatch.setattr(signals.multihost_utils, 'process_allgather', gather)
  with signals.Stop() as asked:
    for step in range(1, 500):
      clock[0] += seconds
      other[0] = step >= 300
      if asked.agreed(step):
        break
  assert set(np.diff(gathered)) == {apart}
  assert step - 300 < apart


def test_signals_are_noted_until_the_last_save_is_written(tmp_path, monkeypatch):
  handlers, leave = [], checkpoints.Checkpoints.__exit__

  def spy(self, *error):
    handlers.append(signal.getsignal(signal.SIGTERM))
    leave(self, *error)

  monkeypatch.setattr(checkpoints.Checkpoints, '__exit__', spy)
  main.run(
    run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'), steps=4), tmp_path / 'run'
  )
  assert handlers[0].__func__ is signals.Stop._note
