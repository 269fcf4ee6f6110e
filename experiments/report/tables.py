"""Tables of the report, as HTML."""

import html
import math
import statistics
from collections.abc import Iterable, Sequence

from experiments.report import summary
from experiments.report.findings import interval, number
from experiments.report.summary import TOLERANCE, Scheme, Section
from experiments.studies.measured import Run
from pe_research.show import palette

UNITS = {'bits_per_byte': 'bits per byte', 'value': 'nats per token'}


def data(value: float, signed: bool = False) -> str:
  """A number to three decimals that carries all of them."""
  return f'<data value="{value!r}">{number(value, signed)}</data>'


def grid(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = '') -> str:
  """A table in a box of its own that scrolls.

  Args:
    caption: HTML; what stands before its first full stop names the box.
    head: cells of the first row: HTML.
    rows: whole cells, the first a row header: HTML.
    kind: class of the table.
  """
  name = html.escape(html.unescape(caption.partition('.')[0]))
  columns = ''.join(f'<th scope="col">{cell}</th>' for cell in head)
  lines = '\n'.join(f'<tr>{"".join(row)}</tr>' for row in rows)
  return (
    f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">\n'
    f'<table{f""" class="{kind}" """.rstrip() if kind else ""}>\n'
    f'<caption><span>{caption}</span></caption>\n'
    f'<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>'
  )


def row_head(scheme: Scheme) -> str:
  """The scheme's label with the colour of its line."""
  series = scheme.style % len(palette.PALETTE)
  label = html.escape(scheme.label)
  return f'<th scope="row" style="--key: var(--series-{series})">{label}</th>'


def _length_heads(section: Section) -> list[str]:
  trained = section.train_lengths
  heads = ['Scheme']
  for length in section.lengths:
    note = 'trained' if length in trained else f'×{length / trained[0]:.3g}'
    heads.append(f'{length}<small>{note if len(trained) == 1 or length in trained else ""}</small>')
  return heads


def losses(section: Section, unit: str) -> str:
  """Scheme by length; the lowest of a column in bold."""
  spread = ' Mean ± standard deviation over seeds.' if section.several_seeds else ''
  ended = any(section.end(scheme) for scheme in section.schemes)
  caption = (
    f'Validation loss in {UNITS[unit]} by evaluation length in tokens.{spread} The lowest of a '
    f'column is in bold.{" A dash: not defined at this length." if ended else ""}'
  )
  best = {length: section.best(length) for length in section.lengths}
  rows = [
    [row_head(s), *(_loss(section, s, n, unit, best[n] is s) for n in section.lengths)]
    for s in section.schemes
  ]
  return grid(caption, _length_heads(section), rows)


def _loss(section: Section, scheme: Scheme, length: int, unit: str, best: bool) -> str:
  values = section.values(scheme, length, unit)
  if not values:
    return _nothing(section, scheme, length)
  text = data(statistics.fmean(values))
  text = f'<strong>{text}</strong>' if best else text
  deviation = f' <small>± {number(statistics.stdev(values))}</small>' if len(values) > 1 else ''
  return f'<td>{text}{deviation}</td>'


def _nothing(section: Section, scheme: Scheme, length: int) -> str:
  reason = section.undefined(scheme, length)
  if reason is None:
    return '<td class="none">not run</td>'
  hidden = '<span class="hidden">not defined</span>'
  return (
    f'<td class="none" title="{html.escape(reason)}"><span aria-hidden="true">–</span>{hidden}</td>'
  )


def changes(section: Section) -> str:
  """Scheme by length, against the same runs at the training length."""
  references = {section.reference(scheme) for scheme in section.schemes}
  at = f'{references.pop()} tokens' if len(references) == 1 else 'the training length'
  caption = (
    f'Change in bits per byte from the same scheme’s loss at {at}. Shaded: more than {TOLERANCE} '
    'worse.'
  )
  rows = [
    [row_head(s), *(_change(section, s, n) for n in section.lengths)] for s in section.schemes
  ]
  return grid(caption, _length_heads(section), rows)


def _change(section: Section, scheme: Scheme, length: int) -> str:
  changed = section.changes(scheme, length)
  if changed and length == section.reference(scheme):
    return '<td class="none">0</td>'
  if not changed:
    return _nothing(section, scheme, length)
  mean = statistics.fmean(changed)
  deviation = f' <small>± {number(statistics.stdev(changed))}</small>' if len(changed) > 1 else ''
  worse = '' if mean <= TOLERANCE else ' class="worse"'
  return f'<td{worse}>{data(mean, signed=True)}{deviation}</td>'


def pairs(section: Section) -> str:
  """Differences from the lowest loss, at the training length and at the longest."""
  references = {section.reference(scheme) for scheme in section.schemes}
  lengths = sorted({*references, section.lengths[-1]})
  best = {length: section.best(length) for length in lengths}
  lengths = [length for length in lengths if best[length] is not None]
  documents = section.scored()['documents']
  caption = (
    'Bits per byte above the lowest scheme of a length, paired by document, with 95 % intervals '
    f'over {"seeds and " if section.several_seeds else ""}{len(documents)} documents.'
  )
  heads = ['Scheme']
  heads += [f'at {n} tokens<small>above {html.escape(best[n].label)}</small>' for n in lengths]
  rows = [[row_head(s), *(_pair(section, s, best[n], n) for n in lengths)] for s in section.schemes]
  return grid(caption, heads, rows)


def _pair(section: Section, scheme: Scheme, best: Scheme, length: int) -> str:
  if scheme is best:
    return '<td class="none">lowest</td>'
  if not section.values(scheme, length):
    return _nothing(section, scheme, length)
  pair = summary.paired(section, scheme, best, length)
  if pair is None:
    return '<td class="none">other targets</td>'
  if not math.isfinite(pair.difference):
    return f'<td>{data(pair.difference, signed=True)}</td>'
  return f'<td>{data(pair.difference, signed=True)} <small>({interval(pair)})</small></td>'


def reasons(section: Section) -> str:
  """Why schemes end, a line each; nothing if none does."""
  ends = [(scheme, section.end(scheme)) for scheme in section.schemes]
  lines = [
    f'<li>– {html.escape(scheme.label)}, from {end[0]} tokens: {html.escape(end[1])}</li>'
    for scheme, end in ends
    if end
  ]
  return f'<ul class="note plain">{"".join(lines)}</ul>' if lines else ''


def of_runs(schemes: Sequence[Scheme]) -> str:
  """One row a run."""
  runs = [(scheme, run) for scheme in schemes for run in scheme.runs]
  final = any('final_parameters' in run.record for _, run in runs)
  heads = ['Scheme', 'seed', 'parameters', 'positional', 'training FLOPs/token']
  heads += [*(['final parameters'] if final else []), 'batches', 'workdir']
  rows = []
  for scheme, run in runs:
    record = run.record
    numbers = ('seed', 'parameters', 'position_parameters', 'train_flops_per_token')
    cells = [f'<td>{record[name]:,}</td>' for name in numbers]
    if final:
      cells.append(f'<td>{short(record.get("final_parameters", ""))}</td>')
    cells += [f'<td>{short(record["batches"])}</td>']
    cells += [f'<td><code>{html.escape(run.workdir.name)}</code></td>']
    rows.append([row_head(scheme), *cells])
  caption = (
    'Runs. FLOPs are those of matrix products, forward and backward; digests are cut to 12 digits.'
  )
  return grid(caption, heads, rows)


def short(digest: str) -> str:
  """The first digits of a digest."""
  return f'<code title="{html.escape(digest)}">{html.escape(digest[:12])}</code>'


def conditions(runs: Sequence[Run]) -> str:
  """Every condition of the runs; where they were allowed to differ, all values."""
  rows = [_condition('fingerprint', {run.record['fingerprint'] for run in runs})]
  made = [run.record['provenance'] for run in runs]
  rows.append(_condition('commit', {str(p['commit']) for p in made}))
  rows.append(_condition('working tree', {_tree(p) for p in made}))
  for field in ('python', 'machine'):
    rows.append(_condition(field, {p[field] for p in made}))
  rows.append(_condition('devices', {str(run.record['devices']) for run in runs}))
  for seed in sorted({run.record['seed'] for run in runs}):
    same = [run.record for run in runs if run.record['seed'] == seed]
    initial = {record['initial_parameters'] for record in same}
    rows.append(_condition(f'initial parameters outside the scheme, seed {seed}', initial))
    rows.append(_condition(f'batches, seed {seed}', {record['batches'] for record in same}))
  for field in sorted({field for run in runs for field in run.record['conditions']}):
    absent = '(absent)'
    values = {str(run.record['conditions'].get(field, absent)) for run in runs}
    rows.append(_condition(field, values))
  return grid('Every condition.', ['condition', 'value'], rows, kind='conditions')


def _tree(provenance) -> str:
  return 'clean' if provenance['clean'] else 'had changes that are not in the commit'


def _condition(name: str, values: set[str]) -> list[str]:
  text = '<br>'.join(f'<code>{html.escape(value)}</code>' for value in sorted(values))
  differs = f'<small>{len(values)} values:</small> ' if len(values) > 1 else ''
  return [f'<th scope="row">{html.escape(name)}</th>', f'<td>{differs}{text}</td>']
