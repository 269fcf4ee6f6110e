"""The page of the claims, HTML: the table of verdicts, then a section a claim."""

import html
from collections.abc import Sequence

from experiments import statistics, verdicts
from experiments.claims.terms import Claim
from experiments.ledger import Finding
from experiments.report import figures, tables
from experiments.report.claims import contradictions, drawings
from experiments.report.claims.rows import MARKS, Row, effect_text, lead, wanted_text
from experiments.report.page import bullets, document
from experiments.scales import Scale


def text(scale: Scale, rows: Sequence[Row], notes: Sequence[str]) -> str:
  """The whole page; needs no network, no script and no other file."""
  done = sum(row.finding.verdict != verdicts.MISSING for row in rows)
  title = f'{done} published claims on positional schemes, run at scale {scale.name}'
  body = [
    f'<header><h1>{html.escape(title)}</h1>\n<p class="lead">{lead(rows)}</p></header>',
    *(f'<p class="warning">{html.escape(note)}</p>' for note in notes),
    _table(rows),
    *(_section(row) for row in rows),
    contradictions.section(rows),
    '<footer class="note">Rows and verdicts are in <code>experiments/results</code>; written by '
    '<code>python -m experiments report</code>.</footer>',
  ]
  return document(title, body)


def _mark(verdict: str) -> str:
  return f'<span aria-hidden="true">{MARKS[verdict]}</span> {verdict}'


def _table(rows: Sequence[Row]) -> str:
  cells = []
  for row in rows:
    claim, o = row.claim, row.decides
    alone = [f'<small>alone: {row.alone}</small>'] if row.alone else []
    others = [f'<small>{v} hyper-parameters: {row.verdicts[v]}</small>' for v in claim.variants[1:]]
    effect = (
      f'{html.escape(effect_text(o))}<small>{html.escape(o.test.says)}; claimed '
      f'{html.escape(wanted_text(o.test))}</small>'
      if o
      else '–'
    )
    cells.append([
      f'<th scope="row"><a href="#{claim.id}">{claim.id}</a> {html.escape(claim.title)}</th>',
      f'<td>{_mark(row.verdict)}{"".join(alone + others)}</td>',
      f'<td>{effect}</td>',
      f'<td>{html.escape(row.published.value)}<small>{html.escape(row.published.what)}</small></td>',
      f'<td>{row.cost}</td>',
    ])  # fmt: skip
  head = ['Claim', 'Verdict', 'Effect that decides, 95 % interval', 'Published', 'Core minutes']
  caption = 'Claims and verdicts. The effect is that of the test which decides.'
  return tables.grid(caption, head, cells, 'claims')


def _section(row: Row) -> str:
  finding, claim = row.finding, row.claim
  parts = [
    f'<section id="{claim.id}"><h2>{claim.id}. {html.escape(claim.title)}</h2>',
    f'<p>{html.escape(claim.paper)}. {html.escape(claim.says)}</p>',
    '<p>' + '; '.join(
      f'{variant or "verdict"}: <strong>{_mark(verdict)}</strong>'
      for variant, verdict in row.verdicts.items()
    ) + '</p>',
    _figure(finding, 'lines', drawings.lines,
            'Means over seeds; bands reach from the lowest to the highest.'),
    _figure(finding, 'scales', drawings.scales,
            'Means over seeds of the loss at that many tokens, each line above its own lowest.'),
    _figure(finding, 'effects', drawings.effects,
            'Effects with 95 % intervals, a scale each; shaded: where the claim has them; dotted: '
            'zero.'),
    _tests(finding),
    _shares(finding),
    _published(claim),
    _list('Traps', claim.traps),
  ]  # fmt: skip
  if claim.note:
    parts.append(f'<p class="note">{html.escape(claim.note)}</p>')
  if finding.record.get('refused'):
    parts.append(
      _list('Refused: these runs differ in more than the claim', finding.record['refused'])
    )
  parts.append(_runs(row))
  return '\n'.join(part for part in [*parts, '</section>'] if part)


def _figure(finding: Finding, kind: str, draw, caption: str) -> str:
  drawings = []
  for size, narrow in (('wide', False), ('narrow', True)):
    figure = draw(finding, narrow)
    if figure is None:
      return ''
    name = f'{finding.claim.id}{kind}{size}'
    drawings.append(f'<div class="{size}">{figures.inline(figure, name)}</div>')
  said = html.escape(f'{finding.claim.id}, {kind}: the table below holds the numbers.')
  return (
    f'<figure>\n<div role="img" aria-label="{said}">\n{"".join(drawings)}</div>\n'
    f'<figcaption>{html.escape(caption)}</figcaption>\n</figure>'
  )


def _tests(finding: Finding) -> str:
  rows = []
  for o in finding.outcomes:
    named = f'{o.test.variant}: {o.test.says}' if o.test.variant else o.test.says
    if o.estimate is None:
      cells = [o.why, '–', wanted_text(o.test), '–', '–']
    else:
      spans = [f'[{a:+.3f}, {b:+.3f}]'.replace('-', '−') for a, b in
               (o.estimate.by_seed, o.estimate.bootstrap or o.estimate.by_seed)]  # fmt: skip
      more = f'; {o.seeds} seeds would decide' if o.seeds else ''
      cells = [o.verdict + more, effect_text(o), wanted_text(o.test), *spans]
    row = [f'<th scope="row">{html.escape(named)}</th>']
    rows.append(row + [f'<td>{html.escape(cell)}</td>' for cell in cells])
  head = ['Test', 'Decides', 'Effect', 'Claimed', 'By seeds alone', 'Bootstrap']
  seeds = len(finding.seeds)
  return tables.grid(f'Tests of {finding.claim.id}. {seeds} seeds.', head, rows, 'tests')


def _published(claim: Claim) -> str:
  rows = [
    [f'<th scope="row">{html.escape(p.what)}</th>']
    + [f'<td>{html.escape(text)}</td>' for text in (p.value, p.where, p.read)]
    for p in claim.published
  ]
  return tables.grid(f'Published for {claim.id}.', ['What', 'Value', 'Where', 'Read in'], rows)


def _list(title: str, lines: Sequence[str]) -> str:
  return f'<h3>{html.escape(title)}</h3>\n{bullets(lines)}'


def _shares(finding: Finding) -> str:
  """Exact answers of every model, over seeds, with Wilson's interval."""
  pooled: dict[tuple, list[int]] = {}
  for (model, _), own in finding.rows.items():
    for key, row in own.items():
      if 'hits' in row:
        total = pooled.setdefault((model, *key), [0, 0])
        total[0] += row['hits']
        total[1] += row['windows']
  if not pooled:
    return ''
  rows = []
  for (model, protocol, control, length), (hits, trials) in sorted(pooled.items()):
    low, high = statistics.wilson(hits, trials)
    cells = [protocol, control, str(length), f'{hits} of {trials}', f'{low:.3f} to {high:.3f}']
    name = html.escape(drawings.label(finding.claim, model))
    rows.append([f'<th scope="row">{name}</th>', *(f'<td>{html.escape(x)}</td>' for x in cells)])
  head = ['Model', 'Protocol', 'Control', 'Length', 'Exact', '95 %, Wilson']
  return tables.grid(f'Exact answers of {finding.claim.id}. All seeds together.', head, rows)


def _runs(row: Row) -> str:
  finding, record = row.finding, row.finding.record
  made = sorted({run['commit'][:10] for run in record.get('runs') or [] if run['commit']})
  lines = [
    f'Again: <code>python -m experiments run {finding.claim.id} --scale={record["scale"]}</code>',
    f'thresholds committed in <code>{(record.get("registered") or "")[:10]}</code>',
    f'runs made by <code>{", ".join(made)}</code>',
    f'{row.cost} core minutes, what it shares with other claims included',
  ]
  return f'<p class="note">{"; ".join(lines)}.</p>' if record.get('runs') else ''
