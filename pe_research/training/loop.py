"""The training loop, for every family of configs: of one run, or of several seeds of it."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from pe_research.common import nested, sharding
from pe_research.common.progress import unheard
from pe_research.data import batches, texts
from pe_research.evaluation import measures, validation
from pe_research.machines import jax_setup, memory
from pe_research.machines.signals import Stop
from pe_research.model.functional import FunctionalDecoder
from pe_research.training import optimizers, programs, train_state
from pe_research.training.member import Member
from pe_research.training.train_step import Step

Runs = Mapping[pathlib.Path, Mapping[str, Any]]  # resolved configs by workdir


class Diverged(ValueError):
  """Loss, gradient or update became non-finite; the checkpoint before it is kept."""


def train(
  config: Mapping[str, Any], workdir: pathlib.Path, beat: Callable[[str], None] = unheard
) -> train_state.State | None:
  """Trains one run, see `train_all`."""
  states = train_all({workdir: config}, beat)
  return states and states[0]


def train_all(runs: Runs, beat: Callable[[str], None] = unheard) -> list[train_state.State] | None:
  """Trains as resolved configs say, or resumes from the newest checkpoint that all runs have.

  Args:
    runs: one, over all devices; or several that differ in their seed alone, in one program on one
      device. Finished runs are not changed.
    beat: is called with the name of each phase as it starts.

  Returns:
    The final states; None if a signal stopped the runs, which the same call resumes.

  Raises:
    ValueError: the runs cannot be trained, or not together.
  """
  config = next(iter(runs.values()))
  if len(runs) > 1:
    check_same_but_seed([*runs.values()])
  jax_setup.prepare(config)
  mesh = sharding.mesh(config['run']['mesh'])
  memory.check_training(config, mesh)
  # They differ in their initial weights.
  decoders = [FunctionalDecoder(one) for one in runs.values()]
  functional = decoders[0]
  batches.check(config, functional.scheme.reads_beyond)
  if mesh.shape[sharding.CONTEXT] > 1:
    raise ValueError(
      f'run.mesh.context is {mesh.shape[sharding.CONTEXT]}; sequences are shared in evaluation '
      'alone: train with 1, then python -m pe_research.evaluate --mesh=context=...'
    )
  rows = sharding.split_batch(mesh, config['optimizer']['batch'], config['optimizer']['accumulate'])
  corpus = texts.load(config, beat)
  measures.plan(corpus, config)  # refuses now what could not be evaluated after training
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  like = train_state.abstract(functional, optimizer, mesh)
  validate = (
    validation.validator(functional, corpus, config, mesh) if config['eval']['every'] else None
  )
  with contextlib.ExitStack() as stack:
    # Exits last, so that a signal while checkpoints are written is still recorded.
    stop = stack.enter_context(Stop())
    members = [
      Member(one, workdir, functional, corpus, stack)
      for (workdir, one), functional in zip(runs.items(), decoders, strict=True)
    ]
    beat('initialising or restoring')
    states = {member: member.final(like) for member in members}
    if unfinished := [member for member in members if states[member] is None]:
      step = Step(config, functional, optimizer, rows, len(unfinished))
      trained = _run(unfinished, step, like, validate, stop, beat)
      if trained is None:
        return None
      states |= dict(zip(unfinished, trained, strict=True))
  return [*states.values()]


def _run(
  members: Sequence[Member], step: Step, like: train_state.State, validate, stop: Stop, beat
) -> list[train_state.State] | None:
  """Trains unfinished runs; see `train_all`."""
  config = members[0].config
  restored = _restored(members, like)
  beat('lowering the step')
  lowered = step.lower(like)
  program_texts = programs.of_training(config, lowered if step.is_recorded_program else None)
  states = [
    member.begin(step.optimizer, like, one, program_texts)
    for member, one in zip(members, restored, strict=True)
  ]
  start = int(states[0]['step'])
  beat('compiling the step')
  step.compile()
  seeds, cost = [member.config['seed'] for member in members], step.cost()
  for member in members:
    member.announce(start, seeds, cost)
  state = step.begin(states, [member.config for member in members])
  pending = None
  for done in range(start + 1, config['steps'] + 1):
    beat(f'step {done}')
    state, measured = step(state, [next(member.stream) for member in members])
    report(members, step, pending)  # of the step before, while this one runs
    pending = done, measured
    if due(done, config['eval']['every'], config['steps']):
      for i, member in enumerate(members):
        member.log.write(done, validate(step.of_run(state['params'], i)))
    stopping = stop.agreed(done)
    if stopping or due(done, config['run']['save_every'], config['steps']):
      report(members, step, pending)  # a NaN never reaches a checkpoint
      pending = None
      for i, member in enumerate(members):
        member.save(done, step.of_run(state, i), like)
    if stopping:
      return None
  states = [step.of_run(state, i) for i in range(len(members))]
  for member, final in zip(members, states, strict=True):
    member.finish(final['params'])
  return states


def _restored(members: Sequence[Member], like: train_state.State) -> list:
  """The newest complete checkpoint of one run, or the newest that all runs have."""
  if len(members) == 1:
    return [members[0].saved.restore(like)]
  common = set.intersection(*(set(member.saved.steps()) for member in members))
  if not common:
    return [None] * len(members)
  return [member.saved.restore(like, max(common)) for member in members]


def due(step: int, every: int, last: int) -> bool:
  """Whether `step` is a multiple of `every` or the last step; never if `every` is 0."""
  return bool(every) and (step % every == 0 or step == last)


def report(members: Sequence[Member], step: Step, pending) -> None:
  """Fetches a finished step's metrics, raises Diverged on NaN, and logs them when they are due."""
  if pending is None:
    return
  done, measured = pending[0], jax.device_get(pending[1])
  for i, member in enumerate(members):
    row = {name: float(value) for name, value in step.of_run(measured, i).items()}
    if not all(map(math.isfinite, row.values())):
      shown = ', '.join(f'{name} {value}' for name, value in row.items())
      saved = member.saved.steps()
      kept = f'The checkpoint of step {saved[-1]} is kept' if saved else 'No checkpoint was saved'
      raise Diverged(
        f'step {done}: {shown}. {kept}; '
        'lower optimizer.learning_rate or raise optimizer.warmup, in another --workdir.'
      )
    if due(done, member.config['run']['log_every'], member.config['steps']):
      member.log.write(done, row)


def check_same_but_seed(configs: Sequence[Mapping[str, Any]]) -> None:
  """Raises ValueError unless runs can train in one program.

  They have steps, differ in their seed alone, and this process sees a single device.
  """
  if not configs[0]['steps']:
    raise ValueError(
      'steps is 0, so there is nothing to train together; evaluate the model by main.'
    )
  for other in configs[1:]:
    changed = [
      line
      for line in nested.difference(configs[0], other)
      if line.partition(':')[0] not in ('seed', 'data.seed')
    ]
    if changed:
      raise ValueError(f'{changed[0]}; runs that train together differ in their seed alone.')
  devices = sharding.mesh(configs[0]['run']['mesh']).size
  if devices > 1:
    raise ValueError(
      f'there are {devices} devices; seeds that train together share one. Let this process see one '
      '(python -m launch run gives each of its workers one), or train the seeds one by one.'
    )
