"""Reads the runs of a sweep and refuses to compare what was not run under the same conditions."""

import dataclasses
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pe_research import comparable, records


class Refused(ValueError):
  """Runs that differ in more than scheme and seed."""


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
  def latest(self) -> list[dict[str, Any]]:
    """Rows of the last step; of what was measured more than once, the last."""
    kept = {
      (row['protocol'], row['control'], row['eval_length']): row
      for row in self.rows
      if row['step'] == self.record['steps']
    }
    return list(kept.values())


def load(workdirs: Sequence[pathlib.Path]) -> list[Run]:
  """Reads finished runs; ValueError names one that is not."""
  runs = []
  for workdir in workdirs:
    config, record = (records.read_json(workdir / f'{n}.json') for n in ('config', 'run'))
    if config is None or record is None or 'batches' not in record:
      raise ValueError(f'{workdir} holds no finished run; train it, or leave it out.')
    runs.append(Run(workdir, config, record, records.read_rows(workdir / 'results.jsonl')))
  if not runs:
    raise ValueError('there are no runs to compare.')
  return runs


def differences(runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
  """(field, sentence) for each condition in which a run differs from the first of its kind."""
  first = runs[0]
  for run in runs[1:]:
    for line in comparable.difference(first.record['conditions'], run.record['conditions']):
      field = line.split(': ')[0]
      yield field, f'{field} ({first.workdir.name} -> {run.workdir.name}): {line[len(field) + 2 :]}'
  for run in runs:
    for line in run.record['changed_on_resume']:
      yield 'changed_on_resume', f'changed_on_resume ({run.workdir.name}): {line}'
  by_seed: dict[int, Run] = {}
  for run in runs:
    one = by_seed.setdefault(run.record['seed'], run)
    for field in ('initial_parameters', 'batches', 'steps'):
      if run.record[field] != one.record[field]:
        yield field, f'{field} of {one.workdir.name} and {run.workdir.name} differ at one seed'
  scored: dict[tuple, tuple[Run, dict[str, Any]]] = {}
  for run in runs:
    for row in run.latest:
      if row['value'] is None:
        continue
      key = row['protocol'], row['control'], row['eval_length']
      one, other = scored.setdefault(key, (run, row))
      for field in ('settings', 'targets', 'tokens', 'bytes'):
        if row.get(field) != other.get(field):
          yield field, f'{field} of {key} differ: {one.workdir.name} and {run.workdir.name}'


def check(runs: Sequence[Run], allowed: Collection[str] = ()) -> list[str]:
  """Differences that `allowed` names; marks for the report.

  Raises:
    Refused: there are others; says which, and how to allow them.
  """
  found = list(differences(runs))
  refused = [(field, text) for field, text in found if field not in allowed]
  if refused:
    shown = '\n  '.join(text for _, text in refused[:20])
    flags = ' '.join(f'--allow-different={field}' for field in dict(refused))
    raise Refused(
      f'these runs are not comparable:\n  {shown}\nRun them under the same conditions, or accept '
      f'the difference, which marks the report: {flags}'
    )
  unknown = set(allowed) - {field for field, _ in found}
  if unknown:
    raise ValueError(f'--allow-different names {sorted(unknown)}, in which the runs do not differ.')
  return [text for _, text in found]
