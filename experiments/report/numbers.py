"""How reports write numbers: one place for decimals, signs and intervals."""

import math
import statistics
from collections.abc import Iterable


def minus(text: str) -> str:
  """With true minus signs for hyphens."""
  return text.replace('-', '−')


def number(value: float, signed: bool = False) -> str:
  """Three decimals, no sign on a zero; 'not finite' for infinities and NaN."""
  if not math.isfinite(value):
    return 'not finite'
  text = f'{value:{"+" if signed else ""}.3f}'
  return minus(text.lstrip('+-') if float(text) == 0 else text)


def deviation(values: list[float]) -> str:
  """The standard deviation of several values, '± 0.012'; '' of one."""
  return f'± {number(statistics.stdev(values))}' if len(values) > 1 else ''


def joined(words: Iterable[str]) -> str:
  """'a, b and c'."""
  words = list(words)
  return ' and '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)


def estimate(value: float, interval: tuple[float, float]) -> str:
  """'+0.512 [+0.498, +0.526]', with the decimals that the width of the interval needs."""
  return minus(f'{value:+.{_decimals(interval)}f} {span(interval)}')


def span(interval: tuple[float, float]) -> str:
  """'[+0.498, +0.526]', with the decimals that its width needs."""
  low, high = (f'{end:+.{_decimals(interval)}f}' for end in interval)
  return minus(f'[{low}, {high}]')


def _decimals(interval: tuple[float, float]) -> int:
  width = interval[1] - interval[0]
  return min(max(3, 1 + math.ceil(-math.log10(width))), 6) if 0 < width < math.inf else 3
