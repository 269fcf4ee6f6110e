"""Several seeds in one program against the same steps one after the other."""

import statistics
import time
from typing import Any

from experiments.bench.measure import setup


def together(given) -> dict[str, Any]:
  """Steps of `seeds` runs batched along a new axis, and as many single steps, in turns."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from pe_research import attend, optimizers, runtime, sharding, states, train
  from pe_research.blueprint import Blueprint

  config, count = setup(given, given.length, given.batch), given.seeds
  runtime.prepare(config)
  mesh, blueprint = sharding.mesh(config['run']['mesh']), Blueprint(config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = states.layout(blueprint, optimizer, mesh)
  state, _ = states.begin(config, blueprint, optimizer, layout)
  shape = given.batch, given.length + 1
  tokens = np.random.default_rng(0).integers(0, config['data']['vocab'], shape, np.int32)
  one = state, {'tokens': tokens}, train.drawing_key(config)
  step = train.step_of(config, blueprint, optimizer, attend.Spec(**config['attention']))
  repeated = lambda tree: jax.tree.map(lambda x: jnp.stack([x] * count), tree)
  runs = {
    'alone': (jax.jit(step), one, count),
    'together': (jax.jit(jax.vmap(step)), repeated(one), 1),
  }
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(given.steps + 2):
    for name, (call, arguments, times) in runs.items():
      start = time.perf_counter()
      for _ in range(times):
        jax.block_until_ready(call(*arguments))
      seconds[name].append(time.perf_counter() - start)
  alone, both = (statistics.median(seconds[name][2:]) for name in runs)
  return {
    'seeds': count,
    'alone_seconds': round(alone, 4),
    'together_seconds': round(both, 4),
    'gain': round(alone / both, 3),
  }
