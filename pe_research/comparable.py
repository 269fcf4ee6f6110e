"""What makes two runs comparable: fields of their configs, and which of them differ."""

from collections.abc import Mapping
from typing import Any


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Nested fields under dotted names: {'model.width': 64}."""
  fields = {}
  for key, value in config.items():
    nested = isinstance(value, Mapping)
    fields |= flat(value, f'{prefix}{key}.') if nested else {prefix + key: value}
  return fields


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Fields that differ, one line each: 'model.width: 64 -> 128'."""
  old, new = flat(old), flat(new)
  absent = '(absent)'
  return [
    f'{key}: {old.get(key, absent)} -> {new.get(key, absent)}'
    for key in sorted(old.keys() | new.keys())
    if old.get(key, absent) != new.get(key, absent)
  ]


def experiment(config: Mapping[str, Any]) -> dict[str, Any]:
  """What decides the result: everything but `run`, which says where and how often to write."""
  return {key: value for key, value in config.items() if key != 'run'}


def conditions(config: Mapping[str, Any]) -> dict[str, Any]:
  """What two runs of one comparison must share: all but the scheme and the seed, flat."""
  shared = {k: v for k, v in experiment(config).items() if k not in ('position', 'seed')}
  # Of a seed; and places, where the record has what is there.
  own = ('data.seed', 'data.tokenizer_file', 'start.workdir', 'start.pretrained')
  return {f'config.{key}': value for key, value in flat(shared).items() if key not in own}
