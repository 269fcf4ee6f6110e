"""Writes the report of a sweep: all rows, a figure, and a page that needs no other file."""

import pathlib
from collections.abc import Sequence

from experiments.report import figures, page, render, summary, tables
from experiments.report.numbers import joined
from experiments.studies import comparability
from experiments.studies.measured import Run
from experiments.studies.study import Comparison
from pe_research.settings import cli
from pe_research.show import drawing, explorer
from pe_research.storage import files


def write(
  runs: Sequence[Run],
  workdir: pathlib.Path,
  differences: Sequence[str] = (),
  with_explorer: bool = False,
  stretches: Sequence[str] = (),
) -> list[pathlib.Path]:
  """Writes results.jsonl, loss_by_length.svg and .png, report.html; the same runs, the same bytes.

  Args:
    runs: finished, and comparable but for `differences`.
    workdir: where the files go.
    differences: between the runs, that were allowed; the page begins with them.
    with_explorer: whether explorer.html is written too, which shows one run of every scheme.
    stretches: extensions of these runs that the explorer shows, 'yarn:factor=4'.

  Returns:
    The files.
  """
  sections, measured = summary.sections(runs), files.read_json(workdir / tables.CACHE_FILE)
  figure = figures.loss_by_length(sections[0])
  contents = {
    'loss_by_length.svg': drawing.svg(figure, 'loss').encode(),
    'loss_by_length.png': drawing.png(figure),
    'report.html': page.page(runs, sections, differences, measured, with_explorer).encode(),
  }
  if with_explorer:
    first = {run.config['position']['name']: run.workdir for run in reversed(runs)}
    workdirs = list(reversed(first.values()))
    contents['explorer.html'] = explorer.html(workdirs, stretches).encode()
  workdir.mkdir(parents=True, exist_ok=True)
  files.write_rows(workdir / 'results.jsonl', (row for run in runs for row in run.rows))
  for name, content in contents.items():
    files.write_bytes(workdir / name, content)
  return [workdir / name for name in ('results.jsonl', *contents)]


def report(comparison: Comparison) -> None:
  """Compares the finished runs of a study and writes their report; comparability.Refused."""
  runs = comparability.load(comparison.runs)
  differences = comparability.check(runs, comparison.allowed, comparison.may_differ)
  publish(runs, comparison.folder, differences, comparison.explorer)


def publish(
  runs: Sequence[Run],
  workdir: pathlib.Path,
  differences: Sequence[str] = (),
  with_explorer: bool = False,
  stretches: Sequence[str] = (),
) -> None:
  """Prints the table and the paths of the files that it writes; arguments as in `write`."""
  print(table(runs))
  for note in comparability.notes(runs):
    print(f'note: {note}')
  for path in write(runs, workdir, differences, with_explorer, stretches):
    print(f'wrote {path}')


def table(runs: Sequence[Run]) -> str:
  """Bits/byte by scheme and length, a table for each protocol and control, for a terminal."""
  return '\n\n'.join(_text(section) for section in summary.sections(runs))


def _text(section: summary.Section) -> str:
  control = '' if section.control == 'none' else f' ({section.control})'
  trained = joined(map(str, section.train_lengths))
  lines = [
    f'{section.protocol}{control}: bits/byte by evaluation length in tokens; trained at {trained}'
  ]
  losses = tables.losses(section, 'bits_per_byte')
  rows = [['', *map(str, section.lengths)]]
  rows += [[head.text, *map(_text_cell, cells)] for head, *cells in losses.rows]
  lines += cli.aligned(rows)
  if section.several_seeds:
    lines.append('mean ± standard deviation over seeds')
  lines += [f'- {label}, from {n}: {reason}' for label, n, reason in tables.ends(section)]
  return '\n'.join(lines)


def _text_cell(cell: render.Cell) -> str:
  return '-' if cell.kind == 'undefined' else f'{cell.text} {cell.note}'.rstrip()
