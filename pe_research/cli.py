"""What every command shares: errors that a user can act on, and the process they run in."""

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from pe_research import checks, paths

STOPPED = 75  # exit status of work that left before its end and goes on by the same command
TUNABLES = 'glibc.malloc.hugetlb=1'  # huge pages: XLA's CPU backend allocates at every call


def status(error: Exception) -> int | None:
  """Exit status that an error means; None: it is a bug.

  2: a user's mistake. STOPPED: a bucket did not answer, and may answer later.
  """
  if paths.failed(error):
    return STOPPED
  return 2 if isinstance(error, ValueError | OSError) else None


@contextlib.contextmanager
def errors() -> Iterator[None]:
  """Turns what `status` knows into one message and that status; PE_TRACEBACK=1 shows where."""
  try:
    yield
    sys.stdout.flush()
  except BrokenPipeError:  # who read the output has gone: `... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None
  except Exception as error:
    ends = status(error)
    if os.environ.get('PE_TRACEBACK') or ends is None:
      raise
    hint = ' Is the bucket there, and are you signed in where it is?' if ends == STOPPED else ''
    print(f'error: {str(error) or type(error).__name__}{hint}', file=sys.stderr)
    raise SystemExit(ends) from error


def restart_tuned() -> None:
  """Restarts this process with huge pages for malloc, which must be set before it begins.

  Whole training steps gain 15 to 30 % on a CPU; results are the same bits.
  """
  if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = TUNABLES
    os.execv(sys.executable, sys.orig_argv)


def parser(module: str, description: str) -> argparse.ArgumentParser:
  """A parser that leaves --config and its overrides to `read_config`."""
  return argparse.ArgumentParser(
    prog=f'python -m {module}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def numbers(text: str) -> tuple[float, ...]:
  """The type of a flag that takes a,b,..."""
  return tuple(float(part) for part in text.split(','))


def integers(text: str) -> tuple[int, ...]:
  """The type of a flag that takes whole a,b,..."""
  return tuple(int(part) for part in text.split(','))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table for a terminal, the first row its head; columns of numbers to the right."""
  columns = []
  for head, *cells in zip(*rows, strict=True):
    numbers = all(re.match(r'[-+−–?]?\d|[-–?]?$', cell) for cell in cells)
    width = max(map(len, (head, *cells)))
    columns.append([(str.rjust if numbers else str.ljust)(c, width) for c in (head, *cells)])
  return ['  '.join(line).rstrip() for line in zip(*columns, strict=True)]


def check_fields(arguments: Sequence[str]) -> None:
  """Raises ValueError where --config.x.y=z names no field of the config file."""
  fields = [argument for argument in arguments if argument.startswith('--config.')]
  if not fields:
    return
  whole = read_config([argument for argument in arguments if argument not in fields])
  for argument in fields:
    here, so_far = whole, 'config'
    for part in argument.partition('=')[0].split('.')[1:]:
      if not isinstance(here, ml_collections.ConfigDict):
        raise ValueError(f'{argument}: {so_far} is {here!r}, which has no fields.')
      if part not in here:
        raise ValueError(
          f'{argument}: there is no field {part!r}.{checks.nearest(part, here)} {so_far} has '
          f'{", ".join(here)}.'
        )
      here, so_far = here[part], f'{so_far}.{part}'


def read_config(arguments: Sequence[str]) -> ml_collections.ConfigDict:
  """The locked config that --config=FILE[:name=value,...] --config.x.y=z describe.

  Raises:
    ValueError: in one line, with the nearest names, where ml_collections has a traceback.
  """
  values, argv = flags.FlagValues(), ['', *arguments]
  config_flags.DEFINE_config_file(
    'config', None, 'FILE[:name=value,...]', flag_values=values, lock_config=True, sys_argv=argv
  )
  for argument in arguments:
    if not argument.startswith('--config=') and not argument.startswith('--config.'):
      raise ValueError(
        f'argument {argument!r} is not understood; a config is given by --config=FILE, a field of '
        'it by --config.name=value.'
      )
  try:
    values(argv)
    if values.config is None:
      raise ValueError('no config: give --config=FILE, for example --config=configs/lm.py.')
    return values.config.copy_and_resolve_references().lock()
  except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
    check_fields(arguments)
    # A config file's own error arrives as text, its traceback included: the last line says it.
    lines = [line.strip() for line in str(error).replace('\\n', '\n').splitlines()]
    raised = [line for line in lines if re.match(r'\w+Error: ', line)]  # JAX adds lines of its own
    traced = any('Traceback' in line for line in lines)
    said = (raised or lines)[-1] if traced else ' '.join(lines)
    raise ValueError('config: ' + re.sub(r'^\w+Error: |\\|^[\'"]+|[\'"]+$', '', said)) from error
