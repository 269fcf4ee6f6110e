"""What every command shares: errors that a user can act on, and the process they run in."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pe_research.common import checks

if TYPE_CHECKING:
  import ml_collections

CONFIG = """config:
  --config=FILE[:name=value,...]  a file of configs/ and its arguments: configs/lm.py:position=rope
  --config.NAME=VALUE             any field of it: --config.model.width=128
"""


def parser(module: str, description: str, config: bool = False) -> argparse.ArgumentParser:
  """A parser; of a command with a `config`, one that leaves it to `read_config`."""
  return argparse.ArgumentParser(
    prog=f'python -m {module}',
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog=CONFIG if config else None,
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
      if not hasattr(here, 'is_locked'):  # a ConfigDict
        raise ValueError(f'{argument}: {so_far} is {here!r}, which has no fields.')
      if part not in here:
        raise ValueError(
          f'{argument}: there is no field {part!r}.{checks.nearest(part, here)} {so_far} has '
          f'{", ".join(here)}.'
        )
      here, so_far = here[part], f'{so_far}.{part}'


def read_config(arguments: Sequence[str]) -> 'ml_collections.ConfigDict':
  """The locked config that --config=FILE[:name=value,...] --config.x.y=z describe.

  Raises:
    ValueError: in one line, with the nearest names, where ml_collections has a traceback.
  """
  from absl import flags  # slow to import, as is the next, and --help needs neither
  from ml_collections import config_flags

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
