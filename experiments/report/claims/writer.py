"""Writes the claims with their verdicts as a page, as Markdown and as a picture."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from experiments.report import render
from experiments.report.claims import contradictions, drawings, picture, tables, texts
from experiments.report.claims.rows import SYMBOLS, ClaimRow, judge, load
from experiments.studies import verdicts
from experiments.studies.ledger import Finding
from experiments.studies.scales import Scale
from pe_research.show import drawing
from pe_research.storage import files


def write(
  scale: Scale, folder: pathlib.Path, kept: pathlib.Path | None = None
) -> list[pathlib.Path]:
  """Writes RESULTS.md, claims.png and claims.html; the same rows give the same bytes.

  Args:
    scale: of the runs.
    folder: of the page.
    kept: folder of the other two; None: beside the page.
  """
  findings, notes = load(scale)
  rows = judge(findings)
  values = _values(scale, rows, notes)
  contents = {
    (kept or folder) / 'RESULTS.md': render.text('results.md', **values).encode(),
    folder / 'claims.html': render.text('claims.html', explorer='', **values).encode(),
    (kept or folder) / 'claims.png': drawing.png(picture.table(rows), picture.text(rows)),
  }
  for path, content in contents.items():
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, content)
  return [*contents]


def html(scale: Scale, explorer: str = '') -> str:
  """The page alone; `explorer` is the link to the page of the schemes, '' without one."""
  findings, notes = load(scale)
  return render.text('claims.html', explorer=explorer, **_values(scale, judge(findings), notes))


def _values(scale: Scale, rows: Sequence[ClaimRow], notes: Sequence[str]) -> dict[str, Any]:
  """What the page and the Markdown show."""
  return {
    'title': f'{sum(row.finding.verdict != verdicts.MISSING for row in rows)} published claims on '
    f'positional schemes, run at scale {scale.name}',
    'scale': scale.name,
    'lead': texts.lead(rows, scale),
    'notes': notes,
    'symbols': SYMBOLS,
    'sections': [_section(row, scale) for row in rows],
    'contradictions': contradictions.measured(rows, scale),
  }


def _section(row: ClaimRow, scale: Scale) -> dict[str, Any]:
  """What is shown of one claim."""
  finding = row.finding
  optional = tables.shares(finding), tables.probes(finding)
  return {
    'row': row,
    'claim': row.claim,
    'figures': _figures(finding),
    'tables': [tables.tests(finding), *filter(None, optional), tables.published(finding)],
    'protocol': texts.protocol(finding, scale),
    'models': tables.models(finding, scale),
    'refused': finding.record.get('refused') or [],
    'origin': texts.origin(row),
    'command': texts.command(row),
  }


def _figures(finding: Finding) -> dict[str, render.Figure]:
  """By kind, those for which there is something to draw."""
  kinds = {'lines': drawings.lines, 'scales': drawings.scales, 'effects': drawings.effects}
  figures = {
    kind: render.figure(functools.partial(draw, finding), f'{finding.claim.id}{kind}{{}}')
    for kind, draw in kinds.items()
  }
  return {kind: figure for kind, figure in figures.items() if figure}
