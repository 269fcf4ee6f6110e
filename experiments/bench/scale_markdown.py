"""The table of launch/SCALE.md: what each row says, and what it rests on."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.bench import scale_estimate
from pe_research.training import costs

RECOMPUTED = 4 / 3  # blocks are computed once more for their gradients

# Share of the peak that training at 2,048 tokens without recomputation reached on eight GPUs.
FOUNDRY = 'github.com/mosaicml/llm-foundry, scripts/train/benchmarking'
H100 = {'125M': 0.35, '350M': 0.35, '1.3B': 0.42, '7B': 0.46}  # the smallest published has 760M
A100 = {'125M': 0.45, '350M': 0.52, '1.3B': 0.60, '7B': 0.64}
REACHED = {'v5e-8': A100, 'v5p-64': A100, '8 x H100': H100}

HEADS = (
  'model', 'machine', 'sharding', 'why', 'at once, a chip', 'state', 'temporary by XLA',
  'in all by formula', 'fits', 'FLOPs by the model', 'FLOPs by XLA', 'compute', 'traffic',
  'MFU at most', 'MFU expected',
)  # fmt: skip


def times(row: Mapping[str, Any]) -> tuple[float, float]:
  """Seconds of a step at the peak of the chip, and on its links."""
  peak = costs.PEAKS[scale_estimate.MACHINES[row['machine']].kind]
  return row['model_flops'] * RECOMPUTED / peak, row['link_seconds']


def mfu(row: Mapping[str, Any]) -> tuple[float, float, float]:
  """Shares of the peak: with traffic in the open, with traffic hidden, and as expected."""
  compute, link = times(row)
  least, reached = compute / RECOMPUTED, REACHED[row['machine']][row['size']]
  return least / (compute + link), least / max(compute, link), least / max(compute / reached, link)


def fits(row: Mapping[str, Any]) -> str:
  """By XLA's memory as it is, by the formula with room to spare, or not at all."""
  size, machine = scale_estimate.SIZES[row['size']], scale_estimate.MACHINES[row['machine']]
  if row['state_bytes'] + row['temporary_bytes'] <= machine.memory:
    return 'yes'
  if scale_estimate.at_once(size, machine):
    return 'by formula'
  return f'**does not fit**; {scale_estimate.enough(size, machine)} chips'


def cells(row: Mapping[str, Any]) -> list[str]:
  """One row of the table."""
  size, machine = scale_estimate.SIZES[row['size']], scale_estimate.MACHINES[row['machine']]
  needed = scale_estimate.by_formula(size, machine, row['rows'])
  gigabytes, tera = lambda n: f'{n / 1e9:.2f} GB', lambda n: f'{n / 1e12:.0f} T'
  open_, hidden, expected = mfu(row)
  compute, link = times(row)
  return [
    f'{row["parameters"] / 1e6:,.0f}M', row['machine'],
    ' × '.join(f'{axis} {n}' for axis, n in row['mesh'].items()), row['why'],
    f'{row["rows"]} of {row["rows"] * row["parts"]}', gigabytes(row['state_bytes']),
    gigabytes(row['temporary_bytes']), f'{gigabytes(needed)}, {needed / machine.memory:.0%}',
    fits(row), tera(row['model_flops']), tera(row['xla_flops']) if row['xla_flops'] else '–',
    f'{compute:.2f} s', f'{link:.2f} s', f'{open_:.0%} to {hidden:.0%}',
    f'{expected:.0%}' if scale_estimate.at_once(size, machine) else '–',
  ]  # fmt: skip


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
  """The table, and what its columns mean."""
  chips = '; '.join(
    f'{name}: {m.chips} of {m.memory / 1e9:.0f} GB, {costs.PEAKS[m.kind] / 1e12:.0f} TFLOP/s, '
    f'{m.link / 1e9:.0f} GB/s ({m.source})'
    for name, m in scale_estimate.MACHINES.items()
  )
  lines = [HEADS, ['---'] * len(HEADS), *map(cells, rows)]
  table = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  return f'{INTRODUCTION}\n{table}\n\n{NOTES}\nChips: {chips}.\n'


INTRODUCTION = f"""# Scale on paper

One training step of {scale_estimate.TOKENS:,} tokens in sequences of \
{scale_estimate.LENGTH:,}: RoPE, SwiGLU, bfloat16 blocks with recomputation, float32 parameters \
and moments, {scale_estimate.VOCAB:,} tokens of vocabulary. Nothing of it was run on these \
machines. Written by `python -m \
experiments.bench.scale_estimate`, which compiles each step for as many virtual devices.
"""
NOTES = f"""- **at once**: sequences that a chip computes in one pass, of those that it has in \
a step; `optimizer.accumulate` makes the others follow, and each pass sums gradients over the chips.
- **state**: parameters, moments and the batch, as XLA counts the arguments of the step; \
**temporary by XLA**: all that the compiled step holds besides, as it is. The compiler is that of \
CPUs: its programs compute blocks again as they are told, but not when a block's gradient is due, \
so that recomputation saves them nothing (6 layers of width 512: 1.54 GB with it, 1.52 GB \
without), and weights that are split are gathered for many blocks at once.
- **in all by formula**: state, gradients, the input of every block, the work of one block and \
the logits, and its share of the chip. Sequences at once are chosen by it, for at most \
{scale_estimate.FULL:.0%} of the chip.
- **fits**: *yes*: by XLA's count as it is; *by formula*: not by that, but by the formula; **does \
not fit**: by neither, and as many chips of that kind as the formula asks for.
- **FLOPs**: of a chip in a step; **by the model**: products and attention, three times their \
forward pass; **by XLA**: of the compiled program, which counts what is computed again, and a \
loop once however often it runs: most of attention, which goes tile by tile, is not in it; –: not \
counted yet.
- **compute**: the model's FLOPs, a third more for the blocks that are computed again, at the \
peak of the data sheet. **traffic**: bytes that the collectives of the compiled step bring to a \
chip, over the rate of its links. The compiler for CPUs moves float32 where that of a TPU moves \
bfloat16: traffic is twice what it would be.
- **MFU at most**: model FLOPs over the peak in that time, where nothing hides the traffic and \
where compute hides it. No kernel reaches the peak, so both are bounds, and three quarters is the \
most that recomputation leaves.
- **MFU expected**: the same where compute takes as much longer as training at 2,048 tokens did \
elsewhere, an assumption. 8 x H100: H100s reached 35 % of their peak at 760M (taken for what is \
smaller), 42 % at 1.3B, 46 % at 7B ({FOUNDRY}). TPUs: nothing of these sizes is published, so \
those of A100s are taken, 45, 52, 60 and 64 % ({FOUNDRY}); MaxText publishes 61 % for 16B on v5e \
and 71 % for 32B on v5p (github.com/AI-Hypercomputer/maxtext, MaxText/configs/v5e and v5p).
"""
