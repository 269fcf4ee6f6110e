"""What a training step of a large model takes on machines that are not here, by XLA's own count.

  python -m experiments.bench.paper                               all of it, into launch/SCALE.md
  python -m experiments.bench.paper --size=125M --machine=v5e-8   one row, as JSON

The step is compiled for as many virtual devices as the machine has chips, with the sharding that is
chosen for it; nothing is computed. The compiler is that of the CPU, so that temporary memory is a
guide: a TPU's compiler fuses more and plans memory better.
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from pe_research import cli, configs, costs, records

LENGTH, TOKENS = 2048, 2**19  # of a sequence, and of a batch
VOCAB = 32_000
TABLE = pathlib.Path(__file__).parents[2] / 'launch' / 'SCALE.md'


class Size(NamedTuple):
  """Of a decoder."""

  width: int
  layers: int
  heads: int


class Machine(NamedTuple):
  """What its vendor says of it.

  Attributes:
    chips: of it.
    kind: of a chip, as JAX calls it.
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
  """How the model is laid out, and why: as little split as memory allows.

  Copies need no traffic but the gradients' sum, so they come first; then parameters are split over
  enough chips that the state leaves room. Nothing here is large enough to split heads.
  """
  held = STATE * parameters(size)
  if held <= ROOM * machine.memory:
    return {'data': machine.chips}, f'the state, {held / 1e9:.1f} GB, fits on every chip'
  split = 2
  while held / split > ROOM * machine.memory and split < machine.chips:
    split *= 2
  why = f'the state, {held / 1e9:.1f} GB, is split over {split} chips'
  return {'data': machine.chips // split, 'fsdp': split}, why


def parameters(size: Size) -> float:
  """About: attention 4 D^2 and a gated MLP 8 D^2 a layer, and a tied table."""
  return 12 * size.width**2 * size.layers + VOCAB * size.width


def by_formula(size: Size, machine: Machine, rows: int) -> float:
  """Bytes of a chip that computes `rows` sequences at a time, as a good compiler plans them.

  State and gradients, split as the state is; for each sequence the input of every block, which is
  what recomputation keeps, the work of one block, and logits with their gradients; and one block's
  weights, gathered.
  """
  split = mesh(size, machine)[0].get('fsdp', 1)
  held = (STATE + 4) * parameters(size) / split
  kept = 2 * LENGTH * size.width * size.layers
  block = 2 * LENGTH * size.width * 40
  logits = 2 * 4 * LENGTH * VOCAB
  gathered = 2 * 2 * 12 * size.width**2 if split > 1 else 0
  return held + rows * (kept + block + logits) + gathered


def at_once(size: Size, machine: Machine) -> int:
  """Sequences of a chip in one pass: as many as fit, since each pass sums gradients over chips."""
  most = TOKENS // (LENGTH * machine.chips)
  fit = [n for n in (1, 2, 4, 8, 16, 32) if by_formula(size, machine, n) < FULL * machine.memory]
  return min(max(fit, default=1), most)


def config(size: Size, machine: Machine, rows: int) -> dict[str, Any]:
  """Resolved, with `rows` sequences a chip at a time."""
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
  """The training step of a config, and its blueprint; compiled for the devices of this process."""
  from pe_research import batches, optimizers, sharding, states, train
  from pe_research.blueprint import Blueprint

  on, blueprint = sharding.mesh(wanted['run']['mesh']), Blueprint(wanted)
  rows = sharding.split_batch(on, wanted['optimizer']['batch'])
  optimizer = optimizers.build(wanted['optimizer'], wanted['steps'])
  layout = states.layout(blueprint, optimizer, on)
  step = train.compile_step(wanted, blueprint, optimizer, layout, rows)
  like = states.abstract(blueprint, optimizer, on)
  return step.lower(like, batches.shapes(wanted)).compile(), blueprint


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
  size, machine = SIZES[size_name], MACHINES[machine_name]
  rows = at_once(size, machine)
  wanted = config(size, machine, rows)
  step, blueprint = compiled(wanted)
  own, cost, (axes, why) = blueprint.sizes(), costs.of_step(step), mesh(size, machine)
  parts = TOKENS // (LENGTH * rows * machine.chips)
  model = own['train_flops_per_token'] * TOKENS / machine.chips  # FLOPs of a chip in a step
  run = model * 4 / 3  # blocks are computed once more for their gradients
  seconds = run / costs.PEAKS[machine.kind], parts * traffic(step.as_text()) / machine.link
  return {
    'size': size_name, 'machine': machine_name, 'parameters': own['parameters'], 'mesh': axes,
    'why': why, 'rows': rows, 'parts': parts, 'model_flops': model,
    'state_bytes': cost['argument_bytes'], 'temporary_bytes': cost['temporary_bytes'],
    'memory': machine.memory, 'by_formula': by_formula(size, machine, rows),
    'compute_seconds': seconds[0], 'link_seconds': seconds[1],
    'mfu_at_most': model / costs.PEAKS[machine.kind] / max(seconds),
    'mfu_unhidden': model / costs.PEAKS[machine.kind] / sum(seconds),
  }  # fmt: skip


def in_a_process(size: str, machine: str) -> dict[str, Any]:
  """The row, from a process of its own that sees as many devices as the machine has chips."""
  flags = f'--xla_force_host_platform_device_count={MACHINES[machine].chips}'
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
  command = [sys.executable, '-m', 'experiments.bench.paper', f'--size={size}']
  done = subprocess.run(
    [*command, f'--machine={machine}'], env=environment, capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise ChildProcessError(f'{size} on {machine}: {done.stderr.strip().splitlines()[-1]}')
  return json.loads(done.stdout.splitlines()[-1])


def markdown(rows: list[Mapping[str, Any]]) -> str:
  """The table, and what its columns mean."""
  lines = [
    '# Scale on paper', '',
    f'One training step of {TOKENS:,} tokens in sequences of {LENGTH:,}: RoPE, SwiGLU, bfloat16 '
    'blocks with recomputation, float32 parameters and moments, 32,000 tokens of vocabulary. '
    'Nothing of it was run on these machines: memory is that of the compiled step on as many '
    'virtual devices, the rest follows from it. Written by '
    '`python -m experiments.bench.paper`.', '',
    '| model | machine | sharding | why | at once, a chip | state | temporary | by formula | '
    'model FLOPs, a chip | compute | traffic | MFU |',
    '|---|---|---|---|---|---|---|---|---|---|---|---|',
  ]  # fmt: skip
  for r in rows:
    axes = ' × '.join(f'{axis} {n}' for axis, n in r['mesh'].items())
    share = r['by_formula'] / r['memory']
    lines.append(
      f'| {r["parameters"] / 1e6:,.0f}M | {r["machine"]} | {axes} | {r["why"]} | {r["rows"]} of '
      f'{r["rows"] * r["parts"]} | {r["state_bytes"] / 1e9:.2f} GB | '
      f'{r["temporary_bytes"] / 1e9:.2f} GB | {r["by_formula"] / 1e9:.2f} GB, {share:.0%} of the '
      f'chip | '
      f'{r["model_flops"] / 1e12:.0f} T | {r["compute_seconds"]:.2f} s | '
      f'{r["link_seconds"]:.2f} s | {r["mfu_unhidden"]:.0%} to {r["mfu_at_most"]:.0%} |'
    )
  lines += [
    '',
    '- **at once**: sequences that a chip computes in one pass, of those that it has in a step; '
    '`optimizer.accumulate` makes the others follow, and each pass sums gradients over the chips.',
    '- **state**: parameters and moments, and the batch; **temporary**: all that the compiled step '
    'holds besides. The compiler for CPUs gathers all layers at once and sums gradients before it '
    'splits them, so that a model whose parameters are split holds far more here than on a TPU; '
    '**by formula** is what a compiler that gathers a block at a time needs in all.',
    '- **compute**: model FLOPs, a third more for the blocks that are computed again, at the peak '
    'of the data sheet. **traffic**: bytes that the collectives of the compiled step bring to a '
    'chip, over the rate of its links.',
    '- **MFU**: model FLOPs over the peak in that time: where nothing hides the traffic, and where '
    'compute hides it. Kernels reach less than the peak, so that both are bounds. The compiler for '
    'CPUs moves float32 where that of a TPU moves bfloat16: traffic is twice what it would be.',
    '',
    'Chips: '
    + '; '.join(
      f'{name}: {m.chips} of {m.memory / 1e9:.0f} GB, {costs.PEAKS[m.kind] / 1e12:.0f} TFLOP/s, '
      f'{m.link / 1e9:.0f} GB/s ({m.source})'
      for name, m in MACHINES.items()
    )
    + '.',
    '',
  ]
  return '\n'.join(lines)


def main(argv: list[str]) -> None:
  """One row as JSON, or the whole table into launch/SCALE.md."""
  parser = cli.parser('experiments.bench.paper', __doc__)
  parser.add_argument('--size', choices=SIZES)
  parser.add_argument('--machine', choices=MACHINES)
  given = parser.parse_args(argv)
  if given.size and given.machine:
    print(json.dumps(row(given.size, given.machine)))
    return
  rows = []
  for size in SIZES:
    for machine in MACHINES:
      rows.append(in_a_process(size, machine))
      print(f'{size} on {machine}', flush=True)
  records.write_bytes(TABLE, markdown(rows).encode())
  print(f'wrote {TABLE}')


if __name__ == '__main__':
  main(sys.argv[1:])
