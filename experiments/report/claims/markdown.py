"""The claims as Markdown, for reading in a repository: the page without its figures."""

from collections.abc import Sequence

from experiments.report.claims import contradictions, parts, protocol
from experiments.report.claims.rows import Row, decided_text, effect_text, lead, verdict_text
from experiments.studies.scales import Scale


def text(scale: Scale, rows: Sequence[Row], notes: Sequence[str]) -> str:
  """The table of verdicts, then all that is known of every claim."""
  lines = [f'# Claims at scale {scale.name}', '', lead(rows, scale), '']
  page = 'Figures of every claim are on a page that `make docs` and `python -m experiments report` '
  lines += [f'{page}write.', '']
  lines += [line for note in notes for line in (f'> {note}', '')]
  verdicts = [
    [
      f'[{row.claim.id}](#{row.claim.id.lower()}) {row.claim.title}',
      verdict_text(row),
      f'{decided_text(row.decides)}: {effect_text(row.decides)}' if row.decides else '–',
      row.published,
      row.cost,
    ]
    for row in rows
  ]
  head = ['claim', 'verdict', 'effect that decides, 95 % interval', 'published', 'core minutes']
  lines += _table(head, verdicts)
  for row in rows:
    lines += _section(row, scale)
  return '\n'.join([*lines, '', *contradictions.markdown(rows, scale), ''])


def _section(row: Row, scale: Scale) -> list[str]:
  claim, finding = row.claim, row.finding
  lines = ['', f'## {claim.id}', '', f'{claim.title} {claim.paper}.', '', claim.says, '']
  lines += [f'Verdict: {verdict_text(row)}.']
  shown = parts.tests, parts.shares, parts.probes, parts.published
  for table in filter(None, (made(finding) for made in shown)):
    lines += ['', table.caption, '', *_table(table.head, table.rows)]
  lines += ['', protocol.sentence(finding, scale), '']
  models = protocol.models(finding, scale)
  lines += [*_table(models.head, models.rows), '', *(f'- {trap}' for trap in claim.traps)]
  lines += [f'- {claim.note}'] if claim.note else []
  lines += [f'- Refused: {line}' for line in finding.record.get('refused') or []]
  return [*lines, '', ' '.join([*parts.made(row), f'Again: `{parts.again(row)}`'])]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  line = lambda cells: f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |'
  return [line(head), f'|{"---|" * len(head)}', *map(line, rows)]
