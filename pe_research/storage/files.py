"""Files that are whole or absent: bytes, JSON, rows, on a disk or in a bucket.

JSON objects and rows are written and read as records with a digest, see common/records.py.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from pe_research.common import nested, records
from pe_research.storage import bucket, disk, paths
from pe_research.storage.paths import WorkdirError as WorkdirError


def store(path: pathlib.Path):
  """The module that writes and locks where the path is."""
  return bucket if paths.in_bucket(path) else disk


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces the file atomically: a reader sees the old one or the new one, whole."""
  store(path).write(path, content)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces the file atomically; WorkdirError where a number is not finite."""
  write_bytes(path, _text(path, value, indent=1).encode())


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
      f'{path.parent} holds something else, by its {path.name} (saved -> given):\n  '
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
  return (_text(path, row) + '\n').encode()


def _text(path: pathlib.Path, value: Any, **layout: Any) -> str:
  try:
    return records.text(value, str(path), **layout)
  except ValueError as error:
    raise WorkdirError(str(error)) from error


def _parsed(content: bytes, where: str) -> Any:
  try:
    return records.parsed(content, where)
  except ValueError as error:
    raise WorkdirError(str(error)) from error


def read_json(path: pathlib.Path) -> Any:
  """The file's value, or None if there is no such file.

  Raises:
    WorkdirError: it is no JSON, or not as it was written; says where.
  """
  content = _content(path)
  return None if content is None else _parsed(content, str(path))


def _content(path: pathlib.Path) -> bytes | None:
  """The bytes of a file, None if there is none; WorkdirError where reading might never end."""
  disk.check_regular(path)
  return path.read_bytes() if path.exists() else None


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """All whole rows; a last line that was cut off is left out.

  Raises:
    WorkdirError: a line before it is no JSON, or not as it was written; says which.
  """
  text = _content(path) or b''
  lines = enumerate(text[: text.rfind(b'\n') + 1].splitlines(), 1)
  return [_parsed(line, f'{path}, line {number},') for number, line in lines if line]
