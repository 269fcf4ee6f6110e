"""Conditions: what two runs must share to be comparable, and which conditions changed."""

from collections.abc import Mapping
from typing import Any

from pe_research.common import nested


def is_older(conditions: Mapping[str, Any]) -> bool:
  """Whether conditions are of a record that was made before programs were recorded."""
  return not any(name.startswith('program.') for name in conditions)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
  """Conditions that changed while a run was stopped, a line each.

  For an older record these are of the conditions that both have, and a line says so.
  """
  if not is_older(before):
    return nested.difference(before, after)
  both = before.keys() & after.keys()
  old, new = ({k: v for k, v in one.items() if k in both} for one in (before, after))
  return ['programs: none on record when the run began', *nested.difference(old, new)]


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a config that decides the result: all but `run`, where and how often to write."""
  return {key: value for key, value in config.items() if key != 'run'}


def conditions(config: Mapping[str, Any]) -> dict[str, Any]:
  """Fields that two runs of a comparison must share, all but scheme and seed, by dotted name."""
  shared = {k: v for k, v in experiment(config).items() if k not in ('position', 'seed')}
  # These follow from the seed, or are paths, whose contents are on record by their hashes.
  free = ('data.seed', 'data.tokenizer_file', 'start.workdir', 'start.pretrained')
  return {f'config.{key}': value for key, value in nested.flat(shared).items() if key not in free}
