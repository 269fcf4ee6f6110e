"""The claims as Markdown, for reading in a repository."""

from collections.abc import Sequence

from experiments.report.claims import contradictions
from experiments.report.claims.rows import Row, effect_text, lead, verdict_text, wanted_text
from experiments.scales import Scale


def text(scale: Scale, rows: Sequence[Row], notes: Sequence[str]) -> str:
  """The table of verdicts, then the tests and traps of every claim."""
  lines = [f'# Claims at scale {scale.name}', '', lead(rows), '']
  lines += [f'> {note}' for note in notes]
  lines += ['| claim | verdict | effect that decides, 95 % interval | published | core minutes |']
  lines += ['|---|---|---|---|---|']
  for row in rows:
    effect = f'{row.decides.test.says}: {effect_text(row.decides)}' if row.decides else '–'
    lines.append(
      f'| [{row.claim.id}](#{row.claim.id.lower()}) {row.claim.title} | {verdict_text(row)} '
      f'| {effect} | {row.published.what}: {row.published.value} | {row.cost} |'
    )
  for row in rows:
    lines += _section(row, scale)
  return '\n'.join([*lines, '', *contradictions.markdown(rows), ''])


def _section(row: Row, scale: Scale) -> list[str]:
  claim = row.claim
  lines = ['', f'## {claim.id}', '', f'{claim.title} {claim.paper}.', '', claim.says, '']
  lines += ['| test | effect | claimed | decides |', '|---|---|---|---|']
  for o in row.finding.outcomes:
    named = f'{o.test.variant}: {o.test.says}' if o.test.variant else o.test.says
    effect = effect_text(o) if o.estimate else o.why
    more = f'; {o.seeds} seeds would decide' if o.seeds else ''
    lines.append(f'| {named} | {effect} | {wanted_text(o.test)} | {o.verdict}{more} |')
  lines += ['', *(f'- {trap}' for trap in claim.traps)]
  lines += [f'- {claim.note}'] if claim.note else []
  return [*lines, '', f'`python -m experiments run {claim.id} --scale={scale.name}`']
