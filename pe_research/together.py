r"""Trains several seeds of one run in one program; each ends as a run of its own.

  python -m pe_research.together --config=configs/lm.py:position=alibi --seeds=0,1,2 \
    --workdir=results/alibi_seed{seed}

For models too small to keep an accelerator busy. A seed computes what its single run computes, to
tolerance, along a new first axis of everything. Interrupted, the same command goes on from the
newest checkpoint that all seeds have; so does the single run of each.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pe_research import (
  attend,
  batches,
  checkpoints,
  cli,
  comparable,
  configs,
  costs,
  data,
  digest,
  evaluate,
  heartbeat,
  lineage,
  measures,
  metrics,
  optimizers,
  paths,
  program_store,
  programs,
  records,
  runtime,
  sharding,
  states,
  stop,
  train,
  training_step,
)
from pe_research.blueprint import Blueprint

SEED = '{seed}'  # what stands for the seed in --workdir


class Member:
  """One seed among those that train together: its folder, its batches, its record."""

  def __init__(self, config: Mapping[str, Any], workdir: pathlib.Path):
    """Reads the corpus; checkpoints not yet."""
    self.config, self.workdir = config, workdir
    self.blueprint, self.corpus = Blueprint(config), data.load(config)
    self.stream = batches.build(self.corpus, config)

  def open(self, stack: contextlib.ExitStack) -> None:
    """Opens the checkpoints, until the stack is closed."""
    keep = self.config['run']['keep']
    self.saved = stack.enter_context(checkpoints.Checkpoints(self.workdir, keep))

  def begin(self, step: int, optimizer, layout, like, shown) -> states.State:
    """The state after `step` steps, and the record."""
    if step:
      records.check_data(self.workdir, self.corpus.facts)
      common = self.config, self.blueprint, self.corpus, self.workdir, self.stream
      state, self.record = train.resume(*common, self.saved.restore(like, step), shown)
      return state
    state, start = states.begin(self.config, self.blueprint, optimizer, layout)
    common = self.config, self.blueprint, self.corpus
    self.record = train.describe(*common, state['params'], start, shown)
    return state

  def announce(self, seeds: Sequence[int], step: int, stack: contextlib.ExitStack) -> None:
    """Writes config and record, and opens the log."""
    self.record['together'] = list(seeds)
    train.write(self.workdir, 'config.json', self.config)
    train.write(self.workdir, 'run.json', self.record)
    least = costs.least_seconds_per_token(self.record['train_flops_per_token'])
    log = metrics.Writer(self.workdir, self.config, step, jax.process_index(), least)
    self.log = stack.enter_context(log)
    for note in self.record['notes']:
      self.log.note(note)

  def save(self, step: int, state: states.State, layout) -> None:
    """Saves the state, unless it did before a kill that came before others had."""
    if step not in self.saved.steps():
      own = jax.tree.map(sharding.place, state, layout)
      self.saved.save(step, own, {'batches': self.stream.state()})

  def finish(self, params) -> None:
    """Writes the record of a whole run."""
    final = {'batches': self.stream.chain, 'final_parameters': digest.of_arrays(params)}
    train.write(self.workdir, 'run.json', self.record | {'steps': self.config['steps']} | final)


def train_all(
  runs: Mapping[pathlib.Path, Mapping[str, Any]],
  beat: Callable[[str], None] = heartbeat.unheard,
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
  runtime.prepare(config)
  mesh = sharding.mesh(config['run']['mesh'])
  rows = sharding.split_batch(mesh, config['optimizer']['batch'], config['optimizer']['accumulate'])
  members = [Member(c, workdir) for workdir, c in runs.items() if not train.finished(workdir)]
  if not members:
    return True
  blueprint, corpus = members[0].blueprint, members[0].corpus
  measures.plan(corpus, config)  # what could not be evaluated is not trained
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = states.layout(blueprint, optimizer, mesh)
  like = states.abstract(blueprint, optimizer, mesh)
  spec = attend.Spec(**config['attention'], mesh=rows.mesh)
  validate = (
    evaluate.validator(blueprint, corpus, config, mesh) if config['eval']['every'] else None
  )
  with contextlib.ExitStack() as stack:
    stopped = stack.enter_context(stop.Stop())  # the first is left last, see train.train
    for member in members:
      member.open(stack)
    start = max(set.intersection(*(set(m.saved.steps()) for m in members)), default=0)
    shown = programs.of_training(config)
    begun = [member.begin(start, optimizer, layout, like, shown) for member in members]
    for member in members:
      member.announce([m.config['seed'] for m in members], start, stack)
      programs.keep(member.workdir, shown.values())
    state = jax.tree.map(lambda *x: jnp.stack(x), *begun)
    seeds = jnp.stack([training_step.seed(member.config, mesh) for member in members])
    beat('compiling the step')
    step_fn = jax.vmap(training_step.plain(config, blueprint, optimizer, spec))
    step_fn = jax.jit(step_fn, donate_argnums=0)
    pending = None
    for step in range(start, config['steps']):
      beat(f'step {step + 1}')
      batch = jax.tree.map(lambda *x: np.stack(x), *(next(m.stream) for m in members))
      state, measured = step_fn(state, batch, seeds)
      _report(members, pending)  # of the step before, while this one runs
      pending = step + 1, measured
      if train.due(step + 1, config['eval']['every'], config['steps']):
        for i, member in enumerate(members):
          member.log.write(step + 1, validate(_part(state['params'], i)))
      leaving = stopped.agreed(step + 1)
      if leaving or train.due(step + 1, config['run']['save_every'], config['steps']):
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
    train.write_metrics(member.log, pending[0], _part(measured, i), member.config)


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
      for line in comparable.difference(given[0], other)
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


def main(argv: Sequence[str]) -> None:
  """Trains all seeds, then evaluates them one by one."""
  parser = cli.parser('pe_research.together', __doc__)
  parser.add_argument('--seeds', type=cli.integers, required=True, help='0,1,...')
  parser.add_argument('--workdir', required=True, help=f'of each seed; {SEED} stands for it')
  arguments, rest = parser.parse_known_args(argv)
  with cli.errors():
    if SEED not in arguments.workdir:
      raise ValueError(
        f'--workdir is {arguments.workdir}; every seed needs its own: write {SEED} where the seed '
        'belongs.'
      )
    if len(set(arguments.seeds)) < len(arguments.seeds):
      raise ValueError(f'--seeds={",".join(map(str, arguments.seeds))} names one twice.')
    given = {
      paths.place(arguments.workdir.replace(SEED, str(seed))): configs.resolve(
        cli.read_config([*rest, f'--config.seed={seed}'])
      )
      for seed in arguments.seeds
    }
    check([*given.values()])
    for workdir, config in given.items():
      lineage.check_new(config, workdir)
    cli.restart_tuned()
    program_store.use()
    with contextlib.ExitStack() as stack:
      run(given, stack)


def run(given: Mapping[pathlib.Path, Mapping[str, Any]], stack: contextlib.ExitStack) -> None:
  """Trains and evaluates, holding the workdirs; done.json of each is written last."""
  hearts = []
  for workdir, config in given.items():
    mine = stack.enter_context(records.claim(workdir))
    records.check_config(workdir, config)
    heart = heartbeat.Heartbeat(workdir, config['run']['patience'], mine)
    hearts.append(stack.enter_context(heart))

  def beat(doing: str) -> None:
    for heart in hearts:
      heart.beat(doing)

  if not train_all(given, beat):
    print('stopped; the same command goes on from here')
    return
  for workdir, config in given.items():
    if not (workdir / 'done.json').exists():
      params, step = states.load_params(config, workdir)
      evaluate.evaluate(config, workdir, params, step, beat)
      records.write_json(workdir / 'done.json', {'steps': config['steps']})


if __name__ == '__main__':
  main(sys.argv[1:])
