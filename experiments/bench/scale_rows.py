"""Memory of a chip while all chips share a document of a million tokens, by XLA's count.

  python -m experiments.bench.scale_rows --size=125M   one row, as JSON

The program is that of `python -m pe_research.evaluate --mesh=context=32`: it is compiled for as
many virtual devices, and nothing is computed.
"""

import json
import math
import sys
from typing import Any

from experiments.bench import scale_cache, scale_formula
from pe_research.settings import cli

TOKENS, TARGETS = 2**20, 256
MACHINE = 'v5p-64'
ROWS = scale_formula.FOLDER / 'document.jsonl'


def row(size_name: str) -> dict[str, Any]:
  """Bytes on a chip: all weights in float32, and the temporary arrays of the program."""
  import jax

  from pe_research.common import sharding
  from pe_research.evaluation import scoring
  from pe_research.model.functional import FunctionalDecoder

  machine = scale_formula.MACHINES[MACHINE]
  config = scale_formula.config(scale_formula.SIZES[size_name], machine, 1)
  config['eval'] = config['eval'] | {'implementation': 'tiled', 'batch_tokens': TOKENS}
  mesh, functional = sharding.mesh({'data': 1, 'context': machine.chips}), FunctionalDecoder(config)
  scorer, like = scoring.Scorer(functional, config, mesh), jax.ShapeDtypeStruct
  shapes = jax.eval_shape(functional.init)
  place = lambda x, to: like(x.shape, x.dtype, sharding=to)
  params = jax.tree.map(place, shapes, sharding.layout(shapes, mesh))
  call = scoring.Call('nats', (1, TOKENS + 1), (TARGETS, 1.0, None))
  memory = scorer.lower(params, call).compile().memory_analysis()
  weights = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
  return {
    'size': size_name, 'parameters': functional.sizes()['parameters'], 'weight_bytes': weights,
    'temporary_bytes': memory.temp_size_in_bytes,
  }  # fmt: skip


def rows() -> list[dict[str, Any]]:
  """One row for each size."""
  wanted = [(MACHINE, {'size': size}) for size in scale_formula.SIZES]
  return scale_cache.rows(ROWS, 'experiments.bench.scale_rows', wanted)


def main(argv: list[str]) -> None:
  """One row as JSON, in a process with as many devices as the machine has chips."""
  parser = cli.parser('experiments.bench.scale_rows', __doc__)
  parser.add_argument('--size', choices=scale_formula.SIZES, required=True)
  print(json.dumps(row(parser.parse_args(argv).size)))


if __name__ == '__main__':
  main(sys.argv[1:])
