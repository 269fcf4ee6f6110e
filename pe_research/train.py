"""Training: one loop for every family of experiments."""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pe_research import (
  batches,
  checkpoints,
  comparable,
  costs,
  data,
  digest,
  evaluate,
  heartbeat,
  lineage,
  measures,
  metrics,
  optimizers,
  programs,
  records,
  runtime,
  sharding,
  states,
  training_step,
  witness,
)
from pe_research.blueprint import Blueprint, of_position
from pe_research.stop import Stop


class Diverged(RuntimeError):
  """Loss, gradient or update is not finite; the checkpoint before it is kept."""


def train(
  config: Mapping[str, Any], workdir: pathlib.Path, beat: Callable[[str], None] = heartbeat.unheard
) -> states.State | None:
  """Trains as a resolved config says, or goes on from the newest checkpoint in `workdir`.

  `beat` is told what is begun.

  Returns:
    The final state; None if a signal stopped the run, which the same call goes on with.
  """
  batches.check(config)
  runtime.prepare(config)
  mesh = sharding.mesh(config['run']['mesh'])
  if mesh.shape[sharding.CONTEXT] > 1:
    raise ValueError(
      f'run.mesh.context is {mesh.shape[sharding.CONTEXT]}; sequences are shared in evaluation '
      'alone: train with 1, then python -m pe_research.evaluate --mesh=context=...'
    )
  rows = sharding.split_batch(mesh, config['optimizer']['batch'], config['optimizer']['accumulate'])
  blueprint, corpus = Blueprint(config), data.load(config, beat)
  measures.plan(corpus, config)  # what could not be evaluated is not trained
  stream = batches.build(corpus, config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = states.layout(blueprint, optimizer, mesh)
  like = states.abstract(blueprint, optimizer, mesh)
  validate = (
    evaluate.validator(blueprint, corpus, config, mesh) if config['eval']['every'] else None
  )
  # Leaving takes them from the right: what is being saved is waited for while signals are noted.
  with Stop() as stop, checkpoints.Checkpoints(workdir, config['run']['keep']) as saved:
    beat('beginning or restoring')
    restored = saved.restore(like)
    if restored is not None:
      records.check_data(workdir, corpus.facts)
      if int(restored[0]['step']) == config['steps'] and finished(workdir):
        return restored[0]
    beat('lowering the step')
    step_fn = training_step.compiled(config, blueprint, optimizer, layout, rows)
    step_fn = step_fn.lower(like, batches.shapes(config), jax.ShapeDtypeStruct((), np.uint32))
    shown = programs.of_training(config, step_fn if mesh.size == 1 else None)
    if restored is None:
      state, start = states.begin(config, blueprint, optimizer, layout)
      record = describe(config, blueprint, corpus, state['params'], start, shown)
    else:
      state, record = resume(config, blueprint, corpus, workdir, stream, restored, shown)
    start = int(state['step'])
    beat('compiling the step')
    step_fn = step_fn.compile()
    record['step_cost'] = costs.of_step(step_fn)
    programs.keep(workdir, shown.values())
    write(workdir, 'config.json', config)
    write(workdir, 'run.json', record)
    seed = training_step.seed(config, mesh)
    least = costs.least_seconds_per_token(record['train_flops_per_token'])
    with metrics.Writer(workdir, config, start, jax.process_index(), least) as log:
      for note in record['notes']:
        log.note(note)
      pending = None
      for step in range(start, config['steps']):
        beat(f'step {step + 1}')
        state, measured = step_fn(state, sharding.place(next(stream), rows), seed)
        report(log, pending, config)  # of the step before, while this one runs
        pending = step + 1, measured
        if due(step + 1, config['eval']['every'], config['steps']):
          log.write(step + 1, validate(state['params']))
        leaving = stop.agreed(step + 1)
        if leaving or due(step + 1, config['run']['save_every'], config['steps']):
          report(log, pending, config)  # a NaN never reaches a checkpoint
          pending = None
          saved.save(step + 1, state, {'batches': stream.state()})
        if leaving:
          return None
  final = {'batches': stream.chain, 'final_parameters': digest.of_arrays(state['params'])}
  write(workdir, 'run.json', record | {'steps': config['steps']} | final)
  return state


def adopt(config: Mapping[str, Any], workdir: pathlib.Path) -> states.State:
  """The state of a run of no steps, whose weights are those of a published model.

  Its directory is like that of any run, but for checkpoints: the weights stay where they are.
  """
  runtime.prepare(config)
  blueprint, corpus = Blueprint(config), data.load(config)
  measures.plan(corpus, config)
  records.check_data(workdir, corpus.facts)
  params, _ = states.load_params(config, workdir)
  found = digest.of_arrays(params)
  origin, shown = lineage.published(config, found), programs.of_training(config)
  record = describe(config, blueprint, corpus, params, origin, shown)
  write(workdir, 'config.json', config)
  write(workdir, 'run.json', record | {'steps': 0, 'batches': '', 'final_parameters': found})
  programs.keep(workdir, shown.values())
  if jax.process_index() == 0:
    for note in record['notes']:
      print(f'note: {note}')
  return {'params': params}


def due(step: int, every: int, last: int) -> bool:
  """Whether something done each `every` steps, and at the last, happens after `step`; 0: never."""
  return bool(every) and (step % every == 0 or step == last)


def report(log: metrics.Writer, pending, config) -> None:
  """Fetches a finished step's metrics, stops on NaN, and writes them when they are due."""
  if pending is None:
    return
  step, measured = pending
  write_metrics(log, step, jax.device_get(measured), config)


def write_metrics(log: metrics.Writer, step: int, measured: Mapping[str, Any], config) -> None:
  """Stops on NaN, and writes the metrics of a step when they are due."""
  row = {name: float(value) for name, value in measured.items()}
  if not all(map(math.isfinite, row.values())):
    shown = ', '.join(f'{name} {value}' for name, value in row.items())
    raise Diverged(
      f'step {step}: {shown}. The last checkpoint is kept; '
      'lower optimizer.learning_rate or raise optimizer.warmup, in another --workdir.'
    )
  if due(step, config['run']['log_every'], config['steps']):
    log.write(step, row)


def describe(
  config,
  blueprint: Blueprint,
  corpus: data.Corpus,
  params,
  start: dict[str, Any] | None,
  shown: Mapping[str, programs.Both],
) -> dict[str, Any]:
  """The run's record: what was run, on what, and what a comparison will hold it to.

  Args:
    config: resolved.
    blueprint: of the config.
    corpus: what it reads.
    params: those before the first step.
    start: says which run they are of; None if drawn.
    shown: its programs by name, see programs.of_training.
  """
  shared = {k: v for k, v in params.items() if not of_position(k)}
  conditions = conditions_of(config, corpus, shown)
  return {
    'scheme': config['position']['name'],
    'seed': config['seed'],
    'train_length': config['length'],
    'fingerprint': digest.of_json(conditions),
    'conditions': conditions,
    'initial_parameters': digest.of_arrays(shared),  # outside the scheme
    'programs': {name: both.own.digest for name, both in shown.items()},  # scheme included
    'provenance': records.provenance(),
    'devices': jax.device_count(),
    'changed_on_resume': [],
    'notes': blueprint.scheme.notes(lineage.original_length(config)),
    'start': start,
  } | blueprint.sizes()


def conditions_of(
  config: Mapping[str, Any], corpus: data.Corpus, shown: Mapping[str, programs.Both]
) -> dict[str, Any]:
  """Everything that two runs of a comparison must share, whatever their scheme and seed, flat."""
  return (
    {f'program.{name}': both.shared.digest for name, both in shown.items()}
    | {f'data.{name}': value for name, value in corpus.facts.items()}
    | {'batch_order': witness.of_batches(config, corpus.tokenizer)}
    | {'attention': config['attention']['implementation']}
    | runtime.environment()
  )


def resume(
  config, blueprint: Blueprint, corpus: data.Corpus, workdir: pathlib.Path, stream, restored, shown
) -> tuple[states.State, dict[str, Any]]:
  """State and record of a run that goes on from what `Checkpoints.restore` gave."""
  state, extra = restored
  stream.restore(extra['batches'])
  return state, describe_resumed(config, blueprint, corpus, workdir, shown)


def describe_resumed(
  config, blueprint: Blueprint, corpus: data.Corpus, workdir: pathlib.Path, shown
) -> dict[str, Any]:
  """The record of a run that goes on: how it began, and which conditions have changed since."""
  before = records.read_json(workdir / 'run.json')
  record = describe(config, blueprint, corpus, {}, before['start'], shown)
  of = lambda kept: {f'own_program.{k}': v for k, v in kept.get('programs', {}).items()}
  own = of(before), of(record)
  changed = comparable.changed(before['conditions'], record['conditions'])
  changed += comparable.difference(*own) if own[0] else []
  return record | {
    'initial_parameters': before['initial_parameters'],
    'changed_on_resume': before['changed_on_resume'] + changed,
  }


def finished(workdir: pathlib.Path) -> bool:
  """Whether the record is of a whole run, which no later start may rewrite."""
  return 'batches' in (records.read_json(workdir / 'run.json') or {})


def write(workdir: pathlib.Path, name: str, value: Mapping[str, Any]) -> None:
  """Writes a JSON file of the run, from process 0."""
  if jax.process_index() == 0:
    records.write_json(workdir / name, value)
