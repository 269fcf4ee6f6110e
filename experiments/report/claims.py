"""The claims with their verdicts, as one page and as Markdown, from what is kept of them."""

import html
import pathlib
from collections.abc import Sequence

from experiments import claims, ledger, statistics, verdicts
from experiments.claims.terms import Claim
from experiments.ledger import Finding
from experiments.plan import Planner
from experiments.report import claim_figures, contradictions, figures, tables
from experiments.report.page import bullets, document
from experiments.scales import Scale
from pe_research import records

FIRST = ('C01', 'C10', 'C11', 'C18', 'C13')  # ALiBi, RoFormer and YaRN, on top of the table
MARKS = {verdicts.REPRODUCED: '●', verdicts.REFUTED: '✕', verdicts.INCONCLUSIVE: '◆',
         verdicts.MISSING: '–'}  # fmt: skip


def load(scale: Scale) -> tuple[list[Finding], list[str]]:
  """The findings of all claims from their kept rows, and what was wrong with the files."""
  found, notes = [], []
  for claim in ordered():
    rows, note = ledger.read_rows(ledger.path(scale.name, claim, 'rows.jsonl'))
    notes += [note] if note else []
    kept = records.read_json(ledger.path(scale.name, claim, 'verdict.json')) or {}
    planner = Planner(scale, pathlib.Path('results/claims') / scale.name)
    fields = ('scale', 'registered', 'runs', 'core_minutes', 'refused')
    found.append(ledger.settle(claim, planner, rows, {k: kept.get(k) for k in fields}))
  return found, notes


def ordered() -> list[Claim]:
  """All claims, those of FIRST before the others."""
  own = claims.CLAIMS
  return [own[i] for i in FIRST if i in own] + [c for i, c in own.items() if i not in FIRST]


def corrected(findings: Sequence[Finding]) -> dict[tuple[str, str], tuple[str, float]]:
  """(claim, variant) -> verdict and p after Holm's correction over all that were run."""
  keys = [(f.claim.id, variant) for f in findings for variant in f.claim.variants]
  plain = [f.verdicts[variant] for f in findings for variant in f.claim.variants]
  return dict(zip(keys, verdicts.corrected(plain), strict=True))


def strongest(finding: Finding) -> verdicts.Outcome | None:
  """The test that decides: of a refuted claim the one that fails most, else the one least sure."""
  own = [o for o in finding.outcomes if o.test.variant in ('', finding.claim.variants[0])]
  own = [o for o in own if o.estimate is not None]
  if not own:
    return None
  failed = [o for o in own if o.verdict == verdicts.REFUTED]
  return min(failed, key=lambda o: o.p_fails) if failed else max(own, key=lambda o: o.p_holds)


def effect_text(outcome: verdicts.Outcome) -> str:
  """'+0.512 [+0.498, +0.526] nats/token'."""
  low, high = outcome.estimate.interval
  text = f'{outcome.estimate.value:+.3f} [{low:+.3f}, {high:+.3f}] {outcome.test.unit}'
  return text.replace('-', '−')


def wanted_text(test) -> str:
  """'above 0.5' and the like."""
  if test.above is not None and test.below is not None:
    return f'{test.above:g} to {test.below:g}'
  return f'above {test.above:g}' if test.above is not None else f'below {test.below:g}'


def page(scale: Scale, findings: Sequence[Finding], notes: Sequence[str]) -> str:
  """The whole page; needs no network, no script and no other file."""
  held = corrected(findings)
  done = sum(f.verdict != verdicts.MISSING for f in findings)
  title = f'{done} published claims on positional schemes, run at scale {scale.name}'
  body = [
    f'<header><h1>{html.escape(title)}</h1>\n<p class="lead">{_lead(findings, held)}</p></header>',
    *(f'<p class="warning">{html.escape(note)}</p>' for note in notes),
    _table(findings, held),
    *(_section(f, held) for f in findings),
    contradictions.section(findings),
    '<footer class="note">Rows and verdicts are in <code>experiments/results</code>; written by '
    '<code>python -m experiments report</code>.</footer>',
  ]
  return document(title, body)


def _lead(findings, held) -> str:
  first = [held[f.claim.id, f.claim.variants[0]][0] for f in findings]
  counts = ', '.join(f'{first.count(v)} {v}' for v in MARKS if v in first)
  return (
    f'{counts}. A claim holds where the 95 % interval of every effect, over seeds and documents, '
    'lies where the claim has it; thresholds were committed before the runs. Verdicts are those '
    'that stand after Holm’s correction over all claims.'
  )


def _mark(verdict: str) -> str:
  return f'<span aria-hidden="true">{MARKS[verdict]}</span> {verdict}'


def _table(findings, held) -> str:
  rows = []
  for f in findings:
    outcome = strongest(f)
    others = [
      f'<small>{v} hyper-parameters: {held[f.claim.id, v][0]}</small>' for v in f.claim.variants[1:]
    ]
    verdict = _mark(held[f.claim.id, f.claim.variants[0]][0]) + ''.join(others)
    effect = (
      f'{html.escape(effect_text(outcome))}<small>{html.escape(outcome.test.says)}; claimed '
      f'{html.escape(wanted_text(outcome.test))}</small>'
      if outcome
      else '–'
    )
    published = f.claim.published[0]
    cost = f.record.get('core_minutes')
    rows.append([
      f'<th scope="row"><a href="#{f.claim.id}">{f.claim.id}</a> {html.escape(f.claim.title)}</th>',
      f'<td>{verdict}</td>',
      f'<td>{effect}</td>',
      f'<td>{html.escape(published.value)}<small>{html.escape(published.what)}</small></td>',
      f'<td>{cost if cost is not None else "–"}</td>',
    ])  # fmt: skip
  head = ['Claim', 'Verdict', 'Effect that decides, 95 % interval', 'Published', 'Core minutes']
  caption = 'Claims and verdicts. The effect is that of the test which decides.'
  return tables.grid(caption, head, rows, 'claims')


def _section(finding: Finding, held) -> str:
  claim = finding.claim
  parts = [
    f'<section id="{claim.id}"><h2>{claim.id}. {html.escape(claim.title)}</h2>',
    f'<p>{html.escape(claim.paper)}. {html.escape(claim.says)}</p>',
    '<p>' + '; '.join(
      f'{variant or "verdict"}: <strong>{_mark(held[claim.id, variant][0])}</strong>'
      for variant in claim.variants
    ) + '</p>',
  ]  # fmt: skip
  for kind, draw, caption in (
    ('lines', claim_figures.lines, 'Means over seeds; bands reach from the lowest to the highest.'),
    ('effects', claim_figures.effects, 'Effects with 95 % intervals, a scale each; shaded: where '
     'the claim has them; dotted: zero.'),
  ):  # fmt: skip
    parts.append(_figure(finding, kind, draw, caption))
  parts += [_tests(finding), _shares(finding), _published(claim)]
  parts += [_list('Traps', claim.traps)]
  if claim.note:
    parts.append(f'<p class="note">{html.escape(claim.note)}</p>')
  if finding.record.get('refused'):
    parts.append(
      _list('Refused: these runs differ in more than the claim', finding.record['refused'])
    )
  parts.append(_runs(finding))
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
      cells = ['–', wanted_text(o.test), '–', '–', o.why]
    else:
      spans = [f'[{a:+.3f}, {b:+.3f}]'.replace('-', '−') for a, b in
               (o.estimate.by_seed, o.estimate.bootstrap or o.estimate.by_seed)]  # fmt: skip
      more = f'; {o.seeds} seeds would decide' if o.seeds else ''
      cells = [effect_text(o), wanted_text(o.test), *spans, o.verdict + more]
    row = [f'<th scope="row">{html.escape(named)}</th>']
    rows.append(row + [f'<td>{html.escape(cell)}</td>' for cell in cells])
  head = ['Test', 'Effect', 'Claimed', 'By seeds alone', 'Bootstrap', 'Decides']
  seeds = len(finding.seeds)
  return tables.grid(f'Tests of {finding.claim.id}. {seeds} seeds.', head, rows)


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
    name = html.escape(claim_figures.label(finding.claim, model))
    rows.append([f'<th scope="row">{name}</th>', *(f'<td>{html.escape(x)}</td>' for x in cells)])
  head = ['Model', 'Protocol', 'Control', 'Length', 'Exact', '95 %, Wilson']
  return tables.grid(f'Exact answers of {finding.claim.id}. All seeds together.', head, rows)


def _runs(finding: Finding) -> str:
  record = finding.record
  made = sorted({run['commit'][:10] for run in record.get('runs') or [] if run['commit']})
  lines = [
    f'Again: <code>python -m experiments run {finding.claim.id} --scale={record["scale"]}</code>',
    f'thresholds committed in <code>{(record.get("registered") or "")[:10]}</code>',
    f'runs made by <code>{", ".join(made)}</code>',
    f'{record.get("core_minutes")} core minutes, what it shares with other claims included',
  ]
  return f'<p class="note">{"; ".join(lines)}.</p>' if record.get('runs') else ''


def markdown(scale: Scale, findings: Sequence[Finding], notes: Sequence[str]) -> str:
  """The same, for reading in a repository."""
  held = corrected(findings)
  lines = [f'# Claims at scale {scale.name}', '', _lead(findings, held), '']
  lines += [f'> {note}' for note in notes]
  lines += ['| claim | verdict | effect that decides, 95 % interval | published | core minutes |']
  lines += ['|---|---|---|---|---|']
  for f in findings:
    outcome, published = strongest(f), f.claim.published[0]
    verdict = '; '.join((f'{v}: ' if v else '') + held[f.claim.id, v][0] for v in f.claim.variants)
    effect = f'{outcome.test.says}: {effect_text(outcome)}' if outcome else '–'
    lines.append(
      f'| [{f.claim.id}](#{f.claim.id.lower()}) {f.claim.title} | {verdict} | {effect} | '
      f'{published.what}: {published.value} | {f.record.get("core_minutes")} |'
    )
  for f in findings:
    lines += ['', f'## {f.claim.id}', '', f'{f.claim.title} {f.claim.paper}.', '', f.claim.says, '']
    lines += ['| test | effect | claimed | decides |', '|---|---|---|---|']
    for o in f.outcomes:
      named = f'{o.test.variant}: {o.test.says}' if o.test.variant else o.test.says
      effect = effect_text(o) if o.estimate else o.why
      lines.append(f'| {named} | {effect} | {wanted_text(o.test)} | {o.verdict} |')
    lines += ['', *(f'- {trap}' for trap in f.claim.traps)]
    lines += ['', f'`python -m experiments run {f.claim.id} --scale={scale.name}`']
  return '\n'.join([*lines, '', *contradictions.markdown(findings), ''])


def write(scale: Scale, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes RESULTS.md and claims.html into `folder`; the same rows, the same bytes."""
  findings, notes = load(scale)
  contents = {
    'RESULTS.md': markdown(scale, findings, notes),
    'claims.html': page(scale, findings, notes),
  }
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in contents.items():
    records.write_bytes(folder / name, text.encode())
  return [folder / name for name in contents]
