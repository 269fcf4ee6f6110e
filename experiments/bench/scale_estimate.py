"""Memory, FLOPs and traffic of a training step of large models on large machines, by XLA's count.

  python -m experiments.bench.scale_estimate                              all, into launch/SCALE.md
  python -m experiments.bench.scale_estimate --size=125M --machine=v5e-8  one row anew, as JSON

The step is compiled for as many virtual devices as the machine has chips, with the sharding of
`mesh`; nothing is computed. Rows are kept beside the table, and kept rows are not compiled again.
The compiler is that of the CPU, see the notes under the table.
"""

import itertools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from pe_research.settings import cli
from pe_research.storage import files

LENGTH, TOKENS = 2048, 2**19  # of a sequence, and of a batch
VOCAB = 32_000
TABLE = pathlib.Path(__file__).parents[2] / 'launch' / 'SCALE.md'
ROWS = TABLE.with_name('scale.jsonl')


class Size(NamedTuple):
  """Sizes of a decoder."""

  width: int
  layers: int
  heads: int


class Machine(NamedTuple):
  """A machine by its data sheet.

  Attributes:
    chips: their number.
    kind: of a chip, as JAX names it.
    memory: bytes of a chip.
    link: bytes a second that a chip sends to the others, all its links together.
    source: of these numbers.
  """

  chips: int
  kind: str
  memory: float
  link: float
  source: str


SIZES = {
  '125M': Size(768, 12, 12), '350M': Size(1024, 24, 16), '1.3B': Size(2048, 24, 16),
  '7B': Size(4096, 32, 32),
}  # fmt: skip
TPU_PAGES = 'cloud.google.com/tpu/docs'
MACHINES = {
  'v5e-8': Machine(8, 'TPU v5 lite', 16e9, 200e9, f'{TPU_PAGES}/v5e'),
  'v5p-64': Machine(32, 'TPU v5', 95e9, 600e9, f'{TPU_PAGES}/v5p (64 cores are 32 chips)'),
  '8 x H100': Machine(8, 'NVIDIA H100 80GB HBM3', 80e9, 450e9, 'H100 SXM data sheet, NVLink 4'),
}
COLLECTIVE = re.compile(
  r'^ *(?:ROOT )?%\S+ = (.*?) '
  r'(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\(',
  re.MULTILINE,
)
STATE = 12  # bytes a parameter: float32 weights and two moments
ROOM = 0.4  # of a chip's memory that the state may take, so that activations fit
FULL = 0.8  # of it that all may take


def mesh(size: Size, machine: Machine) -> tuple[dict[str, int], str]:
  """Axes of the mesh, and the reason: as little sharding as memory allows.

  Data parallelism needs no traffic but the sum of gradients, so it comes first; then parameters are
  split over enough chips that the state leaves room. No model here needs its heads split.
  """
  state = STATE * parameters(size)
  if state <= ROOM * machine.memory:
    return {'data': machine.chips}, f'the state, {state / 1e9:.1f} GB, fits on every chip'
  split = 2
  while state / split > ROOM * machine.memory and split < machine.chips:
    split *= 2
  why = f'the state, {state / 1e9:.1f} GB, is split over {split} chips'
  return {'data': machine.chips // split, 'fsdp': split}, why


def parameters(size: Size) -> float:
  """About: attention 4 D^2 and a gated MLP 8 D^2 a layer, and a tied table."""
  return 12 * size.width**2 * size.layers + VOCAB * size.width


def by_formula(size: Size, machine: Machine, rows: int) -> float:
  """Bytes on a chip that computes `rows` sequences at a time, as a good compiler would plan them.

  State and gradients, split as the state is; for each sequence the input of every block, which is
  what recomputation keeps, the work of one block, and logits with their gradients; and one block's
  weights, gathered.
  """
  split = mesh(size, machine)[0].get('fsdp', 1)
  state = (STATE + 4) * parameters(size) / split
  inputs = 2 * LENGTH * size.width * size.layers
  block = 2 * LENGTH * size.width * 40
  logits = 2 * 4 * LENGTH * VOCAB
  gathered = 2 * 2 * 12 * size.width**2 if split > 1 else 0
  return state + rows * (inputs + block + logits) + gathered


def rows_per_chip(size: Size, machine: Machine) -> int:
  """Sequences on a chip in one pass, as many as fit; 0 if not even one does.

  Each pass sums gradients over chips, so fewer passes are better.
  """
  most = TOKENS // (LENGTH * machine.chips)
  fit = [n for n in (1, 2, 4, 8, 16, 32) if by_formula(size, machine, n) < FULL * machine.memory]
  return min(max(fit, default=0), most)


def chips_needed(size: Size, machine: Machine) -> int:
  """The number of chips on which one sequence each fits, by doubling."""
  while not rows_per_chip(size, machine):
    machine = machine._replace(chips=2 * machine.chips)
  return machine.chips


def config(size: Size, machine: Machine, rows: int) -> dict[str, Any]:
  """The resolved config, with `rows` sequences on a chip at a time."""
  from pe_research.settings import configs  # slow to import, and --help needs none of it

  axes, _ = mesh(size, machine)
  fields = {
    'model.width': size.width, 'model.layers': size.layers, 'model.heads': size.heads,
    'model.dtype': 'bfloat16', 'model.remat': 'block', 'attention.implementation': 'tiled',
    'optimizer.batch': rows * machine.chips, 'data.tokenizer': 'sentencepiece',
    'data.vocab': VOCAB, 'matmul_precision': 'default', 'eval.lengths': f'({LENGTH},)',
    'run.mesh.data': axes['data'], 'run.mesh.fsdp': axes.get('fsdp', 1),
  }  # fmt: skip
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  return configs.resolve(
    cli.read_config([f'--config=configs/lm.py:position=rope,length={LENGTH}', *flags])
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
  step = train_step.compiled(wanted, functional, optimizer, like, rows)
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
  rows = max(1, rows_per_chip(size, machine))
  wanted = config(size, machine, rows)
  step, functional = compiled(wanted)
  own, cost, (axes, why) = functional.sizes(), costs.of_step(step), mesh(size, machine)
  parts = TOKENS // (LENGTH * rows * machine.chips)
  model = own['train_flops_per_token'] * TOKENS / machine.chips  # FLOPs of a chip in a step
  return {
    'size': size_name, 'machine': machine_name, 'parameters': own['parameters'], 'mesh': axes,
    'why': why, 'rows': rows, 'parts': parts, 'model_flops': model,
    'state_bytes': cost['argument_bytes'], 'temporary_bytes': cost['temporary_bytes'],
    'xla_flops': parts * cost['flops'],
    'link_seconds': parts * traffic(step.as_text()) / machine.link,
  }  # fmt: skip


def in_a_process(module: str, machine: str, **asked: str) -> dict[str, Any]:
  """A row from a process of its own, with as many devices as the machine has chips."""
  flags = f'--xla_force_host_platform_device_count={MACHINES[machine].chips}'
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
  command = [sys.executable, '-m', module, *(f'--{name}={text}' for name, text in asked.items())]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  if done.returncode:
    raise ChildProcessError(f'{asked}: {done.stderr.strip().splitlines()[-1]}')
  return json.loads(done.stdout.splitlines()[-1])


def main(argv: list[str]) -> None:
  """One row as JSON, or the whole table into launch/SCALE.md."""
  parser = cli.parser('experiments.bench.scale_estimate', __doc__)
  parser.add_argument('--size', choices=SIZES)
  parser.add_argument('--machine', choices=MACHINES)
  given = parser.parse_args(argv)
  from experiments.bench import scale_markdown, scale_rows  # both import this module

  if given.size and given.machine:
    print(json.dumps(row(given.size, given.machine)))
    return
  if given.size or given.machine:
    parser.error('--size and --machine go together: one row; neither of them: the whole table')
  whole = {(row['size'], row['machine']) for row in kept() if row['xla_flops']}
  for size, machine in itertools.product(SIZES, MACHINES):
    if (size, machine) not in whole:
      asked = {'size': size, 'machine': machine}
      files.append_row(ROWS, in_a_process('experiments.bench.scale_estimate', machine, **asked))
    print(f'{size} on {machine}', flush=True)
  files.write_rows(ROWS, kept())
  files.write_bytes(TABLE, scale_markdown.markdown(kept(), scale_rows.rows()).encode())
  print(f'wrote {TABLE}')


def kept() -> list[dict[str, Any]]:
  """The kept rows in the order of the table; the last of those with the same model and machine."""
  found = {(row['size'], row['machine']): row for row in files.read_rows(ROWS)}
  return [found[key] for key in itertools.product(SIZES, MACHINES) if key in found]


if __name__ == '__main__':
  main(sys.argv[1:])
