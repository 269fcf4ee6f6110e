"""Memory, FLOPs and traffic of a training step of large models on large machines, by XLA's count.

  python -m experiments.bench.scale_estimate                              all, into launch/SCALE.md
  python -m experiments.bench.scale_estimate --size=125M --machine=v5e-8  one row anew, as JSON

The step is compiled for as many virtual devices as the machine has chips, with the sharding of
`scale_formula.mesh`; nothing is computed. Rows are kept beside the table, and kept rows are not
compiled again. The compiler is that of the CPU, see the notes under the table.
"""

import itertools
import json
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from experiments.bench import scale_cache, scale_formula, scale_rows
from experiments.bench.scale_formula import LENGTH, MACHINES, SIZES, TOKENS
from pe_research.settings import cli
from pe_research.storage import files

TABLE = scale_formula.FOLDER / 'SCALE.md'
ROWS = scale_formula.FOLDER / 'scale.jsonl'
COLLECTIVE = re.compile(
  r'^ *(?:ROOT )?%\S+ = (.*?) '
  r'(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\(',
  re.MULTILINE,
)


def compiled(wanted: Mapping[str, Any]):
  """The training step of a config, compiled for the devices of this process, and its functional."""
  import numpy as np

  from pe_research.common import sharding
  from pe_research.data import batches
  from pe_research.model.functional import FunctionalDecoder
  from pe_research.training import optimizers, train_state, train_step

  on, functional = sharding.mesh(wanted['run']['mesh']), FunctionalDecoder(wanted)
  rows = sharding.split_batch(on, wanted['optimizer']['batch'])
  optimizer = optimizers.build(wanted['optimizer'], wanted['steps'])
  like = train_state.abstract(functional, optimizer, on)
  step = train_step.jitted(wanted, functional, optimizer, like, rows)
  batch = batches.shapes(wanted, functional.scheme.reads_beyond)
  return step.lower(like, batch, np.uint32(0)).compile(), functional


def traffic(program: str) -> float:
  """Bytes that a device receives in one run of a program in HLO text, by its collectives."""
  found = 0.0
  for shapes, kind in COLLECTIVE.findall(program):
    sizes = [_bytes(width, dims) for width, dims in re.findall(r'[a-z]+(\d+)\[([\d,]*)\]', shapes)]
    found += sum(sizes) * (2 if kind == 'all-reduce' else 1)  # a sum is gathered again
  return found


def _bytes(bits: str, dims: str) -> float:
  return int(bits) / 8 * math.prod(int(n) for n in dims.split(',') if n)


def row(size_name: str, machine_name: str) -> dict[str, Any]:
  """One row of the table; in a process with as many devices as the machine has chips."""
  from pe_research.training import costs

  size, machine = SIZES[size_name], MACHINES[machine_name]
  rows = max(1, scale_formula.rows_per_chip(size, machine))
  wanted = scale_formula.config(size, machine, rows)
  step, functional = compiled(wanted)
  own, cost = functional.sizes(), costs.of_step(step)
  axes, why = scale_formula.mesh(size, machine)
  parts = TOKENS // (LENGTH * rows * machine.chips)
  model = own['train_flops_per_token'] * TOKENS / machine.chips  # FLOPs of a chip in a step
  return {
    'size': size_name, 'machine': machine_name, 'parameters': own['parameters'], 'mesh': axes,
    'why': why, 'rows': rows, 'parts': parts, 'model_flops': model,
    'state_bytes': cost['argument_bytes'], 'temporary_bytes': cost['temporary_bytes'],
    'xla_flops': parts * cost['flops'],
    'link_seconds': parts * traffic(step.as_text()) / machine.link,
  }  # fmt: skip


def rows() -> list[dict[str, Any]]:
  """One row for each model and machine."""
  pairs = itertools.product(SIZES, MACHINES)
  wanted = [(machine, {'size': size, 'machine': machine}) for size, machine in pairs]
  module = 'experiments.bench.scale_estimate'
  return scale_cache.rows(ROWS, module, wanted, is_whole=lambda row: bool(row['xla_flops']))


def main(argv: list[str]) -> None:
  """One row as JSON, or the whole table into launch/SCALE.md."""
  parser = cli.parser('experiments.bench.scale_estimate', __doc__)
  parser.add_argument('--size', choices=SIZES)
  parser.add_argument('--machine', choices=MACHINES)
  given = parser.parse_args(argv)
  if given.size and given.machine:
    print(json.dumps(row(given.size, given.machine)))
    return
  if given.size or given.machine:
    parser.error('--size and --machine go together: one row; neither of them: the whole table')
  from experiments.bench import scale_markdown  # slow to import, and --help needs none of it

  whole = rows()
  files.write_rows(ROWS, whole)
  files.write_bytes(TABLE, scale_markdown.markdown(whole, scale_rows.rows()).encode())
  print(f'wrote {TABLE}')


if __name__ == '__main__':
  main(sys.argv[1:])
