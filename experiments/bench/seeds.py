"""Several seeds in one program against the same steps one after the other."""

import statistics
from typing import Any

from experiments.bench.measure import begin, seconds_of, setup


def together(given) -> dict[str, Any]:
  """Steps of `seeds` runs batched along a new axis, and as many single steps, in turns."""
  import jax
  import jax.numpy as jnp

  from pe_research.attention.spec import Spec
  from pe_research.training import train_step

  config, count = setup(given, given.length, given.batch), given.seeds
  functional, optimizer, rows, _, state, tokens = begin(config)
  one = state, {'tokens': tokens}, train_step.seed(config, rows.mesh)
  step = train_step.plain(config, functional, optimizer, Spec(**config['attention']))
  repeated = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * count), tree)
  ready = lambda run, arguments: lambda: jax.block_until_ready(run(*arguments))
  runs = {
    'alone': (ready(jax.jit(step), one), count),
    'together': (ready(jax.jit(jax.vmap(step)), repeated(one)), 1),
  }
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(given.steps + 2):
    for name, (call, times) in runs.items():
      seconds[name].append(sum(seconds_of(call) for _ in range(times)))
  alone, both = (statistics.median(seconds[name][2:]) for name in runs)
  return {
    'alone_seconds': round(alone, 4),
    'together_seconds': round(both, 4),
    'gain': round(alone / both, 3),
  }
