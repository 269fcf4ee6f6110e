"""Which kept rows still describe the code as it is.

The programs of each kept run are lowered anew from its config, and what is decided on the host is
done anew: batches of a made-up text, the choice of windows, the arithmetic of rows, the verdict of
a claim. No model is trained or scored. What is on record and comes out otherwise is named.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.studies import ledger, measured
from experiments.studies.anew import Anew
from experiments.studies.plan import Node, Planner
from experiments.studies.terms import Claim
from pe_research.common import nested
from pe_research.machines import jax_setup
from pe_research.runs import conditions
from pe_research.search import methods
from pe_research.settings import configs
from pe_research.storage import files

OF_A_ROW = 'program', 'inputs', 'targets', 'arithmetic'
ENVIRONMENT = 'version.', 'device', 'flags'  # conditions that are not of this code
SAID = {
  'program': 'the program that scores, scheme taken out',
  'own_program': 'the program that scores',
  'inputs': 'the windows that are scored',
  'arithmetic': 'how rows are made of losses',
  'targets': 'the targets',
  'program.step': 'the training step, scheme taken out',
  'program.initial': 'the first state, scheme taken out',
  'own program.step': 'the training step',
  'own program.initial': 'the first state',
  'batch_order': 'how batches are put together',
  'attention': 'how attention is computed',
}


@dataclasses.dataclass(frozen=True)
class Checked:
  """What was found of a model of a claim at one seed.

  Attributes:
    model: its name in the claim.
    seed: of the run.
    rows: number that are kept.
    differ: what comes out otherwise, in words; empty where the rows describe the code as it is.
    unknown: what cannot be told.
  """

  model: str
  seed: int
  rows: int
  differ: tuple[str, ...]
  unknown: tuple[str, ...] = ()


def of_claim(claim: Claim, planner: Planner, made: Anew) -> Iterator[Checked]:
  """One item for each model and seed that rows are kept of."""
  kept = files.read_json(ledger.path(planner.scale.name, claim, 'verdict.json')) or {'runs': []}
  rows, _ = ledger.read_rows(ledger.path(planner.scale.name, claim, 'rows.jsonl'))
  runs = {(run['model'], run['seed']): run for run in kept['runs']}
  of_run: dict[tuple[str, int], list] = {}
  for row in rows:
    of_run.setdefault((row['model'], row['seed']), []).append(row)
  for (model, seed), own in of_run.items():
    run = runs.get((model, seed), {})
    found = functools.partial(Checked, model, seed, len(own))
    if model not in claim.models:
      yield found(('that the claim has such a model',))
      continue
    node = planner.node(claim, model, seed)
    shared = (kept.get('conditions') or {}).get(run.get('fingerprint'))
    if any(row['key'] != node.key for row in own):
      yield found(('its config',))
    elif shared is None or conditions.is_older(shared):
      yield found((), ('its programs are not on record',))
    else:
      yield found(*_of_node(node, run, shared, own, made))


def _of_node(
  node: Node, run: Mapping[str, Any], shared: Mapping[str, Any], rows, made: Anew
) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """What differs of a run, and what is unknown."""
  differ: dict[str, None] = {}
  trained, scored = _config(node.weights, run), _config(node, run)
  now, own = made.training(trained or configs.without_scheme(node.weights.config))
  for name in sorted(now.keys() | shared.keys()):
    if not name.startswith(ENVIRONMENT) and now.get(name) != shared.get(name):
      differ[SAID.get(name, f'the text ({name})')] = None
  for name, found in own.items() if trained else ():
    if found != (run['programs'] or {}).get(name):
      differ[SAID[f'own program.{name}']] = None
  for row in rows:
    if row['value'] is None:
      continue
    again = made.row(scored or configs.without_scheme(node.config), measured.name(row))
    for field in (*OF_A_ROW, *(('own_program',) if scored else ())):
      if again.get(field) != row.get(field):
        differ[f'{SAID[field]} ({row["protocol"]})'] = None
  unknown = [] if trained and scored else ['its searched factors were not kept']
  for found in run.get('searched', {}).values():
    if found['generator'] is None:
      unknown.append('what its search tried is not on record')
    elif found['generator'] != methods.fixed_inputs(found['method']):
      differ['what a search tries'] = None
  return tuple(differ), tuple(unknown)


def _config(node: Node, run: Mapping[str, Any]) -> dict[str, Any] | None:
  """A node's config; None where it has searched factors, and these were not kept."""
  if node.search is None:
    return node.config
  found = run.get('searched', {}).get(node.key)
  return node.config | {'position': found['position']} if found else None


def _follows(claim: Claim, planner: Planner, kept: Mapping[str, Any]) -> bool:
  """Whether the rule and the statistics make of the kept rows what the kept verdict has."""
  finding, _ = ledger.again(planner, claim)
  now = json.loads(json.dumps(ledger.as_json(finding)))
  return _alike(now['tests'], kept['tests'])


def _alike(one: Any, other: Any) -> bool:
  """Whether values are the same, numbers to what other versions of NumPy and SciPy share."""
  if isinstance(one, float) and isinstance(other, float):
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
  if isinstance(one, dict) and isinstance(other, dict):
    return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
  if isinstance(one, list) and isinstance(other, list):
    return len(one) == len(other) and all(map(_alike, one, other))
  return one == other


def environment(kept: Mapping[str, Any]) -> list[str]:
  """In what the environment of kept runs differs from this one."""
  now, found = jax_setup.environment(), {}
  for shared in (kept.get('conditions') or {}).values():
    own = {k: v for k, v in shared.items() if k.startswith(ENVIRONMENT)}
    found |= dict.fromkeys(nested.difference(own, now))
  return list(found)


def show(claims: Sequence[Claim], planner: Planner) -> bool:
  """Prints a line a claim as it is checked, then what differs; whether all rows hold."""
  made, notes, holds, environments = Anew(), [], True, {}
  print('claim    rows  as the code is')
  for claim in claims:
    found = list(of_claim(claim, planner, made))
    same = sum(one.rows for one in found if not one.differ and not one.unknown)
    print(f'{claim.id:5}  {sum(one.rows for one in found):6}  {same:14}', flush=True)
    holds &= not any(one.differ for one in found)
    said: dict[tuple[str, str], list[int]] = {}
    for one in found:
      for what in one.differ:
        said.setdefault((one.model, f'{what} differs'), []).append(one.seed)
      for what in one.unknown:
        said.setdefault((one.model, f'not all can be told, as {what}'), []).append(one.seed)
    for (model, what), seeds in said.items():
      notes.append(f'{claim.id}, {model!r}, seeds {", ".join(map(str, seeds))}: {what}')
    kept = files.read_json(ledger.path(planner.scale.name, claim, 'verdict.json')) or {}
    if kept and not _follows(claim, planner, kept):
      notes.append(f'{claim.id}: its verdict follows from its rows no longer; report it anew')
      holds = False
    for line in environment(kept):
      environments.setdefault(line, []).append(claim.id)
  for line, ids in environments.items():
    notes.append(f'{", ".join(ids)}: made in another environment (kept -> here), {line}')
  print('\n'.join(notes or ['All rows that are kept describe the code as it is.']))
  return holds
