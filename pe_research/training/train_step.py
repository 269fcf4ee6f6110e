"""The training step: loss, gradient and update as one pure function."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.common import keys, sharding
from pe_research.data import batches
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder
from pe_research.training import costs, optimizers, train_state


def token_loss(
  decoder: transformer.Decoder, batch: Mapping[str, jax.Array], spec: Spec, key: jax.Array
):
  """Sum of nats over the batch's targets, and their number; no target begins a new document.

  `key` is for schemes that draw positions or text.
  """
  tokens, segments = batch['tokens'], batch.get('segments')
  scheme = decoder.position[0]
  if 'beyond' in batch:
    tokens = scheme.draw_text(tokens, batch['beyond'], key)
  at, weights = Tokens.contiguous(tokens.shape[1] - 1), jnp.float32(tokens[:, 1:].size)
  if segments is not None:
    at = Tokens(batch['pos'][:, :-1], segments[:, :-1])
  if scheme.draws_positions:
    at = Tokens(scheme.draw_positions(at.pos, tokens.shape[0], key), at.segments)
  if segments is None and 'weights' not in batch:
    return transformer.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:]).sum(), weights
  scored = batch.get('weights')
  scored = segments[:, 1:] == segments[:, :-1] if scored is None else scored[:, 1:]
  nll = transformer.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:])
  return (nll * scored).sum(), scored.sum(dtype=jnp.float32)


def jitted(config, functional: FunctionalDecoder, optimizer, like: train_state.State, rows):
  """The jitted training step, see `plain`; it donates the old state.

  Args:
    config: resolved.
    functional: of the config.
    optimizer: of the config.
    like: of the state, see train_state.abstract.
    rows: sharding of a batch.
  """
  spec, layout = Spec(**config['attention'], mesh=rows.mesh), train_state.layout(like)
  return jax.jit(
    pure_step(config, functional, optimizer, spec),
    in_shardings=(layout, rows, sharding.replicated(rows.mesh)),
    out_shardings=(layout, None),
    donate_argnums=0,
    keep_unused=True,
  )


class Step:
  """The training step of one run over all devices, or of several runs on one device.

  Several runs are a new first axis of state, batch and metrics; each computes what it computes
  alone, to tolerance.
  """

  def __init__(self, config, functional: FunctionalDecoder, optimizer, rows, runs: int):
    """Lowers and compiles nothing yet; arguments as of `jitted`, and the number of runs."""
    self.config, self.functional, self.optimizer = config, functional, optimizer
    self.rows, self.runs = rows, runs
    self.is_recorded_program = runs == 1 and rows.mesh.size == 1

  def lower(self, like: train_state.State) -> jax.stages.Lowered:
    """Lowers the program."""
    batch = batches.shapes(self.config, self.functional.scheme.reads_beyond)
    given = like, batch, jax.ShapeDtypeStruct((), np.uint32)
    if self.runs == 1:
      step = jitted(self.config, self.functional, self.optimizer, like, self.rows)
    else:
      spec = Spec(**self.config['attention'], mesh=self.rows.mesh)
      one = pure_step(self.config, self.functional, self.optimizer, spec)
      step = jax.jit(jax.vmap(one), donate_argnums=0)
      given = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.runs, *x.shape), x.dtype), given)
    self.lowered = step.lower(*given)
    return self.lowered

  def compile(self) -> None:
    """Compiles the lowered program."""
    self.program = self.lowered.compile()

  def cost(self) -> dict[str, float | int | None]:
    """FLOPs and bytes, see costs.of_step."""
    return costs.of_step(self.program)

  def begin(
    self, states: Sequence[train_state.State], configs: Sequence[Mapping[str, Any]]
  ) -> train_state.State:
    """The state of all runs; also sets their seeds, from their configs."""
    self.seeds = self._stacked([seed(config, self.rows.mesh) for config in configs])
    return self._stacked(states)

  def _stacked(self, trees: Sequence[Any]) -> Any:
    return trees[0] if self.runs == 1 else jax.tree.map(lambda *x: jnp.stack(x), *trees)

  def of_run(self, tree: Any, i: int) -> Any:
    """The part of run i."""
    return tree if self.runs == 1 else jax.tree.map(lambda x: x[i], tree)

  def __call__(self, state: train_state.State, drawn: Sequence[Mapping[str, np.ndarray]]):
    """The next state and the metrics, from a batch for each run."""
    if self.runs == 1:
      return self.program(state, sharding.place(drawn[0], self.rows), self.seeds)
    return self.program(state, jax.tree.map(lambda *x: np.stack(x), *drawn), self.seeds)


def seed(config: Mapping[str, Any], mesh) -> jax.Array:
  """The config's seed as the step takes it: uint32, replicated."""
  return sharding.place(np.array(config['seed'] % 2**32, np.uint32), sharding.replicated(mesh))


def pure_step(config, functional: FunctionalDecoder, optimizer, spec: Spec):
  """The training step, a pure function: (state, batch, seed) -> (state, metrics).

  The third argument is the result of `seed`; everything drawn in training derives from it.
  """
  parts = config['optimizer']['accumulate']
  learning_rate = optimizers.schedule(config['optimizer'], config['steps'])

  def loss(params, batch, key):
    return token_loss(functional.bind(params), batch, spec, key)

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
