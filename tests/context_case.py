"""For eight devices: losses of windows that devices share, less those of windows that none do."""

import json
import sys

import jax
import numpy as np
import small

from pe_research import positions, scoring, sharding
from pe_research.blueprint import Blueprint

LENGTH, ROWS = 64, 8


def differences(name: str, **overrides) -> dict[str, float]:
  """Largest differences of the losses of all targets and of the last few, and how these spread."""
  config = small.config('state_of_the_union', name, **overrides)
  dense = config | {'eval': config['eval'] | {'implementation': 'dense'}}
  blueprint = Blueprint(config)
  params = {k: np.asarray(v) for k, v in blueprint.init().items()}
  rng = np.random.default_rng(0)
  # Learned tables and biases begin near zero, where a wrong offset would not show.
  params = {k: v + rng.normal(0, 0.3, v.shape) if 'position' in k else v for k, v in params.items()}
  params = {k: v.astype(np.float32) for k, v in params.items()}
  windows = rng.integers(0, 256, (ROWS, LENGTH + 1))
  found = {}
  for axes in ({'data': 8}, {'data': 2, 'context': 4}):
    mesh = sharding.mesh({'data': 1, 'fsdp': 1, 'tensor': 1} | axes)
    scorer = scoring.Scorer(blueprint, config if 'context' in axes else dense, mesh)
    found[str(axes)] = [scorer.nats(params, windows, last) for last in (None, 4)]
  alone, shared = found.values()
  most = lambda i: float(np.abs(shared[i] - alone[i]).max())
  return {'all': most(0), 'last': most(1), 'scale': float(alone[0].std())}


def main() -> None:
  """Prints them for every scheme, as JSON."""
  sizes = {'model__heads': 2, 'eval__batch_tokens': LENGTH * ROWS, 'attention__tile': 8}
  jax.config.update('jax_disable_most_optimizations', True)
  mla = {'model__projection': 'mla', 'model__rotary_dim': 4}
  cases = {name: {} for name in positions.SCHEMES} | {'learned': {'position__max_length': LENGTH}}
  cases |= {'rope, mla': mla, 't5, mla': mla, 'rope, gqa': {'model__kv_heads': 1}}
  cases |= {'alibi, window': {'attention__window': 20}}
  found = {case: differences(case.partition(',')[0], **sizes | m) for case, m in cases.items()}
  print(json.dumps(found), file=sys.__stdout__)


if __name__ == '__main__':
  main()
