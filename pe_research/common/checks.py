"""Checks of single values: errors that name the field, its value and the fix."""

import difflib
import math
import pathlib
from collections.abc import Iterable
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
  """' Did you mean ...?' for a misspelt name, or ''."""
  near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
  return f' Did you mean {" or ".join(near)}?' if near else ''


def choose(field: str, value: Any, choices: Iterable[Any]) -> None:
  """Raises ValueError unless `value` is one of `choices`."""
  choices = tuple(choices)
  if value not in choices:
    raise ValueError(
      f'{field} is {value!r}.{nearest(str(value), map(str, choices))} '
      f'Choose one of {", ".join(map(str, choices))}.'
    )


def regular(path: pathlib.Path) -> None:
  """Raises ValueError where a pipe, a device or a folder is: reading it might never end."""
  if path.exists() and not path.is_file():
    raise ValueError(f'{path} is no regular file; name another.')


def at_most(field: str, value: float, most: float, unit: str = '') -> None:
  """Raises ValueError if `value` is above `most`."""
  if not value <= most:
    raise ValueError(f'{field} is {value}{unit and " " + unit}; it must be at most {most}.')


def at_least(field: str, value: float, least: float, unit: str = '') -> None:
  """Raises ValueError if `value` is below `least`, or infinite."""
  if not value >= least:
    raise ValueError(f'{field} is {value}{unit and " " + unit}; it must be at least {least}.')
  finite(field, value)


def finite(field: str, value: float) -> None:
  """Raises ValueError if `value` is infinite or not a number."""
  if not -math.inf < value < math.inf:
    raise ValueError(f'{field} is {value}; it must be a finite number.')
