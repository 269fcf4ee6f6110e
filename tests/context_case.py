"""For eight devices: losses of windows that devices share, less those of windows that none do."""

import json
import sys

import jax
import numpy as np
import run_fixtures

from pe_research import positions
from pe_research.common import sharding
from pe_research.evaluation import scoring
from pe_research.model.functional import FunctionalDecoder

LENGTH, ROWS = 64, 8
LONG = 4096
HEADS = {'model__heads': 2}


def made(name: str, **overrides):
  """A config, its functional decoder and its parameters, with those of positions far from zero."""
  config = run_fixtures.config('state_of_the_union', name, **overrides)
  functional = FunctionalDecoder(config)
  params = {k: np.asarray(v) for k, v in functional.init().items()}
  rng = np.random.default_rng(0)
  # Learned tables and biases begin near zero, where a wrong offset would not show.
  params = {k: v + rng.normal(0, 0.3, v.shape) if 'position' in k else v for k, v in params.items()}
  return config, functional, {k: v.astype(np.float32) for k, v in params.items()}


def scorer(config, functional, devices: int, implementation: str = 'tiled') -> scoring.Scorer:
  """Of eight devices, of which so many share a sequence."""
  config = config | {'eval': config['eval'] | {'implementation': implementation}}
  return scoring.Scorer(functional, config, sharding.mesh({'data': -1, 'context': devices}))


def differences(
  name: str, length: int = LENGTH, devices: int = 4, alone: str = 'dense', **overrides
) -> dict[str, float]:
  """Largest differences of the losses of all targets and of the last few, and how these spread.

  Of windows that so many devices share, from windows that each have one, by `alone`.
  """
  sizes = HEADS | {'eval__batch_tokens': length * ROWS, 'attention__tile': length // 8}
  config, functional, params = made(name, **sizes | overrides)
  windows = np.random.default_rng(1).integers(0, 256, (ROWS, length + 1))
  ask = lambda made: [made.nats(params, windows, last) for last in (None, 4)]
  alone, shared = (
    ask(scorer(config, functional, n, how)) for n, how in ((1, alone), (devices, 'tiled'))
  )
  most = lambda i: float(np.abs(shared[i] - alone[i]).max())
  return {'all': most(0), 'last': most(1), 'scale': float(alone[0].std())}


def memory(name: str) -> dict[int, int]:
  """Bytes that a device holds besides weights and tokens, by how many share a long sequence."""
  config, functional, params = made(name, attention__tile=64, **HEADS)
  found = {}
  for devices in (1, 2, 4, 8):
    asked = scorer(config, functional, devices)
    call = scoring.Call('nats', (8 // devices, LONG + 1), (LONG, 1.0, None))
    program = asked.lower(params, call).compile()
    found[devices] = program.memory_analysis().temp_size_in_bytes
  return found


MLA = {'model__projection': 'mla', 'model__rotary_dim': 4}
CASES = {name: {} for name in positions.SCHEMES} | {'learned': {'position__max_length': LENGTH}}
CASES |= {'rope, mla': MLA, 't5, mla': MLA, 'rope, gqa': {'model__kv_heads': 1}}
CASES |= {'alibi, window': {'attention__window': 20}}


def main(cases: list[str]) -> None:
  """Prints them for the cases, as JSON.

  'NAME, long' is of a long sequence, 'memory' what that holds.
  """
  jax.config.update('jax_disable_most_optimizations', True)
  found = {}
  for case in cases:
    name, _, how = case.partition(', ')
    if case == 'memory':
      found[case] = memory('rope')
    elif how == 'long':
      found[case] = differences(name, LONG, 8, 'tiled')
    else:
      found[case] = differences(name, **CASES[case])
  print(json.dumps(found), file=sys.__stdout__)


if __name__ == '__main__':
  main(sys.argv[1:])
