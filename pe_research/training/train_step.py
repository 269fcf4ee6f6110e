"""The training step: loss, gradient and update as one pure function."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pe_research.attention import attend
from pe_research.common import keys, sharding
from pe_research.model import transformer
from pe_research.model.functional import Blueprint
from pe_research.training import optimizers, train_state


def token_loss(
  decoder: transformer.Decoder, batch: Mapping[str, jax.Array], spec: attend.Spec, key: jax.Array
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
    return transformer.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:]).sum(), weights
  scored = batch.get('weights')
  scored = segments[:, 1:] == segments[:, :-1] if scored is None else scored[:, 1:]
  nll = transformer.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:])
  return (nll * scored).sum(), scored.sum(dtype=jnp.float32)


def compiled(config, blueprint: Blueprint, optimizer, layout: train_state.State, rows):
  """The jitted training step, see `plain`; the old state is given up."""
  spec = attend.Spec(**config['attention'], mesh=rows.mesh)
  return jax.jit(
    plain(config, blueprint, optimizer, spec),
    in_shardings=(layout, rows, sharding.replicated(rows.mesh)),
    out_shardings=(layout, None),
    donate_argnums=0,
    keep_unused=True,
  )


def seed(config: Mapping[str, Any], mesh) -> jax.Array:
  """The seed as the step takes it."""
  return sharding.place(np.array(config['seed'] % 2**32, np.uint32), sharding.replicated(mesh))


def plain(config, blueprint: Blueprint, optimizer, spec: attend.Spec):
  """The training step, a pure function: (state, batch, seed) -> (state, metrics).

  The third is what `seed` gives; all that is drawn in training follows from it.
  """
  parts = config['optimizer']['accumulate']
  learning_rate = optimizers.schedule(config['optimizer'], config['steps'])

  def loss(params, batch, key):
    return token_loss(blueprint.bind(params), batch, spec, key)

  def step(state, batch, drawn):
    params = state['params']
    key = jax.random.fold_in(keys.key(jax.random.key(drawn), 'positions'), state['step'])
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
