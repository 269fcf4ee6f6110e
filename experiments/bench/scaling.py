"""Time and memory of a forward pass against length, measured and drawn."""

import pathlib
from typing import Any

from experiments.bench import peers
from pe_research.storage import files

LENGTHS = tuple(2**n for n in range(10, 17))
POSITIONS = ('rope', 'alibi', 't5')
SIZES = {'width': 128, 'layers': 4, 'heads': 4, 'batch': 1}


def run(given) -> None:
  """Measures what DIR/scaling.jsonl lacks, and draws DIR/scaling.png."""
  rows = given.workdir / 'scaling.jsonl'
  for length in LENGTHS:
    for position in POSITIONS:
      found = files.read_rows(rows)
      if any((r['length'], r['position']) == (length, position) for r in found):
        continue
      contest = peers.Contest('', SIZES | {'mode': 'forward', 'length': length}, position, ())
      row = peers.ours(contest)
      files.append_row(rows, row)
      print(f'{position:6} {length:7,} tokens  {row["seconds"]:7.2f} s  {row["peak_gb"]:.2f} GB')
  path = given.workdir / 'scaling.png'
  draw(files.read_rows(rows), path)
  print(f'wrote {path}')


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Seconds and gigabytes by length, beside the square of the length."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), dpi=160, constrained_layout=True)
  for axis, field, unit in zip(axes, ('seconds', 'peak_gb'), ('s', 'GB'), strict=True):
    for position, mark in zip(POSITIONS, 'os^', strict=True):
      own = sorted((r['length'], r[field]) for r in rows if r['position'] == position)
      axis.plot(*zip(*own, strict=True), marker=mark, label=position)
    axis.set_xscale('log', base=2)
    axis.set_xlabel('length (tokens)')
    axis.set_ylabel('forward pass (s)' if unit == 's' else 'peak resident memory (GB)')
    axis.grid(alpha=0.3)
  longest = max(r['length'] for r in rows)
  last = max(r['seconds'] for r in rows if r['length'] == longest)
  lengths = sorted({r['length'] for r in rows})
  square = [last * (n / longest) ** 2 for n in lengths]
  axes[0].plot(lengths, square, color='0.5', linestyle=':', label='length squared')
  axes[0].set_yscale('log')
  axes[1].set_ylim(bottom=0)
  axes[0].legend(frameon=False)
  figure.savefig(path)
  plt.close(figure)
