"""How well the position of a token can be read off its hidden state."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pe_research.evaluation.measures import base
from pe_research.evaluation.measures.base import Plan, Row, Subject

HIDDEN, STEPS, RATE, BATCH = 128, 1_000, 3e-3, 1_024


def probe(
  score: Subject, plan: Plan, length: int, control: str = 'layer:1', made: Callable | None = None
) -> Row:
  """Mean distance between the position of a token and a probe's guess from its state, in tokens.

  The probe is a classifier with one hidden layer and a class for each position, trained on half of
  the documents and tested on the others (arXiv:2203.16634, sec. 5). Controls: 'layer:2'; and for
  the network before training, whose causal averages tell positions apart as well,
  'layer:2+weights:initial'. `made` replaces `classifier`.
  """
  layer = int(base.option(control, 'layer', '1'))
  initial = base.option(control, 'weights') == 'initial'
  windows = base.windows(plan, length)
  names = [plan.documents.names[d] for d, _ in plan.ends]
  train = np.isin(names, sorted(set(names))[::2])
  if train.all() or not train.any():
    raise ValueError(
      f'a probe learns on some documents and is tested on others, and all {len(names)} windows are '
      f'of {len(set(names))}. Raise eval.windows or lower eval.lengths.'
    )
  states = score.hidden(windows, layer, initial)
  guessed = _guess(states[train], states[~train], made or classifier)
  error = np.abs(guessed - np.arange(length)[None])
  tested = [name for name, trained in zip(names, train, strict=True) if not trained]
  chance = float(np.abs(np.arange(length) - (length - 1) // 2).mean())  # always the middle
  row = base.by_document(tested, error) | {'unit': 'tokens', 'chance': chance}
  return row | {'by_position': error.mean(0).tolist()}


def _guess(learn: np.ndarray, test: np.ndarray, made: Callable) -> np.ndarray:
  """Positions int [W, N] guessed for states test [W, N, D] after learning from learn [W', N, D]."""
  fit, first, logits = made(learn)
  flat = jnp.asarray(test.reshape(-1, test.shape[-1]), jnp.float32)
  return np.asarray(logits(fit(*first), flat).argmax(-1)).reshape(test.shape[:2])


def begin(length: int, width: int):
  """Initial parameters for states of `width` at `length` positions, and a key for each step."""
  keys = jax.random.split(jax.random.key(0), 3)
  draw = lambda key, shape: jax.random.normal(key, shape) * shape[0] ** -0.5
  params = {
    'inner': draw(keys[0], (width, HIDDEN)),
    'bias': jnp.zeros((1, HIDDEN)),
    'outer': draw(keys[1], (HIDDEN, length)),
  }
  return params, jax.random.split(keys[2], STEPS)


def classifier(learn: np.ndarray):
  """A classifier of positions, to be trained on states [W, N, D].

  Returns:
    The jitted fit, which returns parameters; its arguments; and the jitted logits [M, N] of
    parameters and states [M, D].
  """
  _, length, width = learn.shape
  x = jnp.asarray(learn.reshape(-1, width), jnp.float32)
  y = jnp.tile(jnp.arange(length), len(learn))
  mean, deviation = x.mean(0, keepdims=True), x.std(0, keepdims=True) + 1e-6
  optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
  logits = lambda p, x: jax.nn.relu((x - mean) / deviation @ p['inner'] + p['bias']) @ p['outer']

  def loss(params, index):
    nll = optax.softmax_cross_entropy_with_integer_labels(logits(params, x[index]), y[index])
    return nll.mean()

  def step(carry, key):
    params, slots = carry
    grads = jax.grad(loss)(params, jax.random.randint(key, (BATCH,), 0, len(y)))
    updates, slots = optimizer.update(grads, slots)
    return (optax.apply_updates(params, updates), slots), None

  fit = lambda params, keys: jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]
  return jax.jit(fit), begin(length, width), jax.jit(logits)
