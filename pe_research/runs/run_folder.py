"""The folder of a run: checks of its config and of the text that it was trained on."""

import pathlib
from collections.abc import Mapping
from typing import Any

from pe_research.common import nested
from pe_research.runs import conditions
from pe_research.storage import files


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Compares a config with the workdir's config.json, if there is one.

  Raises:
    WorkdirError: the workdir belongs to another experiment; lists what differs.
  """
  saved = files.read_json(workdir / 'config.json')
  if saved is not None:
    changed = nested.difference(conditions.experiment(saved), conditions.experiment(config))
    if changed:
      raise files.WorkdirError(
        f'workdir {workdir} holds a run with another config (saved -> given):\n  '
        + '\n  '.join(changed)
        + '\nChoose another --workdir, or give the saved config to continue.'
      )


def load_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a run; WorkdirError where there is none."""
  config = files.read_json(workdir / 'config.json')
  if config is None:
    raise files.WorkdirError(f'{workdir} has no config.json; name the directory of a run.')
  if 'position' not in config:
    raise files.WorkdirError(
      f'the config.json in {workdir} is not of a run; name the directory of a run. A checkpoint of '
      f'Hugging Face becomes one by --config=configs/pretrained.py:path={workdir}.'
    )
  record = files.read_json(workdir / 'run.json')
  if record is not None:
    position, seed, length = config['position'], config['seed'], config['length']
    own = {'scheme': position['name'], 'seed': seed, 'train_length': length}
    if changed := _other(own, record):
      raise files.WorkdirError(
        f'config.json and run.json in {workdir} are not of one run ({", ".join(changed)}); restore '
        'them from a copy.'
      )
  return config


def load_record(workdir: pathlib.Path) -> dict[str, Any]:
  """The record of a run; WorkdirError where there is none."""
  record = files.read_json(workdir / 'run.json')
  if record is None:
    raise files.WorkdirError(
      f'{workdir} has no run.json, which says what was run; restore it from a copy, or train again '
      'in another --workdir.'
    )
  return record


def load_rows(workdir: pathlib.Path, record: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The rows of a run's results; WorkdirError where one is not of the run of this record."""
  path = workdir / 'results.jsonl'
  rows = files.read_rows(path)
  for number, row in enumerate(rows, 1):
    last = row['step'] == record.get('steps')  # before it, conditions may have changed
    fields = ('scheme', 'seed', 'train_length', *(('fingerprint',) if last else ()))
    same = {name: record[name] for name in fields if name in record}
    if changed := _other(same, row):
      raise files.WorkdirError(
        f'{path}, line {number}, is not of the run that run.json is of ({", ".join(changed)}). '
        'Restore it from a copy, or remove it to measure again.'
      )
  return rows


def _other(known: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
  """Fields whose values in a record are not the known ones; older records have fewer fields."""
  return nested.difference(known, {name: record.get(name, known[name]) for name in known})


def check_data(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
  """Raises WorkdirError unless the text is the one that the run of `workdir` was trained on."""
  record = files.read_json(workdir / 'run.json') or {'conditions': {}}
  recorded = record['conditions'].items()
  trained = {k.removeprefix('data.'): v for k, v in recorded if k.startswith('data.')}
  changed = nested.difference(trained, facts) if trained else []
  if changed:
    raise files.WorkdirError(
      f'the text is not the one that {workdir} was trained on, by its run.json (trained -> '
      'found):\n  '
      + '\n  '.join(changed)
      + '\nRestore that text, or train again in another --workdir.'
    )
