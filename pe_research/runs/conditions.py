"""What makes two runs comparable: fields of their configs, and which of them differ."""

from collections.abc import Mapping
from typing import Any

from pe_research.common import nested


def is_older(conditions: Mapping[str, Any]) -> bool:
  """Whether a run's conditions are of a record that has no programs."""
  return not any(name.startswith('program.') for name in conditions)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
  """Conditions that changed while a run was stopped, a line each.

  Of a record without programs those that both have, and a line that says so.
  """
  if not is_older(before):
    return nested.difference(before, after)
  both = before.keys() & after.keys()
  old, new = ({k: v for k, v in of.items() if k in both} for of in (before, after))
  return ['programs: none on record when the run began', *nested.difference(old, new)]


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
  """What decides the result: everything but `run`, which says where and how often to write."""
  return {key: value for key, value in config.items() if key != 'run'}


def conditions(config: Mapping[str, Any]) -> dict[str, Any]:
  """What two runs of one comparison must share: all but the scheme and the seed, nested.flat."""
  shared = {k: v for k, v in experiment(config).items() if k not in ('position', 'seed')}
  # Of a seed; and places, where the record has what is there.
  own = ('data.seed', 'data.tokenizer_file', 'start.workdir', 'start.pretrained')
  return {f'config.{key}': value for key, value in nested.flat(shared).items() if key not in own}
