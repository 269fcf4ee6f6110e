"""Nested configs as flat ones with dotted names, and their differences."""

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
