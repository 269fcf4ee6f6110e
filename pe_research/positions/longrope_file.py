"""The file that a search for LongRoPE factors writes and position.file names."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.common import checks, digest, records

KIND = 'LongRoPE factors'
FIELDS = ('base', 'rotated', 'train_length', 'target_length')  # the model that the factors fit


def check(name: str, factors: Sequence[float], pairs: int) -> tuple[float, ...]:
  """The factors as floats; a single one is for all pairs.

  Raises:
    ValueError: there are not as many as rotated pairs, they decrease, or one is not positive.
  """
  try:
    factors = tuple(map(float, factors))
  except (TypeError, ValueError) as error:
    raise ValueError(f'position.{name} is {factors}; factors are positive numbers.') from error
  factors = factors * pairs if len(factors) == 1 else factors
  if len(factors) != pairs:
    raise ValueError(
      f'position.{name} has {len(factors)} factors; {pairs} pairs of channels rotate, and each '
      'needs one factor.'
    )
  for i, (one, following) in enumerate(zip(factors, (*factors[1:], float('inf')), strict=True)):
    if not 0 < one < float('inf'):
      raise ValueError(f'position.{name}[{i}] is {one}; factors are positive numbers.')
    if not one <= following:
      raise ValueError(
        f'position.{name} falls from {one} to {following} at pair {i + 1}; a slower pair must be '
        'stretched at least as much as a faster one (arXiv:2402.13753, sec. 3.3).'
      )
  return factors


def read(path: str) -> tuple[dict[str, Any], str]:
  """The file's contents, and 'NAME sha256:...' for the record.

  Raises:
    ValueError: there is no such file, or it holds something else.
  """
  try:
    checks.regular(pathlib.Path(path))
    text = pathlib.Path(path).read_bytes()
    found = records.parsed(text, 'it')
  except FileNotFoundError as error:
    raise ValueError(
      f'position.file {path} does not exist; python -m pe_research.search writes one.'
    ) from error
  except (OSError, ValueError) as error:
    raise ValueError(f'position.file {path} cannot be read: {error}.') from error
  if not isinstance(found, dict) or found.get('kind') != KIND:
    raise ValueError(f'position.file {path} does not hold {KIND}.')

  def number(x):
    return isinstance(x, int | float) and not isinstance(x, bool)

  def numbers(x):
    return isinstance(x, list) and all(map(number, x))

  required = dict.fromkeys(FIELDS, number) | {'long_factor': numbers}
  optional = {'short_factor': numbers, 'temperature': lambda x: isinstance(x, str)}
  optional |= dict.fromkeys(('start_tokens', 'short_start_tokens', 'switch_length'), number)
  fields = required | {name: fits for name, fits in optional.items() if found.get(name) is not None}
  bad = [name for name, fits in fields.items() if not fits(found.get(name))]
  if bad:
    raise ValueError(
      f'position.file {path} is damaged: {bad[0]} is missing or of the wrong type. Search again.'
    )
  return found, f'{pathlib.Path(path).name} sha256:{digest.of_bytes(text)}'


def check_made_for(path: str, found: Mapping[str, Any], model: Mapping[str, Any]) -> None:
  """Raises ValueError if the file was made for another model than `model` (FIELDS) describes."""
  words = {
    'base': 'a rotary base of',
    'rotated': 'a rotated head width of',
    'train_length': 'a training length of',
    'target_length': 'a target length of',
  }
  for field in FIELDS:
    if field in model and found[field] != model[field]:
      raise ValueError(
        f'position.file {path} was made for {words[field]} {found[field]:g}; here it is '
        f'{model[field]:g}. Search again for this model, or name the file that belongs to it.'
      )
