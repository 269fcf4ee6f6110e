"""Finished runs, and which of their rows are compared."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research import comparable, digest, eval_config

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
    return comparable.is_older(self.record['conditions'])

  @functools.cached_property
  def cell(self) -> str:
    """Digest of its config but for scheme and seed, and for what is measured."""
    kept = comparable.conditions(self.config)
    selection = [f'config.eval.{name}' for name in eval_config.SELECTION]
    return digest.of_json({k: v for k, v in kept.items() if k not in selection})

  @functools.cached_property
  def asked(self) -> str:
    """Digest of how its config measures."""
    return eval_config.settings(self.config['eval'])


def name(row: Row) -> str:
  """What a row is of, as it is asked for: PROTOCOL/CONTROL/LENGTH."""
  return f'{row["protocol"]}/{row["control"]}/{row["eval_length"]}'


def used(runs: Sequence[Run]) -> tuple[list[list[dict[str, Any]]], list[str]]:
  """The rows of each run that are compared, and a sentence on each run that has others.

  Rows of earlier checkpoints have no part. A run may have been measured once more on other targets,
  by an evaluation of longer texts. Of each protocol and control those targets are used that most
  runs of a config have; of as many, those that the configs ask for. Of what was measured twice on
  them, the way of the config is used, or else the last. All other rows stay where they are.
  """
  votes: dict[tuple[str, str, str], dict[str, set[tuple[bool, str]]]] = {}
  for run in runs:
    for row in _last(run):
      of_targets = votes.setdefault((run.cell, row['protocol'], row['control']), {})
      of_targets.setdefault(_targets(row), set()).add(
        (row['settings'] == run.asked, str(run.workdir))
      )
  chosen = {measurement: _most(found) for measurement, found in votes.items()}
  rows, notes = [], []
  for run in runs:
    kept: dict[str, dict[str, Any]] = {}
    others: dict[str, None] = {}
    for row in _last(run):
      if _targets(row) != chosen[run.cell, row['protocol'], row['control']]:
        others[name(row)] = None
      elif row['settings'] == run.asked or kept.get(name(row), row)['settings'] != run.asked:
        kept[name(row)] = row
    rows.append(list(kept.values()))
    if others:
      notes.append(
        f'{run.name} was measured on other targets, too ({", ".join(others)}); what is compared '
        'was measured on those that most runs have.'
      )
  return rows, notes


def _most(found: Mapping[str, set[tuple[bool, str]]]) -> str:
  """Of targets with (as its config asks, run) pairs, those of most runs, then of most configs."""
  runs = lambda targets: len({run for _, run in found[targets]})
  return max(found, key=lambda t: (runs(t), sum(asked for asked, _ in found[t]), t))


def _last(run: Run) -> list[dict[str, Any]]:
  return [row for row in run.rows if row['step'] == run.record['steps']]


def _targets(row: Row) -> str:
  """Digest of the targets; of how they are chosen, where a row has none."""
  return row.get('targets') or row['settings']
