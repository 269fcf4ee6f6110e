"""Training: one loop for every family of experiments."""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pe_research import (
  attend,
  batches,
  checkpoints,
  comparable,
  costs,
  data,
  digest,
  evaluate,
  heartbeat,
  keys,
  lineage,
  measures,
  metrics,
  model,
  optimizers,
  records,
  runtime,
  sharding,
  states,
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
    if restored is None:
      state, start = states.begin(config, blueprint, optimizer, layout)
      record = describe(config, blueprint, corpus, state['params'], start)
    else:
      state, record = resume(config, blueprint, corpus, workdir, stream, restored)
    start = int(state['step'])
    if start == config['steps'] and finished(workdir):
      return state
    beat('compiling the step')
    step_fn = compile_step(config, blueprint, optimizer, layout, rows)
    step_fn = step_fn.lower(like, batches.shapes(config)).compile()
    record['step_cost'] = costs.of_step(step_fn)
    write(workdir, 'config.json', config)
    write(workdir, 'run.json', record)
    least = costs.least_seconds_per_token(record['train_flops_per_token'])
    with metrics.Writer(workdir, config, start, jax.process_index(), least) as log:
      for note in record['notes']:
        log.note(note)
      pending = None
      for step in range(start, config['steps']):
        beat(f'step {step + 1}')
        state, measured = step_fn(state, sharding.place(next(stream), rows))
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
  record = describe(config, blueprint, corpus, params, lineage.published(config, found))
  write(workdir, 'config.json', config)
  write(workdir, 'run.json', record | {'steps': 0, 'batches': '', 'final_parameters': found})
  if jax.process_index() == 0:
    for note in record['notes']:
      print(f'note: {note}')
  return {'params': params}


def due(step: int, every: int, last: int) -> bool:
  """Whether something done each `every` steps, and at the last, happens after `step`; 0: never."""
  return bool(every) and (step % every == 0 or step == last)


def token_loss(
  decoder: model.Decoder, batch: Mapping[str, jax.Array], spec: attend.Spec, key: jax.Array
):
  """Sum of nats over the batch's targets, and their number; none crosses into a new document.

  `key` is for what a scheme draws, positions and text.
  """
  tokens, segments = batch['tokens'], batch.get('segments')
  scheme = decoder.position[0]
  if 'beyond' in batch:
    tokens = scheme.draw_text(tokens, batch['beyond'], key)
  at, weights = attend.Tokens.contiguous(tokens.shape[1] - 1), jnp.float32(tokens[:, 1:].size)
  if segments is not None:
    at = attend.Tokens(batch['pos'][:, :-1], segments[:, :-1])
  if scheme.draws_positions:
    at = attend.Tokens(scheme.draw_positions(at.pos, tokens.shape[0], key), at.segments)
  if segments is None and 'weights' not in batch:
    return model.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:]).sum(), weights
  scored = batch.get('weights')
  scored = segments[:, 1:] == segments[:, :-1] if scored is None else scored[:, 1:]
  nll = model.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:])
  return (nll * scored).sum(), scored.sum(dtype=jnp.float32)


def compile_step(config, blueprint: Blueprint, optimizer, layout: states.State, rows):
  """The jitted training step: (state, batch) -> (state, metrics); the old state is given up."""
  spec = attend.Spec(**config['attention'], mesh=rows.mesh)
  any_seed, drawn = step_of(config, blueprint, optimizer, spec), drawing_key(config)

  def step(state, batch):  # its name is that of the compiled program
    return any_seed(state, batch, drawn)

  return jax.jit(step, in_shardings=(layout, rows), out_shardings=(layout, None), donate_argnums=0)


def drawing_key(config: Mapping[str, Any]) -> jax.Array:
  """The key of a seed for positions that are drawn in training."""
  return keys.key(jax.random.key(config['seed']), 'positions')


def step_of(config, blueprint: Blueprint, optimizer, spec: attend.Spec):
  """The training step, a pure function: (state, batch, key) -> (state, metrics).

  The key is that of `drawing_key`; nothing else in it depends on the seed.
  """
  parts = config['optimizer']['accumulate']
  learning_rate = optimizers.schedule(config['optimizer'], config['steps'])

  def loss(params, batch, key):
    return token_loss(blueprint.bind(params), batch, spec, key)

  def step(state, batch, drawn):
    params, key = state['params'], jax.random.fold_in(drawn, state['step'])
    grad = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
      (total, count), grads = grad(params, batch, key)
    else:
      # Every device cuts its own rows, so no row moves.
      cut = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
      add = lambda sums, part: (jax.tree.map(jnp.add, sums, grad(params, *part)), None)
      zero = (jnp.float32(0), jnp.float32(0)), jax.tree.map(jnp.zeros_like, params)
      each = jax.tree.map(cut, batch), jax.random.split(key, parts)
      ((total, count), grads), _ = jax.lax.scan(add, zero, each)
    grads = jax.tree.map(lambda g: g / count, grads)
    updates, slots = optimizer.update(grads, state['optimizer'], params)
    measured = {
      'learning_rate': learning_rate(state['step']),
      'loss': total / count,
      'gradient_norm': optax.tree.norm(grads),
      'update_norm': optax.tree.norm(updates),
    }
    state = {
      'params': optax.apply_updates(params, updates),
      'optimizer': slots,
      'step': state['step'] + 1,
    }
    return state, measured

  return step


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
  config, blueprint: Blueprint, corpus: data.Corpus, params, start: dict[str, Any] | None
) -> dict[str, Any]:
  """The run's record: what was run, on what, and what a comparison will hold it to.

  `params` are those before the first step; `start` says which run they are of, None if drawn.
  """
  device = jax.devices()[0]
  kind = f'{device.platform} {device.device_kind}'
  shared = {k: v for k, v in params.items() if not of_position(k)}
  made_by = records.provenance()
  conditions = records.fingerprint(config, corpus.facts, kind, made_by)
  if start is not None:
    conditions['start.parameters'] = start['parameters']
  return {
    'scheme': config['position']['name'],
    'seed': config['seed'],
    'train_length': config['length'],
    'fingerprint': digest.of_json(conditions),
    'conditions': conditions,
    'initial_parameters': digest.of_arrays(shared),  # outside the scheme
    'provenance': made_by,
    'devices': jax.device_count(),
    'changed_on_resume': [],
    'notes': blueprint.scheme.notes(lineage.original_length(config)),
    'start': start,
  } | blueprint.sizes()


def resume(
  config, blueprint: Blueprint, corpus: data.Corpus, workdir: pathlib.Path, stream, restored
) -> tuple[states.State, dict[str, Any]]:
  """State and record of a run that goes on from what `Checkpoints.restore` gave."""
  records.check_data(workdir, corpus.facts)
  state, extra = restored
  stream.restore(extra['batches'])
  return state, describe_resumed(config, blueprint, corpus, workdir)


def describe_resumed(
  config, blueprint: Blueprint, corpus: data.Corpus, workdir: pathlib.Path
) -> dict[str, Any]:
  """The record of a run that goes on: how it began, and which conditions have changed since."""
  before = records.read_json(workdir / 'run.json')
  record = describe(config, blueprint, corpus, {}, before['start'])
  changed = comparable.difference(before['conditions'], record['conditions'])
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
