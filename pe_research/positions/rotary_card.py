"""The part of a card about pairs of channels: what their frequencies mean at given lengths."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from pe_research.positions import facts, fixed_point

ERROR_SPAN = 256  # last positions at which angles are compared
ROUNDING = 1 + 1e-9  # an angle larger by no more than this factor counts as the same


def wavelengths(frequencies: np.ndarray) -> np.ndarray:
  """Tokens of one turn, float64 [F], for radians per token; inf for a pair that does not rotate."""
  with np.errstate(divide='ignore'):
    return fixed_point.TURN / frequencies


def angle_error(frequencies: np.ndarray, length: int) -> tuple[float, float]:
  """The largest error of angles at the last positions below `length`, against float64.

  Returns:
    Radians: of `fixed_point.angles`, and of a float32 product, which that replaces.
  """
  pos = np.arange(max(0, length - ERROR_SPAN), length, dtype=np.int32)
  exact = pos[:, None].astype(np.float64) * frequencies

  def error(angle):
    return float(np.abs(np.remainder(angle - exact + np.pi, fixed_point.TURN) - np.pi).max())

  fixed = fixed_point.angles(jnp.asarray(pos)[None], fixed_point.fixed_point(frequencies))
  single = pos[:, None].astype(np.float32) * frequencies.astype(np.float32)
  return error(np.asarray(fixed[0], np.float64)), error(single.astype(np.float64))


def describe(
  card: facts.Card,
  part: str,
  trained: np.ndarray,
  used: Mapping[str, np.ndarray],
  reach: tuple[int, int | None],
  *,
  by_length: bool,
) -> facts.Card:
  """Adds wavelengths, turns and interpolation of every pair to a card.

  Args:
    card: so far; its marks are the lengths.
    part: what a pair is called.
    trained: float64 [F], radians per token that the weights were trained with.
    used: the same at each of the marks.
    reach: training has distances below the first; a window limits all use to the second, if any.
    by_length: whether the frequencies depend on the length.
  """
  (distances, sees), longest = reach, max(card.marks, key=card.marks.get)
  pairs, moves, waves = len(trained), trained > 0, wavelengths(trained)
  of, turns = f'of {pairs}', trained * distances / fixed_point.TURN
  turning = int((turns >= 1).sum())
  found = [
    facts.Fact(f'{part}s', pairs),
    facts.Fact('pairs that complete a turn in training', turning, of),
    facts.Fact('pairs that never do', pairs - turning, of),
    facts.Fact('shortest wavelength in training', float(waves.min()), 'tokens'),
    facts.Fact('longest wavelength in training', float(waves[moves].max()), 'tokens'),
  ]
  if not moves.all():
    found.append(facts.Fact('pairs that stand still', int((~moves).sum()), of))
  for name, at in card.marks.items():
    if at > card.marks['training']:
      reached = used[name] * min(at, sees or at) / fixed_point.TURN
      new = int(((turns < 1) & (reached > turns * ROUNDING)).sum())
      found.append(facts.Fact(f'pairs that meet untrained angles at {at:,} tokens', new, of))
  last = min(card.marks[longest], fixed_point.MAX_POSITION)
  fixed, single = angle_error(used[longest], last)
  found += [
    facts.Fact(f'angle error at {last:,} tokens', fixed, 'radians'),
    facts.Fact('angle error of a float32 product', single, 'radians'),
  ]
  columns = _columns(card, trained, used, turns, by_length)
  return card.more(*found, part=part, columns=columns)


def _columns(
  card: facts.Card,
  trained: np.ndarray,
  used: Mapping[str, np.ndarray],
  turns: np.ndarray,
  by_length: bool,
) -> tuple[facts.Column, ...]:
  """The table; lengths with the same frequencies share their columns."""
  same: dict[bytes, list[str]] = {}
  for name, frequencies in used.items():
    if not np.array_equal(frequencies, trained):
      same.setdefault(frequencies.tobytes(), []).append(name)
  changed = {}
  for names in same.values():
    lengths = ', '.join(f'{card.marks[name]:,}' for name in names)
    changed[f'at {lengths} tokens' if by_length else 'stretched'] = used[names[0]]

  def column(quantity: str, unit: str, values: np.ndarray, at: str = '', drawn: bool = True):
    return facts.Column(quantity, unit, tuple(values.tolist()), at, drawn)

  # 0 / 0 is nan: a pair that never rotated is not interpolated; x / 0 is an infinite stretch.
  with np.errstate(invalid='ignore', divide='ignore'):
    stretch = {at: trained / frequencies for at, frequencies in changed.items()}
  return (
    column('wavelength', 'tokens', wavelengths(trained), 'trained'),
    *(column('wavelength', 'tokens', wavelengths(f), at) for at, f in changed.items()),
    column('turns in training', '', turns, drawn=False),
    *(column('interpolation', '×', values, at) for at, values in stretch.items()),
  )
