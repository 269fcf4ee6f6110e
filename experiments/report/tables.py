"""Tables of the sweep report, as data."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.report import summary
from experiments.report.findings import interval
from experiments.report.numbers import deviation, number
from experiments.report.render import Cell, Table
from experiments.report.summary import TOLERANCE, Scheme, Section
from experiments.studies.measured import Run
from pe_research.show import palette

CACHE_FILE = 'cache.json'  # of a workdir; written by experiments.cache
UNITS = {'bits_per_byte': 'bits per byte', 'value': 'nats per token'}


def row_head(scheme: Scheme) -> Cell:
  """The scheme's label with the colour of its line."""
  return Cell(scheme.label, series=scheme.style % len(palette.PALETTE))


def _length_heads(section: Section) -> list[Cell | str]:
  trained = section.train_lengths
  heads: list[Cell | str] = ['Scheme']
  for length in section.lengths:
    note = 'trained' if length in trained else f'×{length / trained[0]:.3g}'
    unclear = len(trained) > 1 and length not in trained  # a multiple of which?
    heads.append(Cell(str(length), note='' if unclear else note))
  return heads


def losses(section: Section, unit: str) -> Table:
  """Scheme by length; the lowest of a column in bold."""
  spread = ' Mean ± standard deviation over seeds.' if section.several_seeds else ''
  dash = ' A dash: not defined at this length.' if any(map(section.end, section.schemes)) else ''
  caption = (
    f'Validation loss in {UNITS[unit]} by evaluation length in tokens.{spread} The lowest of a '
    f'column is in bold.{dash}'
  )
  best = {length: section.best(length) for length in section.lengths}
  rows = [
    [row_head(s), *(_loss(section, s, n, unit, best[n] is s) for n in section.lengths)]
    for s in section.schemes
  ]
  return Table(caption, _length_heads(section), rows)


def _loss(section: Section, scheme: Scheme, length: int, unit: str, best: bool) -> Cell:
  values = section.values(scheme, length, unit)
  return _mean(values, strong=best) if values else _no_value(section, scheme, length)


def _mean(values: list[float], signed: bool = False, **looks: Any) -> Cell:
  """Mean and standard deviation over seeds."""
  mean = statistics.fmean(values)
  return Cell(number(mean, signed), value=mean, note=deviation(values), **looks)


def _no_value(section: Section, scheme: Scheme, length: int) -> Cell:
  reason = section.undefined(scheme, length)
  return (
    Cell('not run', kind='none') if reason is None else Cell('–', kind='undefined', title=reason)
  )


def changes(section: Section) -> Table:
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
  return Table(caption, _length_heads(section), rows)


def _change(section: Section, scheme: Scheme, length: int) -> Cell:
  changed = section.changes(scheme, length)
  if not changed:
    return _no_value(section, scheme, length)
  if length == section.reference(scheme):
    return Cell('0', kind='none')
  worse = not statistics.fmean(changed) <= TOLERANCE  # so is a mean that is not finite
  return _mean(changed, signed=True, kind='worse' if worse else '')


def pairs(section: Section) -> Table:
  """Differences from the lowest loss, at the training length and at the longest."""
  references = {section.reference(scheme) for scheme in section.schemes}
  best = {n: section.best(n) for n in sorted({*references, section.lengths[-1]})}
  best = {length: scheme for length, scheme in best.items() if scheme is not None}
  documents = section.scored[0]['documents']
  caption = (
    'Bits per byte above the lowest scheme of a length, paired by document, with 95 % intervals '
    f'over {"seeds and " if section.several_seeds else ""}{len(documents)} documents.'
  )
  heads = [Cell(f'at {n} tokens', note=f'above {scheme.label}') for n, scheme in best.items()]
  rows = [
    [row_head(s), *(_pair(section, s, lowest, n) for n, lowest in best.items())]
    for s in section.schemes
  ]
  return Table(caption, ['Scheme', *heads], rows)


def _pair(section: Section, scheme: Scheme, best: Scheme, length: int) -> Cell:
  if scheme is best:
    return Cell('lowest', kind='none')
  if not section.values(scheme, length):
    return _no_value(section, scheme, length)
  pair = summary.paired(section, scheme, best, length)
  if pair is None:
    return Cell('other targets', kind='none')
  note = f'({interval(pair)})' if math.isfinite(pair.difference) else ''
  return Cell(number(pair.difference, signed=True), value=pair.difference, note=note)


def ends(section: Section) -> list[tuple[str, int, str]]:
  """Label, first undefined length and reason of every scheme that ends."""
  reasons = [(scheme.label, section.end(scheme)) for scheme in section.schemes]
  return [(label, *end) for label, end in reasons if end]


def cache(measured: Mapping[str, Any] | None) -> Table | None:
  """Bytes and speed of a cached token, from the file of experiments.cache; None without it."""
  if measured is None:
    return None
  settings, rows = measured['settings'], measured['rows']
  contexts = list(rows[0]['speed'])
  about = (
    f'{settings["layers"]} layers, width {settings["width"]}, {settings["heads"]} heads, batch '
    f'{settings["batch"]}, {settings["dtype"]}, {settings["position"]}, {settings["device"]}'
  )
  head = [Cell('bytes/token', note='formula'), Cell('bytes/token', note='allocated')]
  head += [Cell(f'{int(n):,}', note='tokens/s after') for n in contexts]
  cells = []
  for row in rows:
    values = row['formula'], row['allocated'], *row['speed'].values()
    cells.append([row['name'], *(Cell(f'{v:,.0f}', value=v) for v in values)])
  return Table(
    f'What a cached token takes and how fast decoding is. {about}.', ['Projection', *head], cells
  )


def conditions(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
  """Every condition of the runs with its values; several where they were allowed to differ."""
  records = [run.record for run in runs]

  def same(name: str, values) -> tuple[str, list[str]]:
    return name, sorted(set(map(str, values)))

  yield same('fingerprint', (record['fingerprint'] for record in records))
  origins = [record['provenance'] for record in records]
  yield same('commit', (origin['commit'] for origin in origins))
  tree = {True: 'clean', False: 'had changes that are not in the commit'}
  yield same('working tree', (tree[bool(origin['clean'])] for origin in origins))
  for field in ('python', 'machine'):
    yield same(field, (origin[field] for origin in origins))
  yield same('devices', (record['devices'] for record in records))
  for seed in sorted({record['seed'] for record in records}):
    same_seed = [record for record in records if record['seed'] == seed]
    initial = (record['initial_parameters'] for record in same_seed)
    yield same(f'initial parameters outside the scheme, seed {seed}', initial)
    yield same(f'batches, seed {seed}', (record['batches'] for record in same_seed))
  for field in sorted({field for record in records for field in record['conditions']}):
    yield same(field, (record['conditions'].get(field, '(absent)') for record in records))
