"""Being asked to stop, once and again."""

import signal

import pytest
import small

from pe_research import checkpoints, main, stop

CONFIG = {'run': {'log_every': 1}}


def test_only_a_second_interrupt_ends_at_once(monkeypatch):
  clock = [100.0]
  monkeypatch.setattr(stop.time, 'monotonic', lambda: clock[0])
  with stop.Stop(CONFIG) as asked:
    assert not asked.agreed(1)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)  # in a moment with the others
    assert asked.agreed(1)
    clock[0] += 2 * stop.APART
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signals_are_noted_until_the_last_save_is_written(tmp_path, monkeypatch):
  handlers, leave = [], checkpoints.Checkpoints.__exit__

  def spy(self, *error):
    handlers.append(signal.getsignal(signal.SIGTERM))
    leave(self, *error)

  monkeypatch.setattr(checkpoints.Checkpoints, '__exit__', spy)
  main.run(small.config(small.write_corpus(tmp_path / 'text'), steps=4), tmp_path / 'run')
  assert handlers[0].__func__ is stop.Stop._note
