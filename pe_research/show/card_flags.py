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

WITH_WORKDIR = ('workdir', 'longest', 'output')  # flags that may be given for a saved run


def defaults() -> ml_collections.ConfigDict:
  """The flags that all schemes have, typed, at their defaults."""
  config = ml_collections.ConfigDict(card_help.DEFAULTS)
  config.longest = config_dict.placeholder(int)
  config.head_dim = config_dict.placeholder(int)
  return config


def about(name: str, field: str) -> str:
  """What the docstrings of a scheme say of one of its arguments; '' if nothing."""
  for cls in positions.scheme(name).__mro__:
    document = inspect.getdoc(vars(cls).get('__init__')) or ''
    found = re.search(rf'^ +{field}: (.*?)(?=\n +[*\w]+: |\n\n|\Z)', document, re.DOTALL | re.M)
    if found:
      return ' '.join(found[1].split())
  return ''


def _raise(message: str):
  raise ValueError(f'{message}.')


def _parser(name: str) -> argparse.ArgumentParser:
  """The flags that all schemes have, and those for the arguments of the scheme called `name`."""
  parser = card_help.parser()
  parser.error = _raise
  group = parser.add_argument_group(f'arguments of {name!r}')
  for field, parameter in positions.arguments(name).items():
    text = f'{about(name, field)} (default: {parameter.default})'.strip()
    group.add_argument(card_help.flag(field), metavar='VALUE', help=text.replace('%', '%%'))
  return parser


def parse(argv: Sequence[str]) -> dict[str, str]:
  """The flags as text, by name; '_' in a flag is read as '-'.

  Raises:
    ValueError: an unknown flag, with the nearest names.
  """
  argv = [re.sub(r'^--[^=]+', lambda found: found[0].replace('_', '-'), one) for one in argv]
  first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  first.add_argument('--position', default=card_help.DEFAULTS['position'])
  first.error = _raise
  name = first.parse_known_args(argv)[0].position
  given, unknown = _parser(name).parse_known_args(argv)
  if unknown:
    flag = unknown[0].partition('=')[0]
    known = [card_help.flag(field) for field in (*card_help.FLAGS, *positions.arguments(name))]
    raise ValueError(
      f'{flag} is unknown.{checks.nearest(flag, known)} Choose one of {", ".join(known)}.'
    )
  return {field: value for field, value in vars(given).items() if value is not None}


def read(argv: Sequence[str]) -> tuple[dict[str, Any], ml_collections.ConfigDict]:
  """The config that the flags describe, or that of the run at --workdir; and the common flags.

  Raises:
    ValueError: a flag that is unknown, not allowed with --workdir, or has an invalid value.
  """
  given, flags = parse(argv), defaults()
  for field in given.keys() & flags.keys():
    configs.set_field(flags, field, given[field], card_help.flag(field))
  return (_of_run if flags.workdir else _of_flags)(given, flags), flags


def _of_run(given: Mapping[str, str], flags: ml_collections.ConfigDict) -> dict[str, Any]:
  for field in given:
    if field not in WITH_WORKDIR:
      raise ValueError(
        f'{card_help.flag(field)} is that of the run with --workdir; leave one of them out.'
      )
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
        'them, or give --head-dim.'
      )
    flags.head_dim = flags.width // flags.heads
  checks.at_least('--head-dim', flags.head_dim, 1)
  position = configs.position(flags.position, flags.length, flags.preset)
  for field, value in given.items():
    if field not in flags:
      configs.set_field(position, field, value, card_help.flag(field))
  model = {field: flags[field] for field in ('width', 'heads', 'head_dim')}
  return {'position': position.to_dict(), 'length': flags.length, 'model': model}
