"""What a run leaves behind: its directory, the record of its conditions, rows that are whole."""

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pe_research import comparable, digest, paths

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'grain')
ROOT = pathlib.Path(__file__).parent.parent


class WorkdirError(ValueError):
  """A workdir that cannot be used: of another run, in use, or not writable."""


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces the file at once: a reader sees the old one or the new one, whole."""
  if paths.in_bucket(path):
    _put(path, content)
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


def _put(path: pathlib.Path, content: bytes) -> None:
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
    _put(path, (path.read_bytes() if path.exists() else b'') + line)
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


@contextlib.contextmanager
def claim(workdir: pathlib.Path) -> Iterator[Callable[[], None]]:
  """Holds the workdir for this process.

  Yields:
    What raises WorkdirError once another process has taken it over. On a disk none can; a bucket
    has no locks, and a machine that was lost cannot let go: there the newest process has it.

  Raises:
    WorkdirError: it cannot be written, or another process holds it.
  """
  if paths.in_bucket(workdir):
    yield _take_over(workdir)
    return
  path = workdir / '.lock'
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = path.open('a+')
  except OSError as error:
    raise WorkdirError(
      f'workdir {workdir} cannot be written: {error.strerror}. Choose another --workdir.'
    ) from error
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      lock.seek(0)
      raise WorkdirError(
        f'workdir {workdir} is in use by process {lock.read() or "unknown"}; wait for it or choose '
        'another --workdir.'
      ) from error
    except OSError as error:
      raise WorkdirError(
        f'workdir {workdir} cannot be locked: {error.strerror}. Choose a --workdir on a disk that '
        'has locks.'
      ) from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    yield lambda: None


def holder(workdir: pathlib.Path) -> str:
  """The process that holds a workdir of a disk, by number; '' where none does."""
  path = workdir / '.lock'
  if paths.in_bucket(workdir) or not path.exists():
    return ''
  with path.open() as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return lock.read() or 'unknown'
  return ''


def _take_over(workdir: pathlib.Path) -> Callable[[], None]:
  owner, token = workdir / '.owner', secrets.token_hex(16)
  _put(owner, token.encode())

  def check() -> None:
    if owner.read_text() != token:
      raise WorkdirError(f'workdir {workdir} was taken over by a newer process; this one leaves.')

  return check


def check_config(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Compares with the config.json that is there, if there is one.

  Raises:
    WorkdirError: the workdir belongs to a run with another experiment; lists what differs.
  """
  saved = read_json(workdir / 'config.json')
  if saved is not None:
    changed = comparable.difference(comparable.experiment(saved), comparable.experiment(config))
    if changed:
      raise WorkdirError(
        f'workdir {workdir} holds a run with another config (saved -> given):\n  '
        + '\n  '.join(changed)
        + '\nChoose another --workdir, or give the saved config to go on.'
      )


def settle(path: pathlib.Path, wanted: Mapping[str, Any]) -> None:
  """Writes what decides everything else in the file's directory, once.

  Raises:
    WorkdirError: it is there, and differs; lists what does.
  """
  wanted = json.loads(json.dumps(wanted, default=str))
  saved = read_json(path)
  changed = comparable.difference(saved, wanted) if saved else []
  if changed:
    raise WorkdirError(
      f'{path.parent} holds something else (saved -> given):\n  '
      + '\n  '.join(changed[:20])
      + '\nChoose another --workdir, or give what is saved to go on.'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, wanted)


def load_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a run; WorkdirError where there is none."""
  config = read_json(workdir / 'config.json')
  if config is None:
    raise WorkdirError(f'{workdir} has no config.json; name the directory of a run.')
  if 'position' not in config:
    raise WorkdirError(
      f'{workdir} has the config.json of something else; name the directory of a run. A checkpoint '
      f'of Hugging Face becomes one by --config=configs/pretrained.py:path={workdir}.'
    )
  return config


def provenance() -> dict[str, Any]:
  """Commit, whether the tree was clean, hash of the code, versions and machine."""
  return {
    'commit': _git('rev-parse', 'HEAD'),
    'clean': _git('status', '--porcelain') == '',
    'code': code(),
    'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
    'python': platform.python_version(),
    'machine': f'{platform.system()} {platform.machine()}',
  }


def code() -> str:
  """Hash of all that trains and measures."""
  return digest.of_bytes(*(path.read_bytes() for path in sources()))


def sources() -> list[pathlib.Path]:
  """The Python files of all that trains and measures."""
  folders = [ROOT / name for name in ('pe_research', 'configs')]
  return [path for folder in folders for path in sorted(folder.rglob('*.py'))]


def _git(*arguments: str) -> str | None:
  """Output of git in the checkout; None without git or outside a checkout."""
  command = ['git', '-C', str(ROOT), *arguments]
  try:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
  except OSError:  # no git on this machine
    return None
  return result.stdout.strip() if result.returncode == 0 else None


def check_data(workdir: pathlib.Path, facts: Mapping[str, Any]) -> None:
  """Raises WorkdirError unless the text is the one that the run of `workdir` was trained on."""
  record = read_json(workdir / 'run.json') or {'conditions': {}}
  prefix = 'data.'
  conditions = record['conditions'].items()
  trained = {k.removeprefix(prefix): v for k, v in conditions if k.startswith(prefix)}
  changed = comparable.difference(trained, facts) if trained else []
  if changed:
    raise WorkdirError(
      f'the text is not the one that {workdir} was trained on (trained -> found):\n  '
      + '\n  '.join(changed)
      + '\nBring that text back, or train anew in another --workdir.'
    )
