"""Committed measurements and verdicts of claims."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.studies import comparability, measured, plan, quantities, statistics, verdicts
from experiments.studies.plan import Planner
from experiments.studies.planned_models import Node
from experiments.studies.terms import Claim, Expect, Quantity
from pe_research.common import records
from pe_research.settings import protocols
from pe_research.storage import files

RESULTS = pathlib.Path(__file__).parents[1] / 'results'
PROVENANCE = 'program', 'own_program', 'inputs', 'arithmetic', 'environment'  # how a row was made
FIELDS = ('protocol', 'control', 'eval_length', 'value', 'unit', 'tokens', 'windows', 'documents',
          'targets', 'by_position', 'undefined', 'hits', 'chance', 'bits_per_byte',
          *PROVENANCE)  # fmt: skip
REQUIRED = {'model', 'seed', 'key', 'protocol', 'control', 'eval_length', 'value'}  # in every row
RECORD = 'scale', 'registered', 'runs', 'costs', 'refused'  # committed beside the tests
OPTIONAL_RECORD = 'conditions', 'notes'  # committed if there are any


@dataclasses.dataclass(frozen=True)
class Finding:
  """A claim's rows and outcomes at one scale.

  Attributes:
    claim: the claim.
    rows: (model, seed) -> its rows.
    outcomes: of its tests, in their order.
    verdicts: variant -> verdict over its tests and its p value, before any correction for the
      number of claims.
    record: what is committed beside the tests: runs, costs, commits.
  """

  claim: Claim
  rows: Mapping[tuple[str, int], quantities.Rows]
  outcomes: tuple[verdicts.Outcome, ...]
  verdicts: Mapping[str, tuple[str, float]]
  record: Mapping[str, Any]

  @property
  def verdict(self) -> str:
    """The verdict of the first variant, the published one."""
    return self.verdicts[self.claim.variants[0]][0]

  @property
  def seeds(self) -> list[int]:
    """The seeds in ascending order."""
    return sorted({seed for _, seed in self.rows})

  @property
  def is_complete(self) -> bool:
    """Whether the effect of every test was estimated."""
    return all(outcome.estimate is not None for outcome in self.outcomes)


def path(scale: str, claim: Claim, kind: str) -> pathlib.Path:
  """The file of a claim's committed 'rows.jsonl' or 'verdict.json'."""
  return RESULTS / scale / f'{claim.id}.{kind}'


def read_verdict(scale: str, claim: Claim) -> dict[str, Any]:
  """The committed verdict of a claim; empty if there is none."""
  return files.read_json(path(scale, claim, 'verdict.json')) or {}


def kept_seeds(scale: str, claim: Claim) -> int:
  """Number of seeds of the committed verdict of a claim; 0 if there is none."""
  return len({run['seed'] for run in read_verdict(scale, claim).get('runs', ())})


def collect(
  claim: Claim, planner: Planner, models: Mapping[str, Sequence[Node]]
) -> list[dict[str, Any]]:
  """The rows of a claim's runs that its quantities read, each with its model and seed.

  Rows that only the figure reads come without the sums of each document, which are most of a row.
  """
  collected = []
  for model, nodes in models.items():
    for node in nodes:
      by_document = _measurements(document_quantities(claim), planner, model, node)
      wanted = _measurements(plan.quantities(claim), planner, model, node)
      latest = {measured.measurement_id(row): row for row in _final_rows(node)}
      for text in sorted(wanted & latest.keys()):
        row = {k: latest[text][k] for k in FIELDS if k in latest[text]}
        if text not in by_document:
          row.pop('documents', None)
        if 'documents' in row:
          row['documents'] = {d: [round(s, 5), n] for d, (s, n) in row['documents'].items()}
        if 'by_position' in row:
          row['by_position'] = [round(loss, 6) for loss in row['by_position']]
        collected.append({'model': model, 'seed': node.config['seed'], 'key': node.key} | row)
  return collected


def _final_rows(node: Node) -> list[dict[str, Any]]:
  """The rows of a run's last weights that were made with the settings of its config."""
  rows = files.read_rows(node.workdir / 'results.jsonl')
  last = max((row['step'] for row in rows), default=0)
  settings = protocols.settings(node.config['eval'])
  return [row for row in rows if row['step'] == last and row['settings'] == settings]


def document_quantities(claim: Claim) -> list[Quantity]:
  """The quantities that the tests of a claim read document by document."""
  terms = [quantity for test in claim.tests for _, quantity in test.effect.terms]
  return [quantity for quantity in terms if quantity.of in quantities.DOCUMENTS]


def _measurements(wanted: Sequence[Quantity], planner: Planner, model: str, node: Node) -> set[str]:
  """The measurements of a node that these quantities need."""
  return {
    text
    for quantity in wanted
    if quantity.model == model
    for text, _ in planner.measurements(quantity, node)
  }


def differences(models: Mapping[str, Sequence[Node]]) -> tuple[list[str], list[str]]:
  """Why runs of a claim may not be compared, by the rule of comparability.py; and notes on them.

  Differences that the configs explain are left out: models of a claim differ by design. Rows that
  belong to another run are named, too.
  """
  distinct = {node.key: node for nodes in models.values() for node in nodes}.values()
  runs = [run for node in distinct if (run := measured.read(node.workdir, node.config))]
  found = [d for d in comparability.differences(runs) if not d.field.startswith('config.')]
  foreign = [
    f'rows of {run.name} are those of a run {fingerprint}, which it is not'
    for run in runs
    for fingerprint in sorted({r['fingerprint'] for r in run.rows} - {run.record['fingerprint']})
  ]
  return [*map(comparability.sentence, found), *foreign], comparability.notes(runs)


def drop_stale(
  claim: Claim, planner: Planner, rows: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[str]]:
  """The rows of the claim's present models, and a note on the others, if any."""
  keys = {
    (model, seed): planner.node(claim, model, seed).key
    for model, seed in {(row['model'], row['seed']) for row in rows}
    if model in claim.models
  }
  current, stale = [], set()
  for row in rows:
    if row['key'] == keys.get((row['model'], row['seed'])):
      current.append(row)
    else:
      stale.add(repr(row['model']))
  note = f'{claim.id}: rows of {", ".join(sorted(stale))} are of another config and left out; '
  return current, [f'{note}run the claim again.'] if stale else []


def decide(
  claim: Claim, planner: Planner, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]
) -> Finding:
  """Estimates every effect of a claim and decides, from the rows alone."""
  table: dict[tuple[str, int], dict] = {}
  for row in rows:
    key = row['protocol'], row['control'], row['eval_length']
    table.setdefault((row['model'], row['seed']), {})[key] = row
  seeds = sorted({row['seed'] for row in rows})
  outcomes = [outcome(claim, test, planner, table, seeds) for test in claim.tests]
  by_variant = {
    variant: verdicts.of_claim([o for o in outcomes if o.test.variant in ('', variant)])
    for variant in claim.variants
  }
  return Finding(claim, table, tuple(outcomes), by_variant, record)


def outcome(
  claim: Claim, test: Expect, planner: Planner, table, seeds: Sequence[int]
) -> verdicts.Outcome:
  """The outcome of one test, over the seeds that have all of its rows; it names the others.

  `table` has the rows of each (model, seed).
  """
  scores, incomplete = [], []
  for seed in seeds:

    def rows_of(quantity: Quantity, seed: int = seed):
      node = planner.node(claim, quantity.model, seeds[0])
      return table.get((quantity.model, seed), {}), planner.measurements(quantity, node)

    try:
      scores.append(quantities.effect(test.effect, rows_of))
    except quantities.Missing as error:
      incomplete.append(f'seed {seed}: {error}')
  why = '; '.join(incomplete)
  if len(scores) < claim.fewest_seeds:
    few = f'{len(scores)} of at least {claim.fewest_seeds} seeds have all of its rows'
    return verdicts.Outcome(test, None, why=f'{few}. {why}' if why else f'{few}.')
  try:
    z, step = quantities.together(scores)
  except quantities.Missing as error:
    return verdicts.Outcome(test, None, why=str(error))
  return verdicts.decide(test, statistics.estimate(z, step), f'without {why}' if why else '')


def as_json(finding: Finding) -> dict[str, Any]:
  """The verdict as it is committed."""
  tests = []
  for outcome in finding.outcomes:
    estimate = dataclasses.asdict(outcome.estimate) if outcome.estimate else {}
    estimate.pop('parts', None)
    tests.append(
      {'says': outcome.test.says, 'variant': outcome.test.variant, 'verdict': outcome.verdict}
      | {'why': outcome.why}
      | estimate
      | {'p_holds': outcome.p_holds, 'p_fails': outcome.p_fails}
      | {'seeds_needed': outcome.seeds, 'power': outcome.power}
    )
  return {
    'claim': finding.claim.id,
    'verdict': finding.verdict,
    'verdicts': {variant: list(found) for variant, found in finding.verdicts.items()},
    'tests': json.loads(json.dumps(tests)),
  } | dict(finding.record)


def read_rows(file: pathlib.Path) -> tuple[list[dict[str, Any]], str]:
  """The whole rows of a file, and what is wrong with it, or ''."""
  lines = file.read_bytes().split(b'\n') if file.exists() else [b'']
  rows, broken = [], [str(len(lines))] if lines[-1] else []
  for number, line in enumerate(lines[:-1], 1):
    with contextlib.suppress(ValueError):
      row = records.parsed(line, f'{file}, line {number},')
      if isinstance(row, dict) and row.keys() >= REQUIRED:
        rows.append(row)
        continue
    broken.append(str(number))
  if not broken:
    return rows, ''
  where = f'line {broken[0]}' if len(broken) == 1 else f'lines {", ".join(broken)}'
  return rows, f'{file.name}: no whole row in {where}; the {len(rows)} whole rows are used.'


def decide_kept(planner: Planner, claim: Claim) -> tuple[Finding, list[str]]:
  """The finding that a claim's committed rows give, and notes on rows that were left out."""
  scale = planner.scale.name
  kept = read_verdict(scale, claim)
  rows, damage = read_rows(path(scale, claim, 'rows.jsonl'))
  rows, notes = drop_stale(claim, planner, rows)
  record = {name: kept.get(name) for name in RECORD} | {'scale': scale}
  record |= {name: kept[name] for name in OPTIONAL_RECORD if name in kept}
  return decide(claim, planner, rows, record), [damage, *notes] if damage else notes
