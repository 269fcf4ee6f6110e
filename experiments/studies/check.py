"""Checks which committed rows match the current code.

The programs of each committed run are lowered again from its config, and what is computed on the
host is computed again: batches of a made-up text, the choice of windows, the arithmetic of rows,
the tests of a claim. No model is trained or scored. Whatever differs from the record is named.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.studies import explaining_fields, ledger, measured
from experiments.studies.plan import Planner
from experiments.studies.planned_models import Node
from experiments.studies.relowering import Relowering
from experiments.studies.terms import Claim
from pe_research.common import nested
from pe_research.machines import jax_setup
from pe_research.runs import conditions
from pe_research.search import methods
from pe_research.settings import configs

OF_A_ROW = 'program', 'inputs', 'targets', 'arithmetic'
ENVIRONMENT = 'version.', 'device', 'flags'  # conditions that do not depend on this code


@dataclasses.dataclass(frozen=True)
class Checked:
  """The committed rows of one model of a claim at one seed, checked.

  Attributes:
    model: its name in the claim.
    seed: its seed.
    rows: their number.
    differ: names of what differs; empty if the rows match the code.
    unknown: what cannot be checked, and why.
  """

  model: str
  seed: int
  rows: int
  differ: tuple[str, ...]
  unknown: tuple[str, ...] = ()


def check_claim(claim: Claim, planner: Planner, relowering: Relowering) -> Iterator[Checked]:
  """One item for each model and seed with committed rows."""
  kept = ledger.read_verdict(planner.scale.name, claim)
  rows, _ = ledger.read_rows(ledger.path(planner.scale.name, claim, 'rows.jsonl'))
  runs = {(run['model'], run['seed']): run for run in kept.get('runs', ())}
  by_run: dict[tuple[str, int], list] = {}
  for row in rows:
    by_run.setdefault((row['model'], row['seed']), []).append(row)
  for (model, seed), kept_rows in by_run.items():
    run = runs.get((model, seed), {})
    checked = functools.partial(Checked, model, seed, len(kept_rows))
    if model not in claim.models:
      yield checked(('models of the claim',))
      continue
    node = planner.node(claim, model, seed)
    recorded = (kept.get('conditions') or {}).get(run.get('fingerprint'))
    if any(row['key'] != node.key for row in kept_rows):
      yield checked(('configs',))
    elif recorded is None or conditions.is_older(recorded):
      yield checked((), ('its programs are not on record',))
    else:
      yield checked(*_check_run(node, run, recorded, kept_rows, relowering))


def _check_run(
  node: Node, run: Mapping[str, Any], recorded: Mapping[str, Any], rows, relowering: Relowering
) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """What differs, and what cannot be checked, of a run with its recorded conditions and rows."""
  differ: dict[str, None] = {}
  trained, scored = _config(node.weights, run), _config(node, run)
  plain = trained or configs.without_scheme(node.weights.config)
  shared, with_scheme = relowering.training(plain)
  for name in sorted(shared.keys() | recorded.keys()):
    if not name.startswith(ENVIRONMENT) and shared.get(name) != recorded.get(name):
      differ[explaining_fields.find(name)[1]] = None
  for name, program in with_scheme.items() if trained else ():
    if program != (run['programs'] or {}).get(name):
      differ[explaining_fields.find(f'own_program.{name}')[1]] = None
  for row in rows:
    if row['value'] is None:
      continue
    config = scored or configs.without_scheme(node.config)
    again = relowering.row(config, measured.measurement_id(row))
    for field in (*OF_A_ROW, *(('own_program',) if scored else ())):
      if again.get(field) != row.get(field):
        differ[f'{explaining_fields.find(field)[1]} ({row["protocol"]})'] = None
  unknown = [] if trained and scored else ['its searched factors were not kept']
  for search in run.get('searched', {}).values():
    if search['generator'] is None:
      unknown.append('the candidates of its search are not on record')
    elif search['generator'] != methods.fixed_inputs(search['method']):
      differ['candidates of its search'] = None
  return tuple(differ), tuple(unknown)


def _config(node: Node, run: Mapping[str, Any]) -> dict[str, Any] | None:
  """A node's config; None if it has searched factors that were not kept."""
  if node.search is None:
    return node.config
  search = run.get('searched', {}).get(node.key)
  return node.config | {'position': search['position']} if search else None


def _reproducible(claim: Claim, planner: Planner, kept: Mapping[str, Any]) -> bool:
  """Whether the statistics give the committed tests again from the committed rows."""
  finding, _ = ledger.decide_kept(planner, claim)
  tests = json.loads(json.dumps(ledger.as_json(finding)))['tests']
  return _close(tests, kept['tests'])


def _close(one: Any, other: Any) -> bool:
  """Whether values are equal, floats up to differences between versions of NumPy and SciPy."""
  if isinstance(one, float) and isinstance(other, float):
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
  if isinstance(one, dict) and isinstance(other, dict):
    return one.keys() == other.keys() and all(_close(one[k], other[k]) for k in one)
  if isinstance(one, list) and isinstance(other, list):
    return len(one) == len(other) and all(map(_close, one, other))
  return one == other


def environment(kept: Mapping[str, Any]) -> list[str]:
  """The differences between the environment of committed runs and this one, one per line."""
  here, lines = jax_setup.environment(), {}
  for recorded in (kept.get('conditions') or {}).values():
    there = {k: v for k, v in recorded.items() if k.startswith(ENVIRONMENT)}
    lines |= dict.fromkeys(nested.difference(there, here))
  return list(lines)


def show(claims: Sequence[Claim], planner: Planner) -> bool:
  """Prints one line per claim, then what differs; whether all committed rows match the code."""
  relowering, notes, all_match, environments = Relowering(), [], True, {}
  print('claim    rows  match the code')
  for claim in claims:
    checked = list(check_claim(claim, planner, relowering))
    matching = sum(one.rows for one in checked if not one.differ and not one.unknown)
    print(f'{claim.id:5}  {sum(one.rows for one in checked):6}  {matching:14}', flush=True)
    all_match &= not any(one.differ for one in checked)
    seeds_of: dict[tuple[str, str], list[int]] = {}
    for one in checked:
      lines = [f'{what} differ' for what in one.differ]
      lines += [f'not all can be checked: {why}' for why in one.unknown]
      for line in lines:
        seeds_of.setdefault((one.model, line), []).append(one.seed)
    for (model, line), seeds in seeds_of.items():
      notes.append(f'{claim.id}, {model!r}, seeds {", ".join(map(str, seeds))}: {line}')
    kept = ledger.read_verdict(planner.scale.name, claim)
    if kept and not _reproducible(claim, planner, kept):
      notes.append(
        f'{claim.id}: its kept verdict does not follow from its kept rows; decide it again with '
        'python -m experiments.report.claims'
      )
      all_match = False
    for line in environment(kept):
      environments.setdefault(line, []).append(claim.id)
  for line, ids in environments.items():
    notes.append(f'{", ".join(ids)}: made in another environment (kept -> here), {line}')
  print('\n'.join(notes or ['All kept rows match the code.']))
  return all_match
