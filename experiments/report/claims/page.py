"""The page of the claims, HTML: the table of verdicts, then a section a claim."""

import html
from collections.abc import Sequence

from experiments.report import tables
from experiments.report.claims import contradictions, drawings, parts, protocol
from experiments.report.claims.rows import MARKS, Row, decided_text, effect_text, lead, wanted_text
from experiments.report.page import bullets, document
from experiments.studies import verdicts
from experiments.studies.ledger import Finding
from experiments.studies.scales import Scale
from pe_research.show import drawing


def text(scale: Scale, rows: Sequence[Row], notes: Sequence[str], explorer: str = '') -> str:
  """The whole page; needs no network, no script and no other file.

  Args:
    scale: of the runs.
    rows: of the table, in its order.
    notes: what the reader has to know first.
    explorer: a link to the page of the schemes; '' where there is none.
  """
  done = sum(row.finding.verdict != verdicts.MISSING for row in rows)
  title = f'{done} published claims on positional schemes, run at scale {scale.name}'
  body = [
    f'<header><h1>{html.escape(title)}</h1>\n<p class="lead">{html.escape(lead(rows, scale))}</p>',
    *([f'<p><a href="{explorer}">See what the schemes do</a></p>'] if explorer else []),
    '</header>',
    *(f'<p class="warning">{html.escape(note)}</p>' for note in notes),
    _table(rows),
    *(_section(row, scale) for row in rows),
    contradictions.section(rows, scale),
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
    first, *rest = claim.variants
    asides = [f'<small>{row.aside(first)}</small>'] if row.aside(first) else []
    for v in rest:
      aside = f' ({row.aside(v)})' if row.aside(v) else ''
      asides.append(f'<small>{v} hyper-parameters: {row.verdicts[v]}{aside}</small>')
    effect = (
      f'{html.escape(effect_text(o))}<small>{html.escape(decided_text(o))}; claimed '
      f'{html.escape(wanted_text(o.test))}</small>'
      if o
      else '–'
    )
    cells.append([
      f'<th scope="row"><a href="#{claim.id}">{claim.id}</a> {html.escape(claim.title)}</th>',
      f'<td>{_mark(row.verdict)}{"".join(asides)}</td>',
      f'<td>{effect}</td>',
      f'<td>{html.escape(row.published)}</td>',
      f'<td>{row.cost}</td>',
    ])  # fmt: skip
  head = ['Claim', 'Verdict', 'Effect that decides, 95 % interval', 'Published', 'Core minutes']
  caption = 'Claims and verdicts. The effect is that of the test which decides.'
  return tables.grid(caption, head, cells, 'claims')


def _section(row: Row, scale: Scale) -> str:
  finding, claim = row.finding, row.claim
  body = [
    f'<section id="{claim.id}"><h2>{claim.id}. {html.escape(claim.title)}</h2>',
    f'<p>{html.escape(claim.paper)}. {html.escape(claim.says)}</p>',
    '<p>' + '; '.join(
      f'{variant or "verdict"}: <strong>{_mark(verdict)}</strong>'
      + (f' ({row.aside(variant)})' if row.aside(variant) else '')
      for variant, verdict in row.verdicts.items()
    ) + '</p>',
    _figure(finding, 'lines', drawings.lines,
            'Means over seeds; bands reach from the lowest to the highest.'),
    _figure(finding, 'scales', drawings.scales,
            'Means over seeds of the loss at that many tokens, each line above its own lowest.'),
    _figure(finding, 'effects', drawings.effects,
            'Effects with 95 % intervals, a scale each; shaded: where the claim has them; dotted: '
            'zero.'),
    _grid(parts.tests(finding), 'tests'),
    _grid(parts.shares(finding)),
    _grid(parts.probes(finding)),
    _grid(parts.published(finding)),
    f'<h3>Protocol</h3>\n<p>{html.escape(protocol.sentence(finding, scale))}</p>',
    _grid(protocol.models(finding, scale)),
    _list('Traps', claim.traps),
  ]  # fmt: skip
  if claim.note:
    body.append(f'<p class="note">{html.escape(claim.note)}</p>')
  if finding.record.get('refused'):
    body.append(
      _list('Refused: these runs differ in more than the claim', finding.record['refused'])
    )
  said = ' '.join(html.escape(text) for text in parts.made(row))
  if said:
    body.append(f'<p class="note">{said} Again: <code>{html.escape(parts.again(row))}</code></p>')
  return '\n'.join(part for part in [*body, '</section>'] if part)


def _grid(table: parts.Table | None, kind: str = '') -> str:
  if table is None:
    return ''
  rows = [
    [f'<th scope="row">{html.escape(first)}</th>', *(f'<td>{html.escape(x)}</td>' for x in cells)]
    for first, *cells in table.rows
  ]
  return tables.grid(html.escape(table.caption), table.head, rows, kind)


def _figure(finding: Finding, kind: str, draw, caption: str) -> str:
  drawings = []
  for size, narrow in (('wide', False), ('narrow', True)):
    figure = draw(finding, narrow)
    if figure is None:
      return ''
    name = f'{finding.claim.id}{kind}{size}'
    drawings.append(f'<div class="{size}">{drawing.inline(figure, name)}</div>')
  told = 'the table below holds the numbers.' if kind == 'effects' else caption
  said = html.escape(f'{finding.claim.id}, {kind}: {told}')
  return (
    f'<figure>\n<div role="img" aria-label="{said}">\n{"".join(drawings)}</div>\n'
    f'<figcaption>{html.escape(caption)}</figcaption>\n</figure>'
  )


def _list(title: str, lines: Sequence[str]) -> str:
  return f'<h3>{html.escape(title)}</h3>\n{bullets(lines)}'
