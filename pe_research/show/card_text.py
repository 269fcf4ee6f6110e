"""Scheme cards, and their text for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.positions import facts
from pe_research.positions.base import PositionScheme
from pe_research.show.card_help import FAR


def card(scheme: PositionScheme, length: int, longest: int | None = None) -> facts.Card:
  """The card of a scheme.

  Args:
    scheme: built for the model.
    length: training length, tokens.
    longest: tokens; None is the target of the scheme, or FAR times the training length.

  Raises:
    ValueError: the scheme is not defined at the training length.
  """
  scheme.check_length(length)
  if longest is None:
    marks = scheme.marks(length, length)
    longest = marks.get('target', FAR * marks['training'])
  return scheme.card(length, longest)


def described(position: Mapping[str, Any]) -> str:
  """The arguments of a position config on one line; of long lists only how many numbers."""
  items = []
  for name, value in position.items():
    if name != 'name' and value not in (None, ''):
      if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 4:
        value = f'({len(value)} numbers)'
      items.append(f'{name}={value}')
  return ', '.join(items)


def text(card: facts.Card) -> str:
  """The card for a terminal: warnings, facts, and a line for each part."""
  rows = [(f.name, facts.text(f.value), f.unit) for f in (*card.lengths(), *card.facts)]
  widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
  lines = [*(f'warning: {note}' for note in card.notes), *([''] if card.notes else [])]
  lines += [f'{n.ljust(widths[0])}  {v.rjust(widths[1])} {u}'.rstrip() for n, v, u in rows]
  return '\n'.join([*lines, *_table(card)])


def _table(card: facts.Card) -> list[str]:
  """Columns under headings of three lines: quantity, unit, `at`."""
  if not card.part:
    return []
  columns = [['', '', card.part, *map(str, range(len(card.columns[0].values)))]]
  for column in card.columns:
    unit = f'({column.unit})' if column.unit else ''
    columns.append([column.quantity, unit, column.at, *map(facts.text, column.values)])
  widths = [max(map(len, column)) for column in columns]
  rows = zip(*columns, strict=True)
  cells = ([c.rjust(w) for c, w in zip(row, widths, strict=True)] for row in rows)
  return ['', *('  '.join(row).rstrip() for row in cells)]
