"""What is kept of a claim: its rows, small enough to commit, and the verdict that they give."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.studies import comparability, measured, plan, quantities, statistics, verdicts
from experiments.studies.measured import Run
from experiments.studies.plan import Node, Planner
from experiments.studies.terms import Claim, Expect, Quantity
from pe_research.settings import protocols
from pe_research.storage import files

RESULTS = pathlib.Path(__file__).parents[1] / 'results'
SHOWN = 'program', 'own_program', 'inputs', 'arithmetic', 'environment'  # how a row was made
KEPT = ('protocol', 'control', 'eval_length', 'value', 'unit', 'tokens', 'windows', 'documents',
        'targets', 'by_position', 'undefined', 'hits', 'chance', 'bits_per_byte',
        *SHOWN)  # fmt: skip
RECORD = ('scale', 'registered', 'runs', 'costs', 'refused')  # kept beside what is found
WHERE_KNOWN = ('conditions', 'notes')  # kept, too, where there are any
WHOLE = {'model', 'seed', 'key', 'protocol', 'control', 'eval_length', 'value'}  # in every row


@dataclasses.dataclass(frozen=True)
class Finding:
  """A claim's rows and outcomes at one scale.

  Attributes:
    claim: the claim.
    rows: (model, seed) -> its rows.
    outcomes: of its tests, in their order.
    verdicts: variant -> verdict over its tests and its p value, before any correction for the
      number of claims.
    record: what else is kept: runs, cost, commits.
  """

  claim: Claim
  rows: Mapping[tuple[str, int], quantities.Rows]
  outcomes: tuple[verdicts.Outcome, ...]
  verdicts: Mapping[str, tuple[str, float]]
  record: Mapping[str, Any]

  @property
  def verdict(self) -> str:
    """That of the first variant, the published one."""
    return self.verdicts[self.claim.variants[0]][0]

  @property
  def seeds(self) -> list[int]:
    """In order."""
    return sorted({seed for _, seed in self.rows})


def kept_seeds(scale: str, claim: Claim) -> int:
  """How many seeds the kept verdict of a claim is of; 0 where there is none."""
  kept = files.read_json(path(scale, claim, 'verdict.json')) or {'runs': []}
  return len({run['seed'] for run in kept['runs']})


def path(scale: str, claim: Claim, kind: str) -> pathlib.Path:
  """Of a claim's 'rows.jsonl' or 'verdict.json'."""
  return RESULTS / scale / f'{claim.id}.{kind}'


def collect(
  claim: Claim, planner: Planner, nodes: Mapping[str, Sequence[Node]]
) -> list[dict[str, Any]]:
  """The rows of a claim's runs that its quantities read, each with its model and seed.

  Rows of the figure alone come without the sums of each document, which are most of a row.
  """
  found = []
  for model, own in nodes.items():
    for node in own:
      whole = _texts(by_document(claim), planner, model, node)
      wanted = _texts(plan.quantities(claim), planner, model, node)
      latest = {measured.name(row): row for row in _final(node)}
      for text in sorted(wanted & latest.keys()):
        row = {k: latest[text][k] for k in KEPT if k in latest[text]}
        if text not in whole:
          row.pop('documents', None)
        if 'documents' in row:
          row['documents'] = {d: [round(s, 5), n] for d, (s, n) in row['documents'].items()}
        if 'by_position' in row:
          row['by_position'] = [round(loss, 6) for loss in row['by_position']]
        found.append({'model': model, 'seed': node.config['seed'], 'key': node.key} | row)
  return found


def _final(node: Node) -> list[dict[str, Any]]:
  """The rows of a run's last weights, measured as its config has it."""
  rows = files.read_rows(node.workdir / 'results.jsonl')
  last = max((row['step'] for row in rows), default=0)
  how = protocols.settings(node.config['eval'])
  return [row for row in rows if row['step'] == last and row['settings'] == how]


def by_document(claim: Claim) -> list[Quantity]:
  """What the tests of a claim read document by document."""
  terms = [quantity for test in claim.tests for _, quantity in test.effect.terms]
  return [quantity for quantity in terms if quantity.of in quantities.DOCUMENTS]


def _texts(of: Sequence[Quantity], planner: Planner, model: str, node: Node) -> set[str]:
  """The measurements of a node that some of these quantities are made of."""
  own = [quantity for quantity in of if quantity.model == model]
  return {text for quantity in own for text, _ in planner.measurements(quantity, node)}


def differences(nodes: Mapping[str, Sequence[Node]]) -> tuple[list[str], list[str]]:
  """In what runs of a claim differ and must not, by the rule of compare.py; and what to know of it.

  Models of a claim have other configs by design, so what these explain is left out. Rows of another
  run are named, too.
  """
  runs = []
  for node in {node.key: node for own in nodes.values() for node in own}.values():
    record = files.read_json(node.workdir / 'run.json')
    if record is not None and 'batches' in record:
      rows = files.read_rows(node.workdir / 'results.jsonl')
      runs.append(Run(node.workdir, node.config, record, rows))
  found = [d for d in comparability.differences(runs) if not d.field.startswith('config.')]
  others = [
    f'rows of {run.name}: of a run {other}, and it is another'
    for run in runs
    for other in sorted({row['fingerprint'] for row in run.rows} - {run.record['fingerprint']})
  ]
  return [*map(comparability.sentence, found), *others], comparability.notes(runs)


def current(
  claim: Claim, planner: Planner, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[str]]:
  """Those rows that are of the models as the claim has them, and a note on the others, if any."""
  keys: dict[tuple[str, int], str | None] = {}
  for model, seed in {(row['model'], row['seed']) for row in rows}:
    known = model in claim.models
    keys[model, seed] = planner.node(claim, model, seed).key if known else None
  mine = lambda row: row['key'] == keys[row['model'], row['seed']]
  other = sorted({row['model'] for row in rows if not mine(row)})
  note = f'{claim.id}: rows of {", ".join(map(repr, other))} are of another config and left out; '
  return [row for row in rows if mine(row)], [f'{note}run the claim again.'] if other else []


def settle(
  claim: Claim, planner: Planner, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]
) -> Finding:
  """Estimates every effect of a claim and decides; needs nothing but the rows."""
  table: dict[tuple[str, int], dict] = {}
  for row in rows:
    key = row['protocol'], row['control'], row['eval_length']
    table.setdefault((row['model'], row['seed']), {})[key] = row
  seeds = sorted({row['seed'] for row in rows})
  outcomes = [outcome(claim, test, planner, table, seeds) for test in claim.tests]
  found = {
    variant: verdicts.of_claim([o for o in outcomes if o.test.variant in ('', variant)])
    for variant in claim.variants
  }
  return Finding(claim, table, tuple(outcomes), found, record)


def outcome(
  claim: Claim, test: Expect, planner: Planner, table, seeds: Sequence[int]
) -> verdicts.Outcome:
  """Of one test, over the seeds that have all of it; the others are named."""
  scores, left_out = [], []
  for seed in seeds:

    def measured(quantity: Quantity, seed: int = seed):
      node = planner.node(claim, quantity.model, seeds[0])
      return table.get((quantity.model, seed), {}), planner.measurements(quantity, node)

    try:
      scores.append(quantities.effect(test.effect, measured))
    except quantities.Missing as error:
      left_out.append(f'seed {seed}: {error}')
  why = '; '.join(left_out)
  if len(scores) < claim.fewest_seeds:
    few = f'{len(scores)} of at least {claim.fewest_seeds} seeds have it'
    return verdicts.Outcome(test, None, why=f'{few}. {why}' if why else f'{few}.')
  try:
    z, step = quantities.together(scores)
  except quantities.Missing as error:
    return verdicts.Outcome(test, None, why=str(error))
  return verdicts.decide(test, statistics.estimate(z, step), f'without {why}' if why else '')


def as_json(finding: Finding) -> dict[str, Any]:
  """The verdict as it is kept."""
  tests = []
  for outcome in finding.outcomes:
    found = dataclasses.asdict(outcome.estimate) if outcome.estimate else {}
    found = {k: v for k, v in found.items() if k != 'parts'}
    tests.append(
      {'says': outcome.test.says, 'variant': outcome.test.variant, 'verdict': outcome.verdict}
      | {'why': outcome.why}
      | found
      | {'p_holds': outcome.p_holds, 'p_fails': outcome.p_fails}
      | {'seeds_needed': outcome.seeds, 'power': outcome.power}
    )
  return {
    'claim': finding.claim.id,
    'verdict': finding.verdict,
    'verdicts': {name: list(found) for name, found in finding.verdicts.items()},
    'tests': json.loads(json.dumps(tests)),
  } | dict(finding.record)


def read_rows(file: pathlib.Path) -> tuple[list[dict[str, Any]], str]:
  """The whole rows of a file, and what is wrong with it, or ''."""
  lines = file.read_bytes().split(b'\n') if file.exists() else [b'']
  rows, broken = [], [str(len(lines))] if lines[-1] else []
  for number, line in enumerate(lines[:-1], 1):
    with contextlib.suppress(ValueError):
      row = json.loads(line)
      if isinstance(row, dict) and row.keys() >= WHOLE:
        rows.append(row)
        continue
    broken.append(str(number))
  if not broken:
    return rows, ''
  where = f'line {broken[0]}' if len(broken) == 1 else f'lines {", ".join(broken)}'
  return rows, f'{file.name}: no whole row in {where}; the {len(rows)} whole rows are used.'


def again(plan: Planner, claim: Claim) -> tuple[Finding, list[str]]:
  """What a claim's kept rows come to, and what was wrong with them."""
  file = lambda kind: path(plan.scale.name, claim, kind)
  kept = files.read_json(file('verdict.json')) or {}
  whole, cut = read_rows(file('rows.jsonl'))
  rows, stale = current(claim, plan, whole)
  record = {k: kept.get(k) for k in RECORD} | {'scale': plan.scale.name}
  record |= {k: kept[k] for k in WHERE_KNOWN if k in kept}
  finding = settle(claim, plan, rows, record)
  return finding, [*filter(None, [cut]), *stale]
