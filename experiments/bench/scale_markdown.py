"""launch/SCALE.md: a row for each model and machine; scale.md.jinja has its text."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from experiments.bench import scale_formula, scale_rows
from experiments.bench.scale_formula import MACHINES, SIZES
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
  peak = costs.PEAKS[MACHINES[row['machine']].kind]
  return row['model_flops'] * RECOMPUTED / peak, row['link_seconds']


def mfu(row: Mapping[str, Any]) -> tuple[float, float, float]:
  """Shares of the peak: traffic not hidden, traffic hidden by compute, and expected."""
  compute, link = times(row)
  least, reached = compute / RECOMPUTED, REACHED[row['machine']][row['size']]
  return least / (compute + link), least / max(compute, link), least / max(compute / reached, link)


def fits(row: Mapping[str, Any]) -> str:
  """Whether the step fits in memory: by XLA's count, by the formula with room to spare, or not."""
  size, machine = SIZES[row['size']], MACHINES[row['machine']]
  if row['state_bytes'] + row['temporary_bytes'] <= machine.memory:
    return 'yes'
  if scale_formula.rows_per_chip(size, machine):
    return 'by formula'
  return f'**does not fit**; {scale_formula.chips_needed(size, machine)} chips'


def cells(row: Mapping[str, Any]) -> list[str]:
  """One row of the table, in the order of HEADS."""
  size, machine = SIZES[row['size']], MACHINES[row['machine']]
  needed = scale_formula.by_formula(size, machine, row['rows'])
  visible, hidden, expected = mfu(row)
  compute, link = times(row)
  return [
    _millions(row['parameters']), row['machine'],
    ' × '.join(f'{axis} {n}' for axis, n in row['mesh'].items()), row['why'],
    f'{row["rows"]} of {row["rows"] * row["parts"]}', _gigabytes(row['state_bytes']),
    _gigabytes(row['temporary_bytes']), f'{_gigabytes(needed)}, {needed / machine.memory:.0%}',
    fits(row), _tera(row['model_flops']), _tera(row['xla_flops']) if row['xla_flops'] else '–',
    f'{compute:.2f} s', f'{link:.2f} s', f'{visible:.0%} to {hidden:.0%}',
    f'{expected:.0%}' if scale_formula.rows_per_chip(size, machine) else '–',
  ]  # fmt: skip


def document_cells(row: Mapping[str, Any]) -> list[str]:
  """One row of the table of scale_rows."""
  used = row['weight_bytes'] + row['temporary_bytes']
  share = f'{used / MACHINES[scale_rows.MACHINE].memory:.0%}'
  memory = _gigabytes(row['weight_bytes']), _gigabytes(row['temporary_bytes'])
  return [_millions(row['parameters']), *memory, share]


def _millions(n: float) -> str:
  return f'{n / 1e6:,.0f}M'


def _gigabytes(n: float) -> str:
  return f'{n / 1e9:.2f} GB'


def _tera(n: float) -> str:
  return f'{n / 1e12:.0f} T'


def markdown(rows: Sequence[Mapping[str, Any]], documents: Sequence[Mapping[str, Any]]) -> str:
  """The whole file, from the rows of scale_estimate and of scale_rows."""
  text = pathlib.Path(__file__).with_name('scale.md.jinja').read_text(encoding='utf-8')
  template = jinja2.Template(
    text,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  chips = [
    f'{name}: {m.chips} of {m.memory / 1e9:.0f} GB, {costs.PEAKS[m.kind] / 1e12:.0f} TFLOP/s, '
    f'{m.link / 1e9:.0f} GB/s ({m.source})'
    for name, m in MACHINES.items()
  ]
  return template.render(
    heads=HEADS,
    rows=map(cells, rows),
    chips=chips,
    documents=map(document_cells, documents),
    shared_name=scale_rows.MACHINE,
    shared=MACHINES[scale_rows.MACHINE],
    TOKENS=scale_formula.TOKENS,
    LENGTH=scale_formula.LENGTH,
    VOCAB=scale_formula.VOCAB,
    FULL=scale_formula.FULL,
    FOUNDRY=FOUNDRY,
    DOCUMENT=scale_rows.TOKENS,
    TARGETS=scale_rows.TARGETS,
  )
