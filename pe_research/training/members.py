"""Several seeds of one run, trained in one program."""

import contextlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pe_research.attention import attend
from pe_research.common import digest, nested, progress, sharding
from pe_research.data import batches, texts
from pe_research.evaluation import measures, validation
from pe_research.machines import jax_setup, signals
from pe_research.model.functional import Blueprint
from pe_research.proof import programs
from pe_research.runs import checkpoints, run_folder
from pe_research.training import (
  costs,
  loop,
  metrics,
  optimizers,
  run_record,
  train_state,
  train_step,
)

SEED = '{seed}'  # what stands for the seed in --workdir


class Member:
  """One seed among those that train together: its folder, its batches, its record."""

  def __init__(self, config: Mapping[str, Any], workdir: pathlib.Path):
    """Reads the corpus; checkpoints not yet."""
    self.config, self.workdir = config, workdir
    self.blueprint, self.corpus = Blueprint(config), texts.load(config)
    self.stream = batches.build(self.corpus, config)

  def open(self, stack: contextlib.ExitStack) -> None:
    """Opens the checkpoints, until the stack is closed."""
    keep = self.config['run']['keep']
    self.saved = stack.enter_context(checkpoints.Checkpoints(self.workdir, keep))

  def begin(self, step: int, optimizer, layout, like, shown) -> train_state.State:
    """The state after `step` steps, and the record."""
    if step:
      run_folder.check_data(self.workdir, self.corpus.facts)
      common = self.config, self.blueprint, self.corpus, self.workdir, self.stream
      state, self.record = run_record.resume(*common, self.saved.restore(like, step), shown)
      return state
    state, start = train_state.begin(self.config, self.blueprint, optimizer, layout)
    common = self.config, self.blueprint, self.corpus
    self.record = run_record.describe(*common, state['params'], start, shown)
    return state

  def announce(self, seeds: Sequence[int], step: int, stack: contextlib.ExitStack) -> None:
    """Writes config and record, and opens the log."""
    self.record['together'] = list(seeds)
    run_record.write(self.workdir, 'config.json', self.config)
    run_record.write(self.workdir, 'run.json', self.record)
    least = costs.least_seconds_per_token(self.record['train_flops_per_token'])
    log = metrics.Writer(self.workdir, self.config, step, jax.process_index(), least)
    self.log = stack.enter_context(log)
    for note in self.record['notes']:
      self.log.note(note)

  def save(self, step: int, state: train_state.State, layout) -> None:
    """Saves the state, unless it did before a kill that came before others had."""
    if step not in self.saved.steps():
      own = jax.tree.map(sharding.place, state, layout)
      self.saved.save(step, own, {'batches': self.stream.state()})

  def finish(self, params) -> None:
    """Writes the record of a whole run."""
    final = {'batches': self.stream.chain, 'final_parameters': digest.of_arrays(params)}
    run_record.write(
      self.workdir, 'run.json', self.record | {'steps': self.config['steps']} | final
    )


def train_all(
  runs: Mapping[pathlib.Path, Mapping[str, Any]],
  beat: Callable[[str], None] = progress.unheard,
) -> bool:
  """Trains runs that differ in their seed alone; those that are finished are left alone.

  Args:
    runs: resolved configs by workdir.
    beat: is told what is begun.

  Returns:
    Whether all are finished; False if a signal stopped them, and the same call goes on.

  Raises:
    ValueError: see `check`.
  """
  check([*runs.values()])
  config = next(iter(runs.values()))
  batches.check(config)
  jax_setup.prepare(config)
  mesh = sharding.mesh(config['run']['mesh'])
  rows = sharding.split_batch(mesh, config['optimizer']['batch'], config['optimizer']['accumulate'])
  members = [Member(c, workdir) for workdir, c in runs.items() if not run_record.finished(workdir)]
  if not members:
    return True
  blueprint, corpus = members[0].blueprint, members[0].corpus
  measures.plan(corpus, config)  # what could not be evaluated is not trained
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = train_state.layout(blueprint, optimizer, mesh)
  like = train_state.abstract(blueprint, optimizer, mesh)
  spec = attend.Spec(**config['attention'], mesh=rows.mesh)
  validate = (
    validation.validator(blueprint, corpus, config, mesh) if config['eval']['every'] else None
  )
  with contextlib.ExitStack() as stack:
    stopped = stack.enter_context(signals.Stop())  # the first is left last, see loop.train
    for member in members:
      member.open(stack)
    start = max(set.intersection(*(set(m.saved.steps()) for m in members)), default=0)
    shown = programs.of_training(config)
    begun = [member.begin(start, optimizer, layout, like, shown) for member in members]
    for member in members:
      member.announce([m.config['seed'] for m in members], start, stack)
      programs.keep(member.workdir, shown.values())
    state = jax.tree.map(lambda *x: jnp.stack(x), *begun)
    seeds = jnp.stack([train_step.seed(member.config, mesh) for member in members])
    beat('compiling the step')
    step_fn = jax.vmap(train_step.plain(config, blueprint, optimizer, spec))
    step_fn = jax.jit(step_fn, donate_argnums=0)
    pending = None
    for step in range(start, config['steps']):
      beat(f'step {step + 1}')
      batch = jax.tree.map(lambda *x: np.stack(x), *(next(m.stream) for m in members))
      state, measured = step_fn(state, batch, seeds)
      _report(members, pending)  # of the step before, while this one runs
      pending = step + 1, measured
      if loop.due(step + 1, config['eval']['every'], config['steps']):
        for i, member in enumerate(members):
          member.log.write(step + 1, validate(_part(state['params'], i)))
      leaving = stopped.agreed(step + 1)
      if leaving or loop.due(step + 1, config['run']['save_every'], config['steps']):
        _report(members, pending)  # a NaN never reaches a checkpoint
        pending = None
        for i, member in enumerate(members):
          member.save(step + 1, _part(state, i), layout)
      if leaving:
        return False
  for i, member in enumerate(members):
    member.finish(_part(state['params'], i))
  return True


def _part(tree, i: int):
  return jax.tree.map(lambda x: x[i], tree)


def _report(members: Sequence[Member], pending) -> None:
  """Writes the metrics of a step of all members."""
  if pending is None:
    return
  measured = jax.device_get(pending[1])
  for i, member in enumerate(members):
    loop.write_metrics(member.log, pending[0], _part(measured, i), member.config)


def check(given: Sequence[Mapping[str, Any]]) -> None:
  """Raises ValueError where runs cannot train together.

  They differ in more than their seed, train nothing, or this process sees several devices.
  """
  if not given[0]['steps']:
    raise ValueError(
      'steps is 0, so there is nothing to train together; evaluate the model by main.'
    )
  for other in given[1:]:
    changed = [
      line
      for line in nested.difference(given[0], other)
      if line.partition(':')[0] not in ('seed', 'data.seed')
    ]
    if changed:
      raise ValueError(f'{changed[0]}; runs that train together differ in their seed alone.')
  devices = sharding.mesh(given[0]['run']['mesh']).size
  if devices > 1:
    raise ValueError(
      f'there are {devices} devices; seeds that train together share one. Let this process see one '
      '(python -m launch run gives each of its workers one), or train the seeds one by one.'
    )
