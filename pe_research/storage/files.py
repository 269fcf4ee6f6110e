"""Files that are whole or absent: bytes, JSON, rows, on a disk or in a bucket.

Every JSON object and every row is written with a digest of itself, which is compared when it is
read: one changed digit would give another number under the same name. What has none, as older
records, is read as it is.
"""

import json
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from pe_research.common import digest, nested
from pe_research.storage import bucket, disk, paths
from pe_research.storage.paths import WorkdirError as WorkdirError

DIGEST = 'record_digest'
PREFIX = 'record:'  # of its value, so that damage to its name does not hide it


def store(path: pathlib.Path):
  """The module that writes and locks where the path is."""
  return bucket if paths.in_bucket(path) else disk


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces the file atomically: a reader sees the old one or the new one, whole."""
  store(path).write(path, content)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces the file atomically; WorkdirError where a number is not finite."""
  write_bytes(path, json.dumps(_with_digest(path, value), indent=1).encode())


def write_rows(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Replaces the file atomically by these rows, a line of JSON each."""
  write_bytes(path, b''.join(_line(path, row) for row in rows))


def write_once(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes the JSON file that decides everything else in its folder, unless it is there.

  Raises:
    WorkdirError: the file is there and differs; lists the fields.
  """
  value = json.loads(json.dumps(value, default=str))
  saved = read_json(path)
  changed = nested.difference(saved, value) if saved else []
  if changed:
    raise WorkdirError(
      f'{path.parent} holds something else (saved -> given):\n  '
      + '\n  '.join(changed[:20])
      + '\nChoose another --workdir, or give what is saved to continue.'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, value)


def check_writable(path: pathlib.Path, makes_folder: bool = False) -> None:
  """Raises WorkdirError unless a file can be written there; for use before long work begins.

  Args:
    path: of the file.
    makes_folder: whether the folder is made if it is not there.
  """
  if not paths.in_bucket(path):
    disk.check_writable(path, makes_folder)


def append_row(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Appends one line of JSON, or nothing at all.

  A line that was cut off, by a full disk in this call or by a kill in an earlier one, is removed.
  """
  store(path).append(path, _line(path, row))


def _line(path: pathlib.Path, row: Mapping[str, Any]) -> bytes:
  return (json.dumps(_with_digest(path, row)) + '\n').encode()


def _with_digest(path: pathlib.Path, value: Any) -> Any:
  try:
    plain = json.loads(json.dumps(value, allow_nan=False))
  except ValueError as error:
    bad = [f'{name} is {x}' for name, x in nested.flat(value).items() if x in (math.inf, -math.inf)]
    bad += [f'{name} is {x}' for name, x in nested.flat(value).items() if x != x]
    raise WorkdirError(
      f'{path} cannot be written: {", ".join(bad) or error}. Only finite numbers are results.'
    ) from error
  if not isinstance(plain, dict):
    return plain
  return plain | {DIGEST: PREFIX + digest.of_json(plain)}


def parsed(text: bytes, where: str) -> Any:
  """The JSON of a text, without its digest.

  Raises:
    WorkdirError: it is no JSON, or does not match the digest in it; begins with `where`.
  """
  try:
    value = json.loads(text, parse_constant=_no_number)
  except (ValueError, RecursionError) as error:
    raise WorkdirError(
      f'{where} is damaged and cannot be read: {error}. Restore it from a copy.'
    ) from error
  if not isinstance(value, dict):
    return value
  marked = [k for k, v in value.items() if k == DIGEST or str(v).startswith(PREFIX)]
  written = [value.pop(name) for name in marked]
  if marked and (marked != [DIGEST] or written != [PREFIX + digest.of_json(value)]):
    raise WorkdirError(
      f'{where} does not match the digest that it was written with: it was changed or damaged '
      f'since. Restore it from a copy, or remove its {DIGEST} if you changed it.'
    )
  return value


def _no_number(text: str) -> None:
  raise ValueError(f'{text} is not a number')


def read_json(path: pathlib.Path) -> Any:
  """The file's value, or None if there is no such file.

  Raises:
    WorkdirError: it is no JSON, or not as it was written; says where.
  """
  return parsed(path.read_bytes(), str(path)) if path.exists() else None


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """All whole rows; a last line that was cut off is left out.

  Raises:
    WorkdirError: a line before it is no JSON, or not as it was written; says which.
  """
  if not path.exists():
    return []
  text = path.read_bytes()
  lines = enumerate(text[: text.rfind(b'\n') + 1].splitlines(), 1)
  return [parsed(line, f'{path}, line {number},') for number, line in lines if line]
