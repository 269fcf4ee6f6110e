"""Files that are whole or absent: bytes, JSON, rows, on a disk or in a bucket."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from pe_research.common import nested
from pe_research.storage import bucket, disk, paths
from pe_research.storage.paths import WorkdirError as WorkdirError


def store(path: pathlib.Path):
  """The module that writes and locks where the path is."""
  return bucket if paths.in_bucket(path) else disk


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces the file atomically: a reader sees the old one or the new one, whole."""
  store(path).write(path, content)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces the file atomically."""
  write_bytes(path, json.dumps(value, indent=1).encode())


def write_rows(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Replaces the file atomically by these rows, a line of JSON each."""
  write_bytes(path, ''.join(json.dumps(row) + '\n' for row in rows).encode())


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


def append_row(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Appends one line of JSON, or nothing at all.

  A line that was cut off, by a full disk in this call or by a kill in an earlier one, is removed.
  """
  store(path).append(path, (json.dumps(row) + '\n').encode())


def read_json(path: pathlib.Path) -> Any:
  """The file's value, or None if there is no such file.

  Raises:
    WorkdirError: it is no JSON; says where.
  """
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise WorkdirError(
      f'{path} is damaged and cannot be read: {error}. Restore it from a copy.'
    ) from error


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """All whole rows; a last line that was cut off is left out.

  Raises:
    WorkdirError: a line before it is no JSON; says which.
  """
  if not path.exists():
    return []
  text, rows = path.read_bytes(), []
  for number, line in enumerate(text[: text.rfind(b'\n') + 1].splitlines(), 1):
    try:
      rows += [json.loads(line)] if line else []
    except ValueError as error:
      raise WorkdirError(
        f'{path}, line {number}, is damaged: {error}. Restore it from a copy.'
      ) from error
  return rows
