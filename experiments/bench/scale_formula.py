"""Sizes of models, machines, and the memory of a training step by formula."""

import pathlib
from typing import Any, NamedTuple

from pe_research.settings import cli

LENGTH, TOKENS = 2048, 2**19  # of a sequence, and of a batch
VOCAB = 32_000
FOLDER = pathlib.Path(__file__).parents[2] / 'launch'  # of the table and its rows


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
