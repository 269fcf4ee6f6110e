"""Measurements of this project, one function for each kind of work."""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.settings import cli, configs


def setup(given, length: int, batch: int) -> dict[str, Any]:
  """A resolved config of configs/lm.py at the sizes asked for."""
  flags = [
    f'--config=configs/lm.py:position={given.position},length={length}',
    f'--config.model.width={given.width}',
    f'--config.model.layers={given.layers}',
    f'--config.model.heads={given.heads}',
    f'--config.model.mlp={given.mlp}',
    f'--config.model.dtype={given.dtype}',
    f'--config.attention.implementation={given.attention}',
    f'--config.optimizer.batch={batch}',
  ]
  return configs.resolve(cli.read_config(flags))


class Decoder(NamedTuple):
  """A decoder with fresh parameters."""

  config: dict[str, Any]
  functional: Any
  spec: Spec
  params: Any


def decoder(given, length: int, batch: int) -> Decoder:
  """The decoder of `setup`, on the device."""
  import jax

  from pe_research.machines import jax_setup
  from pe_research.model.functional import FunctionalDecoder

  config = setup(given, length, batch)
  jax_setup.prepare(config)
  functional = FunctionalDecoder(config)
  return Decoder(config, functional, Spec(**config['attention']), jax.jit(functional.init)())


def matmul_peak(size: int = 2048, dtype: str = 'float32') -> float:
  """FLOP/s of a square matrix product, the best of ten."""
  import jax
  import jax.numpy as jnp

  x = jnp.ones((size, size), dtype)
  product = jax.jit(lambda x: x @ x)
  product(x).block_until_ready()
  return 2 * size**3 / min(seconds_of(lambda: product(x).block_until_ready()) for _ in range(10))


def seconds_of(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
  """How long a call takes."""
  start = clock()
  call()
  return clock() - start


class Start(NamedTuple):
  """A run before its first step, with random tokens [batch, length + 1]."""

  functional: Any
  optimizer: Any
  rows: Any  # sharding of a batch
  like: Any  # shapes and shardings of the state
  state: Any
  tokens: Any


def begin(config: Mapping[str, Any]) -> Start:
  """The inputs of a training step of a resolved config."""
  import numpy as np

  from pe_research.common import sharding
  from pe_research.machines import jax_setup
  from pe_research.model.functional import FunctionalDecoder
  from pe_research.training import optimizers, train_state

  jax_setup.prepare(config)
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  shape = config['optimizer']['batch'], config['length'] + 1
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  like = train_state.abstract(functional, optimizer, mesh)
  state, _ = train_state.begin(config, functional, optimizer, like)
  tokens = np.random.default_rng(0).integers(0, config['data']['vocab'], shape, np.int32)
  return Start(functional, optimizer, sharding.split_batch(mesh, shape[0]), like, state, tokens)


def step_seconds(
  config: Mapping[str, Any], steps: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
  """Median of whole training steps of a resolved config, batch in, new parameters out.

  Args:
    config: resolved.
    steps: number of steps that are timed.
    clock: of the steps, seconds.

  Returns:
    Seconds of a step, and of compiling it.
  """
  import jax

  from pe_research.common import sharding
  from pe_research.training import train_step

  functional, optimizer, rows, like, state, tokens = begin(config)
  batch = sharding.place({'tokens': tokens}, rows)
  seed = train_step.seed(config, rows.mesh)
  step = train_step.jitted(config, functional, optimizer, like, rows)
  start = time.perf_counter()
  step = step.lower(state, batch, seed).compile()
  compile_seconds = time.perf_counter() - start

  def once():
    nonlocal state
    state, measured = step(state, batch, seed)
    jax.block_until_ready(measured)

  once(), once()
  return statistics.median(seconds_of(once, clock) for _ in range(steps)), compile_seconds


def train(given) -> dict[str, Any]:
  """Whole training steps, and the share of the matrix-product peak that they reach."""
  from pe_research.model.functional import FunctionalDecoder

  config = setup(given, given.length, given.batch)
  seconds, compile_seconds = step_seconds(config, given.steps)
  sizes = FunctionalDecoder(config).sizes()
  rate, peak = given.batch * given.length / seconds, matmul_peak(dtype=given.dtype)
  flops = sizes['train_flops_per_token'] * rate
  return {
    'tokens_per_second': round(rate),
    'matmul_peak_gflops': round(peak / 1e9, 1),
    'fraction_of_peak': round(flops / peak, 3),
    'compile_seconds': round(compile_seconds, 2),
    'parameters': sizes['parameters'],
  }


def forward(given) -> dict[str, Any]:
  """A forward pass over one long sequence, logits included, the median of three after compiling."""
  import jax
  import jax.numpy as jnp

  _, functional, spec, params = decoder(given, given.length, 1)
  tokens = jax.random.randint(jax.random.key(0), (1, given.length), 0, 256, jnp.int32)
  at = Tokens.contiguous(given.length)
  run = jax.jit(lambda params, tokens: functional.bind(params)(tokens, at, spec))
  start = time.perf_counter()
  run = run.lower(params, tokens).compile()
  compile_seconds = time.perf_counter() - start
  once = lambda: run(params, tokens).block_until_ready()
  seconds = statistics.median(seconds_of(once) for _ in range(3))
  return {
    'batch': 1,
    'seconds': round(seconds, 2),
    'peak_gb': round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    'compile_seconds': round(compile_seconds, 2),
  }


def search(given) -> dict[str, Any]:
  """Candidates a second of LongRoPE's search, on `batch` texts of `length` tokens.

  Compares the search's one program, which takes a batch of candidates at a time, with a program
  compiled for each candidate (frequencies as constants), and with bare forward passes: one program
  with the run's own frequencies, called as often.
  """
  import jax
  import numpy as np

  from pe_research.model import transformer
  from pe_research.model.functional import FunctionalDecoder
  from pe_research.search import methods, objective, sizes, space

  config, functional, _, params = decoder(given, given.length // 4, given.batch)
  where = space.Space(10_000.0, functional.model.head_dim, given.length // 4, 4.0, 5.0)
  operators = methods.Paper(where, methods.Settings(), np.random.default_rng(0))
  candidates = [operators.mutate(operators.seeds[1], set()) for _ in range(given.candidates)]
  tokens = np.random.default_rng(0).integers(0, 256, (given.batch, given.length + 1), np.int32)
  windows = objective.Windows(tokens, ('',) * given.batch)
  size = given.batch, given.length
  measure = objective.Objective(config, params, size, 1.0, sizes.BATCH_TOKENS)
  at, spec = Tokens.contiguous(given.length), Spec('tiled')

  def program(bound):
    loss = lambda params, x: transformer.loss(
      bound.bind(params)(x[:, :-1], at, spec), x[:, 1:]
    ).mean()
    return jax.jit(loss)

  def alone(candidate):
    stretched = {'name': 'longrope', 'factor': 4.0, 'start_tokens': candidate.start_tokens}
    stretched |= {'long_factor': list(candidate.factors)}
    return float(program(FunctionalDecoder(config | {'position': stretched}))(params, tokens))

  bare = program(functional)
  passes = lambda: [float(bare(params, tokens)) for _ in candidates]
  measure(candidates, windows), passes()
  together, passed = [], []
  for _ in range(5):
    together.append(seconds_of(lambda: measure(candidates, windows)))
    passed.append(seconds_of(passes))
  single = [seconds_of(lambda c=c: alone(c)) for c in candidates[:8]]
  rate = lambda seconds: round(given.candidates / statistics.median(seconds), 1)
  return {
    'candidates_per_second': rate(together),
    'bare_passes_per_second': rate(passed),
    'one_at_a_time_compiled_each': round(1 / statistics.median(single), 2),
    'candidates_at_once': measure.size,
    'programs': measure.compiled._cache_size(),
  }


def decode(given) -> dict[str, Any]:
  """Tokens a second of greedy decoding through the cache, after a prompt of `length` tokens.

  The time of generating `tokens` + 1 tokens minus that of one token, so that the prompt cancels.
  """
  import jax

  from pe_research.model.generation import generate

  _, functional, spec, params = decoder(given, given.length, given.batch)
  key = jax.random.key(0)
  prompt = jax.random.randint(key, (given.batch, given.length), 0, 256, 'int32')

  def seconds(tokens: int) -> float:
    call = lambda params, prompt: generate(
      functional.bind(params), prompt, tokens, key=key, temperature=0, spec=spec
    )
    run = jax.jit(call).lower(params, prompt).compile()
    once = lambda: run(params, prompt).block_until_ready()
    once()
    return min(seconds_of(once) for _ in range(3))

  taken = seconds(given.tokens + 1) - seconds(1)
  return {'tokens_per_second': round(given.batch * given.tokens / taken)}


def together(given) -> dict[str, Any]:
  """Training steps of `seeds` runs in one program against as many single steps, in turns."""
  import jax
  import jax.numpy as jnp

  from pe_research.training import train_step

  config, count = setup(given, given.length, given.batch), given.seeds
  functional, optimizer, rows, _, state, tokens = begin(config)
  one = state, {'tokens': tokens}, train_step.seed(config, rows.mesh)
  step = train_step.pure_step(config, functional, optimizer, Spec(**config['attention']))
  several = jax.tree.map(lambda x: jnp.stack([x] * count), one)
  step_alone, step_together = jax.jit(step), jax.jit(jax.vmap(step))
  alone_seconds, together_seconds = [], []
  for _ in range(given.steps + 2):
    call = lambda: jax.block_until_ready(step_alone(*one))
    alone_seconds.append(sum(seconds_of(call) for _ in range(count)))
    call = lambda: jax.block_until_ready(step_together(*several))
    together_seconds.append(seconds_of(call))
  alone, both = (statistics.median(s[2:]) for s in (alone_seconds, together_seconds))
  return {
    'alone_seconds': round(alone, 4),
    'together_seconds': round(both, 4),
    'gain': round(alone / both, 3),
  }
