"""What the command lines share: parsers, types of flags, reading a config, tables."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pe_research.common import checks
from pe_research.storage import paths

if TYPE_CHECKING:
  import ml_collections

USAGE = '%(prog)s --config=FILE [--config.NAME=VALUE ...] [options]'
MOST = 10_000  # numbers in a range of a flag
CONFIG = """config:
  --config=FILE[:name=value,...]  file of configs/ and its arguments: configs/lm.py:position=rope
  --config.NAME=VALUE             any field of it: --config.model.width=128, --config.steps=500
"""


def parser(module: str, description: str, config: bool = False) -> argparse.ArgumentParser:
  """The parser of `python -m module`; with `config`, its flags are left to `read_config`."""
  return argparse.ArgumentParser(
    prog=f'python -m {module}',
    usage=USAGE if config else None,
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog=CONFIG if config else None,
    allow_abbrev=False,
  )


def add_checkpoint(parser: argparse.ArgumentParser, flag: str) -> None:
  """Adds `flag`, the folder of a trained run, and --step."""
  parser.add_argument(
    flag, type=paths.place, required=True, metavar='DIR',
    help='folder of a trained run, or gs://BUCKET/DIR (required)',
  )  # fmt: skip
  parser.add_argument(
    '--step', type=int, metavar='N', help='use the checkpoint after N steps (default: the newest)'
  )


def words(text: str) -> tuple[str, ...]:
  """The type of a flag that takes a,b,..."""
  return tuple(text.split(','))


def numbers(text: str) -> tuple[float, ...]:
  """The type of a flag that takes numbers: 1,2.5."""
  try:
    return tuple(float(part) for part in text.split(','))
  except ValueError as error:
    raise argparse.ArgumentTypeError(f'{text!r} is not understood; write numbers: 1,2.5') from error


def integers(text: str) -> tuple[int, ...]:
  """The type of a flag that takes whole numbers: 0,1,2, or 0:3 for the same."""
  found: list[int] = []
  for part in text.split(','):
    pattern = re.fullmatch(r'(-?\d+)(?::(-?\d+))?', part)
    if not pattern:
      raise argparse.ArgumentTypeError(
        f'{text!r} is not understood; write whole numbers: 0,1,2, or 0:3 for the same'
      )
    first, end = int(pattern[1]), int(pattern[2] or int(pattern[1]) + 1)
    if not 0 < (count := end - first) <= MOST:
      raise argparse.ArgumentTypeError(f'{part} is {max(0, count)} numbers; give 1 to {MOST:,}')
    found += range(first, end)
  return tuple(found)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table for a terminal, the first row its head; numbers are aligned to the right."""
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
  config = read_config([argument for argument in arguments if argument not in fields])
  for argument in fields:
    value, path = config, 'config'
    for name in argument.partition('=')[0].split('.')[1:]:
      if not hasattr(value, 'is_locked'):  # not a ConfigDict
        raise ValueError(f'{argument}: {path} is {value!r}, which has no fields.')
      if name not in value:
        raise ValueError(
          f'{argument}: there is no field {name!r}.{checks.nearest(name, value)} {path} has '
          f'{", ".join(value)}.'
        )
      value, path = value[name], f'{path}.{name}'


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
    if not argument.isprintable():
      raise ValueError(f'argument {argument!r} has characters that cannot be printed.')
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
  except Exception as error:  # a config file may raise anything
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
      raise
    if isinstance(error, SyntaxError | UnicodeError):
      raise ValueError(
        f'config: {getattr(error, "filename", None) or arguments[0]} is no config file ({error}); '
        'name one in Python, as configs/lm.py.'
      ) from error
    check_fields(arguments)
    # A config file's own error arrives as text with its traceback: the last line is the message.
    lines = [line.strip() for line in str(error).replace('\\n', '\n').splitlines()]
    raised = [line for line in lines if re.match(r'[\w.]+Error: ', line)]  # JAX adds more lines
    traced = any('Traceback' in line for line in lines)
    message = (raised or lines)[-1] if traced else ' '.join(lines)
    message = re.sub(r'^[\w.]+Error: |\\|^[\'"]+|[\'"]+$', '', message)
    raise ValueError(f'config: {message}') from error
