"""Training: one loop for every family of experiments."""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pe_research.common import digest, progress, sharding
from pe_research.data import batches, texts
from pe_research.evaluation import measures, validation
from pe_research.machines import jax_setup
from pe_research.machines.signals import Stop
from pe_research.model.functional import Blueprint
from pe_research.proof import programs
from pe_research.runs import checkpoints, run_folder
from pe_research.training import costs, metrics, optimizers, run_record, train_state, train_step


class Diverged(RuntimeError):
  """Loss, gradient or update is not finite; the checkpoint before it is kept."""


def train(
  config: Mapping[str, Any], workdir: pathlib.Path, beat: Callable[[str], None] = progress.unheard
) -> train_state.State | None:
  """Trains as a resolved config says, or goes on from the newest checkpoint in `workdir`.

  `beat` is told what is begun.

  Returns:
    The final state; None if a signal stopped the run, which the same call goes on with.
  """
  batches.check(config)
  jax_setup.prepare(config)
  mesh = sharding.mesh(config['run']['mesh'])
  if mesh.shape[sharding.CONTEXT] > 1:
    raise ValueError(
      f'run.mesh.context is {mesh.shape[sharding.CONTEXT]}; sequences are shared in evaluation '
      'alone: train with 1, then python -m pe_research.evaluate --mesh=context=...'
    )
  rows = sharding.split_batch(mesh, config['optimizer']['batch'], config['optimizer']['accumulate'])
  blueprint, corpus = Blueprint(config), texts.load(config, beat)
  measures.plan(corpus, config)  # what could not be evaluated is not trained
  stream = batches.build(corpus, config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = train_state.layout(blueprint, optimizer, mesh)
  like = train_state.abstract(blueprint, optimizer, mesh)
  validate = (
    validation.validator(blueprint, corpus, config, mesh) if config['eval']['every'] else None
  )
  # Leaving takes them from the right: what is being saved is waited for while signals are noted.
  with Stop() as stop, checkpoints.Checkpoints(workdir, config['run']['keep']) as saved:
    beat('beginning or restoring')
    restored = saved.restore(like)
    if restored is not None:
      run_folder.check_data(workdir, corpus.facts)
      if int(restored[0]['step']) == config['steps'] and run_record.finished(workdir):
        return restored[0]
    beat('lowering the step')
    step_fn = train_step.compiled(config, blueprint, optimizer, layout, rows)
    step_fn = step_fn.lower(like, batches.shapes(config), jax.ShapeDtypeStruct((), np.uint32))
    shown = programs.of_training(config, step_fn if mesh.size == 1 else None)
    if restored is None:
      state, start = train_state.begin(config, blueprint, optimizer, layout)
      record = run_record.describe(config, blueprint, corpus, state['params'], start, shown)
    else:
      state, record = run_record.resume(config, blueprint, corpus, workdir, stream, restored, shown)
    start = int(state['step'])
    beat('compiling the step')
    step_fn = step_fn.compile()
    record['step_cost'] = costs.of_step(step_fn)
    programs.keep(workdir, shown.values())
    run_record.write(workdir, 'config.json', config)
    run_record.write(workdir, 'run.json', record)
    seed = train_step.seed(config, mesh)
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
  run_record.write(workdir, 'run.json', record | {'steps': config['steps']} | final)
  return state


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
