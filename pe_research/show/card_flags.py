"""The flags of a card: a scheme and its arguments, or a saved run."""

import argparse
import inspect
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from ml_collections import config_dict

from pe_research import positions
from pe_research.common import checks
from pe_research.runs import run_folder
from pe_research.settings import configs
from pe_research.show import card_help

OPEN = ('workdir', 'longest', 'output')  # flags that a saved run leaves to the reader


def defaults() -> ml_collections.ConfigDict:
  """The flags that are not a scheme's own, typed, at their defaults."""
  config = ml_collections.ConfigDict(card_help.DEFAULTS)
  config.longest = config_dict.placeholder(int)
  config.head_dim = config_dict.placeholder(int)
  return config


def about(name: str, field: str) -> str:
  """What the docstrings of the scheme called `name` say of its argument; '' if nothing."""
  for cls in positions.scheme(name).__mro__:
    document = inspect.getdoc(vars(cls).get('__init__')) or ''
    found = re.search(rf'^ +{field}: (.*?)(?=\n +[*\w]+: |\n\n|\Z)', document, re.DOTALL | re.M)
    if found:
      return ' '.join(found[1].split())
  return ''


def _parsers(name: str) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
  """One that only looks for --position, and that of the scheme called `name`."""

  def error(message: str):
    raise ValueError(f'{message}.')

  first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  first.add_argument('--position', default=name)
  whole = card_help.parser()
  own = whole.add_argument_group(f'arguments of {name!r}')
  for field, parameter in positions.arguments(name).items():
    said = f'{about(name, field)} (default: {parameter.default})'.strip()
    own.add_argument(f'--{field}', metavar='', help=said.replace('%', '%%'))
  first.error = whole.error = error
  return first, whole


def parse(argv: Sequence[str]) -> dict[str, str]:
  """The flags as text.

  Raises:
    ValueError: an unknown one, with the nearest names.
  """
  name = _parsers(defaults().position)[0].parse_known_args(argv)[0].position
  given, unknown = _parsers(name)[1].parse_known_args(argv)
  if unknown:
    flag = unknown[0].partition('=')[0]
    known = [f'--{field}' for field in (*card_help.HELP, *positions.arguments(name))]
    raise ValueError(
      f'{flag} is unknown.{checks.nearest(flag, known)} Choose one of {", ".join(known)}.'
    )
  return {field: value for field, value in vars(given).items() if value is not None}


def read(argv: Sequence[str]) -> tuple[dict[str, Any], ml_collections.ConfigDict]:
  """The config that flags describe or that of the run that they name, and the common flags.

  Raises:
    ValueError: a flag that is unknown, out of place, or has a value that it cannot have.
  """
  given, flags = parse(argv), defaults()
  for field in given.keys() & flags.keys():
    configs.set_field(flags, field, given[field], f'--{field}')
  return (_of_run if flags.workdir else _of_flags)(given, flags), flags


def _of_run(given: Mapping[str, str], flags: ml_collections.ConfigDict) -> dict[str, Any]:
  closed = [field for field in given if field not in OPEN]
  if closed:
    raise ValueError(f'--{closed[0]} is that of the run with --workdir; leave one of them out.')
  config = run_folder.load_config(pathlib.Path(flags.workdir))
  if flags.longest is None:
    flags.longest = max(config['length'], *config['eval']['lengths'])
  return config


def _of_flags(given: Mapping[str, str], flags: ml_collections.ConfigDict) -> dict[str, Any]:
  for field in ('length', 'width', 'heads'):
    checks.at_least(f'--{field}', flags[field], 1)
  if flags.head_dim is None:
    if flags.width % flags.heads:
      raise ValueError(
        f'--width ({flags.width}) is not a multiple of --heads ({flags.heads}); change one of '
        'them, or give --head_dim.'
      )
    flags.head_dim = flags.width // flags.heads
  checks.at_least('--head_dim', flags.head_dim, 1)
  position = configs.position(flags.position, flags.length, flags.preset)
  for field, value in given.items():
    if field not in flags:
      configs.set_field(position, field, value, f'--{field}')
  model = {field: flags[field] for field in ('width', 'heads', 'head_dim')}
  return {'position': position.to_dict(), 'length': flags.length, 'model': model}
