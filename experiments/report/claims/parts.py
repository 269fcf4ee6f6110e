"""Tables and sentences of one claim, as text; page.py and markdown.py show them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from experiments.report.claims import drawings
from experiments.report.claims.rows import Row, effect_text, span_text, wanted_text
from experiments.studies import statistics
from experiments.studies.ledger import Finding


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells of text, the first of each row its name."""

  caption: str
  head: Sequence[str]
  rows: Sequence[Sequence[str]]


def tests(finding: Finding) -> Table:
  """Every test: its effect, where the claim has it, what the paper has, three intervals."""
  rows = []
  for o in finding.outcomes:
    named = f'{o.test.variant}: {o.test.says}' if o.test.variant else o.test.says
    named += ' (control)' if o.test.control else ''
    said = '; '.join(text for text in (o.verdict, o.power, o.why) if text)
    if o.estimate is None:
      rows.append([named, '–', wanted_text(o.test), o.test.paper or '–', said, '–', '–'])
      continue
    spans = o.estimate.by_seed, o.estimate.bootstrap
    shown = [span_text(span) if span else '–' for span in spans]
    cells = [effect_text(o), wanted_text(o.test), o.test.paper or '–', said, *shown]
    rows.append([named, *cells])
  head = ['Test', 'Effect', 'Claimed', 'The paper has', 'Decides', 'By seeds alone', 'Bootstrap']
  return Table(f'Tests of {finding.claim.id}. {len(finding.seeds)} seeds.', head, rows)


def _by_model(
  finding: Finding, wanted: Callable[[Mapping], bool]
) -> Iterator[tuple[list[str], list]]:
  """Name, measurement and length of what is wanted of every model, and its row of each seed."""
  for model in finding.claim.models:
    found: dict[tuple, list] = {}
    for seed in finding.seeds:
      for key, row in finding.rows.get((model, seed), {}).items():
        if wanted(row):
          found.setdefault(key, []).append(row)
    for protocol, control, length in sorted(found, key=lambda key: (key[0], key[2], key[1])):
      named = [drawings.label(finding.claim, model), f'{protocol} {control}', str(length)]
      yield named, found[protocol, control, length]


def shares(finding: Finding) -> Table | None:
  """Exact answers of every model, seed by seed with Wilson's interval; None without any."""
  rows = []
  for named, found in _by_model(finding, lambda row: 'hits' in row):
    counts = [(row['hits'], row['windows']) for row in found]
    texts = []
    for hits, trials in counts:
      low, high = statistics.wilson(hits, trials)
      texts.append(f'{hits / trials:.3f} ({low:.2f} to {high:.2f})')
    middle = median(hits / trials for hits, trials in counts)
    rows.append([*named, f'{middle:.3f}', _chance(found[0]), '; '.join(texts)])
  head = ['Model', 'Measured', 'Length', 'Median seed', 'Chance', 'Each seed (95 %, Wilson)']
  caption = f'Exact answers of {finding.claim.id}. Shares of the same prompts for all models.'
  return Table(caption, head, rows) if rows else None


def probes(finding: Finding) -> Table | None:
  """Errors of every probe, seed by seed; None without any."""
  rows = []
  for named, found in _by_model(finding, lambda row: 'chance' in row and 'hits' not in row):
    each = [f'{row["value"]:.2f}' for row in found]
    rows.append([*named, _chance(found[0]), '; '.join(each)])
  head = ['Model', 'Measured', 'Length', 'Chance', 'Each seed']
  caption = f'Mean errors of the probes of {finding.claim.id}, tokens.'
  return Table(caption, head, rows) if rows else None


def _chance(row: Mapping[str, Any]) -> str:
  """What a guess comes to that has learned nothing."""
  return f'{row["chance"]:.2g}' if 'chance' in row else '–'


def published(finding: Finding) -> Table:
  """The paper's figures, and how each reached this table."""
  rows = [[p.what, p.value, p.where or '–', p.read] for p in finding.claim.published]
  return Table(f'Published for {finding.claim.id}.', ['What', 'Value', 'Where', 'Read in'], rows)


def again(row: Row) -> str:
  """The command that makes a claim's rows."""
  seeds = f' --seeds={len(row.finding.seeds)}' if row.finding.seeds else ''
  return f'python -m experiments run {row.claim.id} --scale={row.finding.record["scale"]}{seeds}'


def made(row: Row) -> list[str]:
  """When the thresholds were committed, by which commits the runs were made, and at what cost."""
  record = row.finding.record
  if not record.get('runs'):
    return []
  commits = sorted({run['commit'][:10] for run in record['runs'] if run['commit']})
  asked = record['registered']
  said = f'What is asked was committed in {(asked["commit"] or "no commit")[:10]}'
  if asked['changed_after']:
    these = ', '.join(commit[:10] for commit in asked['changed_after'])
    said += f', after some of the runs were made (by {these})'
  else:
    said += ', before the runs'
  others = '; '.join(
    f'{verdict} in {commit[:10]}' for commit, verdict in asked.get('otherwise', {}).items()
  )
  return [
    f'{said}.',
    *([f'Asked otherwise before, it was: {others}.'] if others else []),
    f'Runs were made by {", ".join(commits)}.',
    f'{row.cost} core minutes, what it shares with other claims included.',
  ]
