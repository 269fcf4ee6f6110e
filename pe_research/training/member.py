"""A run while it trains: its folder, batches, checkpoints, record and log."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from pe_research.common import digest, sharding
from pe_research.data import batches, texts
from pe_research.model.functional import FunctionalDecoder
from pe_research.proof import programs
from pe_research.runs import checkpoints, conditions, run_folder
from pe_research.storage import files
from pe_research.training import costs, metrics, run_record, train_state


class Member:
  """A run, alone or one of several seeds in one program.

  Attributes:
    stream: its batches.
    saved: its checkpoints.
    record: contents of its run.json, set by `begin`.
    log: writer of its metrics, set by `announce`.
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
    self.identity = digest.of_json(conditions.experiment(config))
    self.stream = batches.build(corpus, config, functional.scheme.reads_beyond)
    self.saved = stack.enter_context(checkpoints.Checkpoints(workdir, config['run']['keep']))
    if self.saved.steps():
      run_folder.check_data(workdir, corpus.facts)

  def final(self, like: train_state.State) -> train_state.State | None:
    """The state of a finished run; None if it has steps left."""
    if not run_record.finished(self.workdir):
      return None
    restored = self.saved.restore(like)
    whole = restored is not None and int(restored[0]['step']) == self.config['steps']
    if not whole:
      return None
    folder, params = self.workdir / 'checkpoints', restored[0]['params']
    train_state.check_final(self.workdir, folder, params, self.config['steps'])
    return restored[0]

  def begin(
    self, optimizer, like: train_state.State, restored, texts: Mapping[str, programs.Both]
  ) -> train_state.State:
    """Returns the state before the next step, and sets the record.

    Args:
      optimizer: of the config.
      like: shapes and layout of the state.
      restored: of `Checkpoints.restore`; None before the first step.
      texts: of its programs by name, see training.programs.
    """
    self.texts = texts
    parts = self.config, self.functional, self.corpus
    if restored is None:
      state, start = train_state.begin(self.config, self.functional, optimizer, like)
      self.record = run_record.describe(*parts, state['params'], start, texts)
    else:
      state, extra = restored
      if extra.get('config', self.identity) != self.identity:
        raise files.WorkdirError(
          f'{self.workdir / "checkpoints"} is of a run with another config than config.json has; '
          'restore it from a copy, or begin again in another --workdir.'
        )
      self.stream.restore(extra['batches'])
      self.record = run_record.describe_resumed(*parts, self.workdir, texts)
    return state

  def announce(self, start: int, seeds: Sequence[int], cost: Mapping[str, Any]) -> None:
    """Writes config, record and programs, and opens the log.

    Args:
      start: steps trained before.
      seeds: of all that train in this program.
      cost: of one step of the program.
    """
    self.record['step_cost'] = dict(cost)
    if len(seeds) > 1:
      self.record['together'] = list(seeds)
    programs.keep(self.workdir, self.texts.values())
    run_record.write(self.workdir, 'config.json', self.config)
    run_record.write(self.workdir, 'run.json', self.record)
    least = costs.least_seconds_per_token(self.record['train_flops_per_token'])
    log = metrics.Writer(self.workdir, self.config, start, jax.process_index(), least)
    self.log = self.stack.enter_context(log)
    for note in self.record['notes']:
      self.log.note(note)

  def save(self, step: int, state: train_state.State, like: train_state.State) -> None:
    """Saves the state, unless it is saved: a kill may have come between several runs' saves."""
    if step in self.saved.steps():
      return

    def place(x, layout):
      return x if x.sharding == layout else sharding.place(x, layout)

    placed = jax.tree.map(place, state, train_state.layout(like))
    self.saved.save(step, placed, {'batches': self.stream.state(), 'config': self.identity})

  def finish(self, params) -> None:
    """Writes the record of a finished run."""
    final = {
      'steps': self.config['steps'],
      'batches': self.stream.chain,
      'final_parameters': digest.of_arrays(params),
    }
    run_record.write(self.workdir, 'run.json', self.record | final)
