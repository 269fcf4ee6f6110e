"""One run while it trains: its folder, its batches, its record, its log."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from pe_research.common import digest, sharding
from pe_research.data import batches, texts
from pe_research.model.functional import FunctionalDecoder
from pe_research.proof import programs
from pe_research.runs import checkpoints, run_folder
from pe_research.training import costs, metrics, run_record, train_state


class Member:
  """A run, alone or one of several seeds that train in one program.

  Attributes:
    stream: its batches.
    saved: its checkpoints.
    record: its run.json, once it has begun.
    log: where its metrics go, once they are announced.
  """

  def __init__(
    self,
    config: Mapping[str, Any],
    workdir: pathlib.Path,
    functional: FunctionalDecoder,
    corpus: texts.Corpus,
    stack: contextlib.ExitStack,
  ):
    """Opens the checkpoints, until `stack` is closed; changes nothing."""
    self.config, self.workdir, self.corpus, self.stack = config, workdir, corpus, stack
    self.functional = functional
    self.stream = batches.build(corpus, config, functional.scheme.reads_beyond)
    self.saved = stack.enter_context(checkpoints.Checkpoints(workdir, config['run']['keep']))
    if self.saved.steps():
      run_folder.check_data(workdir, corpus.facts)

  def final(self, like: train_state.State) -> train_state.State | None:
    """The state of a finished run; None of one that has steps to go."""
    if not run_record.finished(self.workdir):
      return None
    restored = self.saved.restore(like)
    whole = restored is not None and int(restored[0]['step']) == self.config['steps']
    return restored[0] if whole else None

  def begin(
    self, optimizer, like: train_state.State, restored, shown: Mapping[str, programs.Both]
  ) -> train_state.State:
    """The state before the next step, and the record.

    Args:
      optimizer: of the config.
      like: shapes and layout of the state.
      restored: of `Checkpoints.restore`; None before the first step.
      shown: its programs by name, see training.programs.
    """
    self.shown = shown
    built = self.config, self.functional, self.corpus
    if restored is None:
      state, start = train_state.begin(self.config, self.functional, optimizer, like)
      self.record = run_record.describe(*built, state['params'], start, shown)
    else:
      state, extra = restored
      self.stream.restore(extra['batches'])
      self.record = run_record.describe_resumed(*built, self.workdir, shown)
    return state

  def announce(self, start: int, seeds: Sequence[int], cost: Mapping[str, Any]) -> None:
    """Writes config, record and programs, and opens the log.

    Args:
      start: steps that were trained before.
      seeds: of all that train in this program.
      cost: of one step of the program.
    """
    self.record['step_cost'] = dict(cost)
    if len(seeds) > 1:
      self.record['together'] = list(seeds)
    programs.keep(self.workdir, self.shown.values())
    run_record.write(self.workdir, 'config.json', self.config)
    run_record.write(self.workdir, 'run.json', self.record)
    least = costs.least_seconds_per_token(self.record['train_flops_per_token'])
    log = metrics.Writer(self.workdir, self.config, start, jax.process_index(), least)
    self.log = self.stack.enter_context(log)
    for note in self.record['notes']:
      self.log.note(note)

  def save(self, step: int, state: train_state.State, like: train_state.State) -> None:
    """Saves the state, unless it did before a kill that came before others had."""
    if step in self.saved.steps():
      return
    place = lambda x, wanted: x if x.sharding == wanted else sharding.place(x, wanted)
    own = jax.tree.map(place, state, train_state.layout(like))
    self.saved.save(step, own, {'batches': self.stream.state()})

  def finish(self, params) -> None:
    """Writes the record of a whole run."""
    final = {'batches': self.stream.chain, 'final_parameters': digest.of_arrays(params)}
    whole = self.record | {'steps': self.config['steps']} | final
    run_record.write(self.workdir, 'run.json', whole)
