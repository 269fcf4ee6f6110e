"""What one document of a million tokens takes of a chip when all chips share it, by XLA's count.

  python -m experiments.bench.scale_rows --size=125M   one row, as JSON

The program is that of `python -m pe_research.evaluate --mesh=context=32`: it is compiled for as
many virtual devices, and nothing is computed.
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from experiments.bench import scale_estimate
from pe_research.settings import cli
from pe_research.storage import files

TOKENS, TARGETS = 2**20, 256
MACHINE = 'v5p-64'
ROWS = scale_estimate.TABLE.with_name('document.jsonl')


def row(size_name: str) -> dict[str, Any]:
  """Bytes of a chip: the weights, all of them in float32, and what the program holds besides."""
  import jax

  from pe_research.common import sharding
  from pe_research.evaluation import scoring
  from pe_research.model.functional import FunctionalDecoder

  machine = scale_estimate.MACHINES[MACHINE]
  config = scale_estimate.config(scale_estimate.SIZES[size_name], machine, 1)
  config['eval'] = config['eval'] | {'implementation': 'tiled', 'batch_tokens': TOKENS}
  mesh, functional = sharding.mesh({'data': 1, 'context': machine.chips}), FunctionalDecoder(config)
  scorer, like = scoring.Scorer(functional, config, mesh), jax.ShapeDtypeStruct
  shapes = jax.eval_shape(functional.init)
  place = lambda x, to: like(x.shape, x.dtype, sharding=to)
  params = jax.tree.map(place, shapes, sharding.layout(shapes, mesh))
  call = scoring.Call('nats', (1, TOKENS + 1), (TARGETS, 1.0, None))
  held = scorer.lower(params, call).compile().memory_analysis()
  weights = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
  return {
    'size': size_name, 'parameters': functional.sizes()['parameters'], 'weight_bytes': weights,
    'temporary_bytes': held.temp_size_in_bytes,
  }  # fmt: skip


def rows() -> list[dict[str, Any]]:
  """One for each size; what is kept is not compiled again."""
  kept = {row['size']: row for row in files.read_rows(ROWS)}
  for size in scale_estimate.SIZES:
    if size not in kept:
      kept[size] = scale_estimate.in_a_process('experiments.bench.scale_rows', MACHINE, size=size)
      files.append_row(ROWS, kept[size])
      print(f'a document, {size} on {MACHINE}', flush=True)
  return [kept[size] for size in scale_estimate.SIZES]


def markdown(found: Sequence[dict[str, Any]]) -> str:
  """The section of launch/SCALE.md."""
  machine = scale_estimate.MACHINES[MACHINE]
  lines = [('model', 'weights', 'besides, by XLA', 'of a chip'), ('---',) * 4]
  for row in found:
    held = row['weight_bytes'] + row['temporary_bytes']
    lines.append(
      (
        f'{row["parameters"] / 1e6:,.0f}M', f'{row["weight_bytes"] / 1e9:.2f} GB',
        f'{row["temporary_bytes"] / 1e9:.2f} GB', f'{held / machine.memory:.0%}',
      )
    )  # fmt: skip
  table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  return f"""
## One document of {TOKENS:,} tokens

Shared by the {machine.chips} chips of {MACHINE}, {TOKENS // machine.chips:,} tokens on each, with \
`--mesh=context={machine.chips}`: what a chip of {machine.memory / 1e9:.0f} GB holds while the \
losses of the last {TARGETS} targets are found. Weights are float32, whole on every chip. Keys and \
values go round; the program of the CPU's compiler is counted as it is.

{table}
"""


def main(argv: list[str]) -> None:
  """One row as JSON, in a process with as many devices as the machine has chips."""
  parser = cli.parser('experiments.bench.scale_rows', __doc__)
  parser.add_argument('--size', choices=scale_estimate.SIZES, required=True)
  print(json.dumps(row(parser.parse_args(argv).size)))


if __name__ == '__main__':
  main(sys.argv[1:])
