"""Finished runs, and which of their rows are compared."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pe_research.common import digest
from pe_research.runs import conditions
from pe_research.settings import protocols

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
    """Of its directory."""
    return self.workdir.name

  @property
  def is_older(self) -> bool:
    """Whether its record has no programs."""
    return conditions.is_older(self.record['conditions'])

  @functools.cached_property
  def cell(self) -> str:
    """Digest of its config but for scheme and seed, and for what is measured."""
    kept = conditions.conditions(self.config)
    selection = [f'config.eval.{name}' for name in protocols.SELECTION]
    return digest.of_json({k: v for k, v in kept.items() if k not in selection})

  @functools.cached_property
  def asked(self) -> str:
    """Digest of how its config measures."""
    return protocols.settings(self.config['eval'])


def name(row: Row) -> str:
  """What a row is of, as it is asked for: PROTOCOL/CONTROL/LENGTH."""
  return f'{row["protocol"]}/{row["control"]}/{row["eval_length"]}'


@dataclasses.dataclass(frozen=True)
class Used:
  """What is compared of runs.

  Attributes:
    rows: of each run, in the order of the runs.
    notes: a sentence on each run that has other rows as well.
    moved: (run, what was measured) where a run has rows as its config asks, on other targets than
      most runs with its config, and none on theirs.
  """

  rows: list[list[dict[str, Any]]]
  notes: list[str]
  moved: list[tuple[Run, str]]


def used(runs: Sequence[Run]) -> Used:
  """Chooses the rows that are compared.

  Rows of earlier checkpoints have no part. A run may have been measured once more on other targets,
  by an evaluation of longer texts. Of each protocol and control those targets are used that most
  runs of a config have; of as many, those that the configs ask for. Of what was measured twice on
  them, the way of the config is used, or else the last. All other rows stay where they are.
  """
  by_cell: dict[tuple[str, str, str], list[tuple[Run, dict[str, Any]]]] = {}
  for run in runs:
    for row in _last(run):
      by_cell.setdefault((run.cell, row['protocol'], row['control']), []).append((run, row))
  rows: dict[pathlib.Path, dict[str, dict[str, Any]]] = {run.workdir: {} for run in runs}
  others: dict[pathlib.Path, dict[str, None]] = {run.workdir: {} for run in runs}
  moved = []
  for (_, protocol, control), found in by_cell.items():
    targets = _targets(row for _, row in found)
    chosen = _most(found, targets)
    have = {run.workdir for run, row in found if targets(row) == chosen}
    for run, row in found:
      kept = rows[run.workdir]
      if targets(row) == chosen:
        if row['settings'] == run.asked or kept.get(name(row), row)['settings'] != run.asked:
          kept[name(row)] = row
      elif run.workdir in have or row['settings'] != run.asked:
        others[run.workdir][name(row)] = None
      elif (run, f'{protocol}/{control}') not in moved:
        moved.append((run, f'{protocol}/{control}'))
  notes = [
    f'{run.name} was measured on other targets as well ({", ".join(others[run.workdir])}); what is '
    'compared was measured on those that most runs have.'
    for run in runs
    if others[run.workdir]
  ]
  return Used([list(rows[run.workdir].values()) for run in runs], notes, moved)


def _most(found: Sequence[tuple[Run, Row]], targets: Callable[[Row], str]) -> str:
  """The targets of most runs; of as many, those that most configs ask for."""
  votes: dict[str, set[tuple[bool, str]]] = {}
  for run, row in found:
    votes.setdefault(targets(row), set()).add((row['settings'] == run.asked, str(run.workdir)))
  runs = lambda chosen: len({run for _, run in votes[chosen]})
  return max(
    votes, key=lambda chosen: (runs(chosen), sum(asked for asked, _ in votes[chosen]), chosen)
  )


def _last(run: Run) -> list[dict[str, Any]]:
  return [row for row in run.rows if row['step'] == run.record['steps']]


def _targets(rows: Iterable[Row]) -> Callable[[Row], str]:
  """What tells targets apart: their digest; where a row has none, how all of them were chosen."""
  known = all('targets' in row for row in rows)
  return lambda row: row['targets'] if known else row['settings']
