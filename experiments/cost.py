"""What jobs will cost: the FLOPs of their steps over the rate of this machine, measured first."""

import functools
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from experiments.plan import Node
from pe_research import eval_config, records

START = 8.0  # seconds until a process has imported, read its data and compiled
STEPS = 5


@functools.cache
def _sizes(text: str) -> dict[str, int]:
  from pe_research.blueprint import Blueprint  # slow to import

  return Blueprint(json.loads(text)).sizes()


def flops_per_token(config: Mapping[str, Any]) -> int:
  """Of a training step, see Blueprint.sizes; what a scheme adds is left out."""
  known = {part: config[part] for part in ('model', 'data', 'length', 'attention')}
  text = json.dumps(known | {'position': {'name': 'nope'}, 'seed': 0})
  return _sizes(text)['train_flops_per_token']


def rate(config: Mapping[str, Any], workdir: pathlib.Path) -> float:
  """FLOP/s of a few training steps of a config on one of the pool's workers; measured once.

  The result is kept in `workdir`, whose machine it is of.
  """
  kept = records.read_json(workdir / 'speed.json')
  if kept:
    return kept['flops_per_second']
  import jax
  import numpy as np

  from pe_research import optimizers, runtime, sharding, states, train
  from pe_research.blueprint import Blueprint

  runtime.prepare(config)
  mesh, blueprint = sharding.mesh(config['run']['mesh']), Blueprint(config)
  rows = sharding.split_batch(mesh, config['optimizer']['batch'])
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  layout = states.layout(blueprint, optimizer, mesh)
  state, _ = states.begin(config, blueprint, optimizer, layout)
  shape = config['optimizer']['batch'], config['length'] + 1
  batch = sharding.place({'tokens': np.ones(shape, np.int32)}, rows)
  step = train.compile_step(config, blueprint, optimizer, layout, rows)
  for count in (1, STEPS):
    start = time.perf_counter()
    for _ in range(count):
      state, measured = step(state, batch)
    jax.block_until_ready(measured)
  seconds = (time.perf_counter() - start) / STEPS
  tokens = config['optimizer']['batch'] * config['length']
  found = flops_per_token(config) * tokens / seconds
  workdir.mkdir(parents=True, exist_ok=True)
  records.write_json(workdir / 'speed.json', {'flops_per_second': found, 'cores': 'all'})
  return found


def training(node: Node, rate: float) -> float:
  """Seconds of a node's training; 0 where it has none."""
  if not node.trains:
    return 0.0
  config = node.config
  tokens = config['steps'] * config['optimizer']['batch'] * config['length']
  return START + flops_per_token(config) * tokens / rate


def measuring(node: Node, rate: float) -> float:
  """Seconds of a node's measurements: a forward pass is a third of a step."""
  if not node.wanted:
    return 0.0
  total = START
  for text in node.wanted:
    protocol, _, length = eval_config.measurement(text)
    wanted = node.config['eval']
    tokens = wanted['windows'] * length
    if protocol in ('non_overlapping', 'by_position'):
      tokens = wanted['tokens']
    grown = node.config | {'length': length}
    total += 1.0 + flops_per_token(grown) / 3 * tokens / rate
  return total
