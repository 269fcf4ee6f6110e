"""JSON records that carry a digest of themselves.

It is compared when a record is read: one changed digit would give another number under the same
name. A record without one, as older ones are, is read as it is.
"""

import json
import math
from typing import Any

from pe_research.common import digest, nested

DIGEST = 'record_digest'
PREFIX = 'record:'  # of its value, so that damage to its name does not hide it


def text(value: Any, where: str, **layout: Any) -> str:
  """JSON of a value, with its digest if it is an object.

  Raises:
    ValueError: a number is not finite; begins with `where`.
  """
  try:
    plain = json.loads(json.dumps(value, allow_nan=False))
  except ValueError as error:
    fields = nested.flat(value) if isinstance(value, dict) else {}
    bad = [f'{name} is {x}' for name, x in fields.items() if x in (math.inf, -math.inf) or x != x]
    raise ValueError(
      f'{where} cannot be written: {", ".join(bad) or error}. Only finite numbers are results.'
    ) from error
  if isinstance(plain, dict):
    plain[DIGEST] = PREFIX + digest.of_json(plain)
  return json.dumps(plain, **layout)


def parsed(content: bytes, where: str) -> Any:
  """The value of a record, without its digest.

  Raises:
    ValueError: it is no JSON, or does not match the digest in it; begins with `where`.
  """
  try:
    value = json.loads(content, parse_constant=_no_number)
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f'{where} is damaged and cannot be read: {error}. Restore it from a copy.'
    ) from error
  if not isinstance(value, dict):
    return value
  marked = [k for k, v in value.items() if k == DIGEST or str(v).startswith(PREFIX)]
  written = [value.pop(name) for name in marked]
  if marked and (marked != [DIGEST] or written != [PREFIX + digest.of_json(value)]):
    raise ValueError(
      f'{where} does not match the digest that it was written with: it was changed or damaged '
      f'since. Restore it from a copy, or remove its {DIGEST} if you changed it.'
    )
  return value


def _no_number(name: str) -> None:
  raise ValueError(f'{name} is not a number')
