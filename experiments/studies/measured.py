"""Finished runs, and which of their rows are compared."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.common import digest
from pe_research.runs import conditions
from pe_research.settings import protocols
from pe_research.storage import files

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run.

  Attributes:
    workdir: its directory.
    config: resolved.
    record: its run.json.
    rows: its results.
  """

  workdir: pathlib.Path
  config: dict[str, Any]
  record: dict[str, Any]
  rows: list[dict[str, Any]]

  @property
  def name(self) -> str:
    """The name of its directory."""
    return self.workdir.name

  @property
  def is_older(self) -> bool:
    """Whether its record has no programs."""
    return conditions.is_older(self.record['conditions'])

  @functools.cached_property
  def config_key(self) -> str:
    """Digest of its config without scheme, seed and what is measured."""
    kept = conditions.conditions(self.config)
    selection = [f'config.eval.{name}' for name in protocols.SELECTION]
    return digest.of_json({k: v for k, v in kept.items() if k not in selection})

  @functools.cached_property
  def settings(self) -> str:
    """Digest of how its config measures."""
    return protocols.settings(self.config['eval'])


def read(workdir: pathlib.Path, config: dict[str, Any] | None) -> Run | None:
  """The run in `workdir`, with this config; None if it is not finished."""
  record = files.read_json(workdir / 'run.json')
  if config is None or record is None or 'batches' not in record:
    return None
  return Run(workdir, config, record, files.read_rows(workdir / 'results.jsonl'))


def missing(run: Run) -> list[str]:
  """The measurements of its config, as of `measurement_id`, of which a run has no row.

  None for an older record, whose config does not list its measurements.
  """
  if 'measurements' not in run.config['eval']:
    return []
  have = {measurement_id(row) for row in run.rows if row['step'] == run.record['steps']}
  wanted = protocols.measurements(run.config)
  return [text for text in ('/'.join(map(str, one)) for one in wanted) if text not in have]


def measurement_id(row: Row) -> str:
  """The measurement of a row as PROTOCOL/CONTROL/LENGTH."""
  return f'{row["protocol"]}/{row["control"]}/{row["eval_length"]}'


@dataclasses.dataclass(frozen=True)
class Selection:
  """The rows of some runs that are compared.

  Attributes:
    rows: of each run, in the order of the runs.
    notes: a sentence on each run that has other rows as well.
    other_targets: (run, PROTOCOL/CONTROL) if all rows that a run has with the settings of its
      config are on other targets than those of most runs with this config.
  """

  rows: list[list[dict[str, Any]]]
  notes: list[str]
  other_targets: list[tuple[Run, str]]


def select(runs: Sequence[Run]) -> Selection:
  """Chooses the rows that are compared.

  Rows of earlier checkpoints are left out. A run may have been measured again on other targets, by
  an evaluation of longer texts. For each protocol and control, the targets that most runs of a
  config have are used; in a tie, those that the configs ask for. If something was measured twice on
  them, the row with the settings of the config is used, or else the last. Other rows are ignored.
  """
  groups: dict[tuple[str, str, str], list[tuple[Run, dict[str, Any]]]] = {}
  for run in runs:
    for row in run.rows:
      if row['step'] == run.record['steps']:
        key = run.config_key, row['protocol'], row['control']
        groups.setdefault(key, []).append((run, row))
  rows: dict[pathlib.Path, dict[str, dict[str, Any]]] = {run.workdir: {} for run in runs}
  others: dict[pathlib.Path, dict[str, None]] = {run.workdir: {} for run in runs}
  other_targets = []
  for (_, protocol, control), group in groups.items():
    # Without a digest of its targets on some row, targets are told apart by how all were chosen.
    field = 'targets' if all('targets' in row for _, row in group) else 'settings'
    chosen = _most_common(group, field)
    have_chosen = {run.workdir for run, row in group if row[field] == chosen}
    for run, row in group:
      selected = rows[run.workdir]
      if row[field] == chosen:
        earlier = selected.get(measurement_id(row), row)
        if row['settings'] == run.settings or earlier['settings'] != run.settings:
          selected[measurement_id(row)] = row
      elif run.workdir in have_chosen or row['settings'] != run.settings:
        others[run.workdir][measurement_id(row)] = None
      elif (run, f'{protocol}/{control}') not in other_targets:
        other_targets.append((run, f'{protocol}/{control}'))
  notes = [
    f'{run.name} was measured on other targets as well ({", ".join(others[run.workdir])}); what is '
    'compared was measured on those that most runs have.'
    for run in runs
    if others[run.workdir]
  ]
  return Selection([list(rows[run.workdir].values()) for run in runs], notes, other_targets)


def _most_common(group: Sequence[tuple[Run, Row]], field: str) -> str:
  """The value of `field` in the rows of most runs; in a tie, that of most configs' settings."""
  votes: dict[str, set[tuple[bool, pathlib.Path]]] = {}
  for run, row in group:
    by_config = row['settings'] == run.settings
    votes.setdefault(row[field], set()).add((by_config, run.workdir))

  def rank(value: str) -> tuple[int, int, str]:
    voters = votes[value]
    return len({run for _, run in voters}), sum(by_config for by_config, _ in voters), value

  return max(votes, key=rank)
