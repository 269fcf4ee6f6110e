"""What a run leaves behind: its directory, the record of its conditions, rows that are whole."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from pe_research.storage import paths


class WorkdirError(ValueError):
  """A workdir that cannot be used: of another run, in use, or not writable."""


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces the file at once: a reader sees the old one or the new one, whole."""
  if paths.in_bucket(path):
    put(path, content)
    return
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with temporary.open('wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise WorkdirError(f'{path} cannot be written: {error.strerror}.') from error


def put(path: pathlib.Path, content: bytes) -> None:
  """A bucket replaces a file at once, or not at all."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  except OSError as error:
    raise WorkdirError(f'{path} cannot be written: {error}.') from error


def write_json(path: pathlib.Path, value: Any) -> None:
  """Replaces the file at once, as write_bytes does."""
  write_bytes(path, json.dumps(value, indent=1).encode())


def write_rows(path: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Replaces the file at once by these rows, a line of JSON each."""
  write_bytes(path, ''.join(json.dumps(row) + '\n' for row in rows).encode())


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
    raise WorkdirError(f'{path} is damaged and cannot be read: {error}. Bring it back.') from error


def append_row(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Appends one line of JSON, or nothing at all.

  A line that was cut off, by a full disk in this call or by a kill in an earlier one, is removed.
  """
  line = (json.dumps(row) + '\n').encode()
  if paths.in_bucket(path):
    put(path, (path.read_bytes() if path.exists() else b'') + line)
    return
  try:
    with path.open('ab+', buffering=0) as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      whole = _whole(file)
      file.truncate(whole)
      try:
        written = file.write(line)
        if written != len(line):
          raise OSError(errno.ENOSPC, f'only {written} of {len(line)} bytes fit')
        os.fsync(file.fileno())
      except OSError:
        file.truncate(whole)
        raise
  except OSError as error:
    raise WorkdirError(
      f'{path}: a row of {len(line)} bytes cannot be written ({error.strerror}); none of it was '
      'kept. Free space or choose another --workdir.'
    ) from error


def _whole(file) -> int:
  """Bytes up to the end of the last whole line."""
  end = file.seek(0, os.SEEK_END)
  while end:
    begin = max(0, end - 65536)
    file.seek(begin)
    found = file.read(end - begin).rfind(b'\n')
    if found >= 0:
      return begin + found + 1
    end = begin
  return 0


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
  """All whole rows; a last line without its end is left out.

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
      raise WorkdirError(f'{path}, line {number}, is damaged: {error}. Bring it back.') from error
  return rows
