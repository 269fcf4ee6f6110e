"""Commands in processes forked from one that has imported them: killed, watched, timed.

Starting Python and importing takes seconds; a fork takes none. The process that forks must not have
run a computation of JAX, whose threads a fork does not copy.
"""

import contextlib
import ctypes
import dataclasses
import importlib
import os
import pathlib
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

LIMIT = 120.0  # seconds after which a command hangs
SUBREAPER = 36  # prctl: orphans of a descendant become children of this process
WRITES = 'open', 'os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.truncate', 'os.link'


@dataclasses.dataclass(frozen=True)
class Kill:
  """When a command is killed, and how.

  Attributes:
    write: before its so-manieth file operation that writes, from 0; None: by `seconds`.
    path: before the first that has this in its path; ends `write` in its place.
    seconds: after its start.
    number: of the signal.
    tree: whether the processes that it started are killed with it.
  """

  write: int | None = None
  path: str = ''
  seconds: float = 0.0
  number: int = signal.SIGKILL
  tree: bool = False


@dataclasses.dataclass(frozen=True)
class Ended:
  """What became of a command.

  Attributes:
    status: exit status; negative: the signal that ended it; None: it hung and was killed.
    said: standard output.
    errors: standard error.
    writes: file operations that write.
    seconds: from start to end.
    killed: whether a signal came before its end.
  """

  status: int | None
  said: str
  errors: str
  writes: int
  seconds: float
  killed: bool


def run(
  command: Sequence[str],
  folder: pathlib.Path,
  environment: Mapping[str, str],
  kill: Kill | None = None,
  most_bytes: int | None = None,
) -> Ended:
  """Runs (module, argument, ...) in `folder` to its end.

  `most_bytes` is the largest file that it may write, as on a full disk.
  """
  ctypes.CDLL(None).prctl(SUBREAPER, 1)
  pipes = [os.pipe() for _ in range(3)]
  began = time.monotonic()
  process = os.fork()
  if not process:
    for i, (_, end) in enumerate(pipes[:2], 1):
      os.dup2(end, i)
    _child(command, folder, environment, kill, most_bytes, pipes[2][1])
  for _, end in pipes:
    os.close(end)
  status, texts, killed = _follow(process, [start for start, _ in pipes], began, kill)
  said, errors = (text.decode(errors='replace') for text in texts[:2])
  writes = texts[2]
  killed = killed or status == -signal.SIGKILL or b'k' in writes
  return Ended(status, said, errors, len(writes), time.monotonic() - began, killed)


def _child(command, folder, environment, kill, most_bytes, counted) -> None:
  """Runs the command in this process, which ends."""
  status = 1
  try:
    os.setsid()
    os.chdir(folder)
    os.environ.update(environment)
    sys.stdin = open(os.devnull, encoding='utf-8')  # noqa: SIM115
    sys.argv = sys.orig_argv = [sys.executable, '-m', *command]
    main = entry(command[0])
    _count_writes(counted, kill)
    if most_bytes is not None:
      resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    status = main(list(command[1:])) or 0
  except SystemExit as ended:
    status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    if isinstance(ended.code, str):
      print(ended.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
  finally:
    with contextlib.suppress(OSError, ValueError):
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(status)


def entry(name: str) -> Callable[[list[str]], int | None]:
  """The function that `python -m name` calls."""
  module = importlib.import_module(name)
  return getattr(module, 'main', None) or importlib.import_module(f'{name}.__main__').main


def _count_writes(counted: int, kill: Kill | None) -> None:
  """Writes a byte for each file operation that writes; kills this process where it is told to."""
  done = 0

  def hook(event: str, given: tuple) -> None:
    nonlocal done
    if event not in WRITES or not os.path.isabs(path := os.path.abspath(_path(given))):
      return
    if event == 'open' and not (isinstance(given[1], str) and {*given[1]} & {*'wax+'}):
      return
    if path.startswith(('/dev/', '/proc/')):
      return
    if kill and (done == kill.write or (kill.path and kill.path in path)):
      os.write(counted, b'k')
      os.kill(os.getpid(), kill.number)
    done += 1
    os.write(counted, b'.')

  sys.addaudithook(hook)


def _path(given: tuple) -> str:
  named = [os.fsdecode(one) for one in given[:2] if isinstance(one, str | bytes | os.PathLike)]
  return named[-1] if len(named) == 2 and '/' in named[-1] else (named or ['/dev/'])[0]


def _follow(process: int, ends: list[int], began: float, kill: Kill | None):
  """Exit status, what came through the pipes until the end, and whether a signal was sent."""
  texts, due = {end: bytearray() for end in ends}, kill and kill.write is None and not kill.path
  status, killed = None, False
  while status is None:
    ready, _, _ = select.select(ends, [], [], 0.02)
    for end in ready:
      texts[end] += os.read(end, 65536)
    now = time.monotonic() - began
    if due and now > kill.seconds:
      due, killed = False, True
      for one in [process, *(descendants(process) if kill.tree else ())]:
        with contextlib.suppress(ProcessLookupError):
          os.kill(one, kill.number)
    if now > LIMIT:
      os.kill(process, signal.SIGKILL)
      os.waitpid(process, 0)
      break
    found, code = os.waitpid(process, os.WNOHANG)
    status = os.waitstatus_to_exitcode(code) if found else None
  for end in ends:
    while select.select([end], [], [], 0)[0] and (more := os.read(end, 65536)):
      texts[end] += more
    os.close(end)
  return status, [bytes(texts[end]) for end in ends], killed


def descendants(process: int) -> list[int]:
  """The processes that a process has started, and these, from /proc."""
  parents: dict[int, list[int]] = {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      fields = path.read_text().rpartition(')')[2].split()
      parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
  found = parents.get(process, [])
  return found + [one for child in found for one in descendants(child)]


def end_orphans() -> None:
  """Kills what a killed command has left running."""
  for one in descendants(os.getpid()):
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
      os.kill(one, signal.SIGKILL)
      os.waitpid(one, 0)
