"""The card of a scheme at given lengths, as plain data: facts, and a table of its parts."""

import dataclasses
import math
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Fact:
  """One number, or a word, with its unit.

  Attributes:
    name: unique on a card.
    value: the number or word.
    unit: 'tokens', 'radians', 'of 64', ...
  """

  name: str
  value: float | int | str
  unit: str = ''


@dataclasses.dataclass(frozen=True)
class Column:
  """One quantity of every part: of each rotary pair, each head, each bucket.

  Attributes:
    quantity: 'wavelength', ...; columns of one quantity are drawn on one axis.
    unit: 'tokens', 'turns', ...
    values: one for each part; inf without a limit, nan where it does not apply.
    at: tells columns of one quantity apart; '' where there is one.
    drawn: whether figures show it.
  """

  quantity: str
  unit: str
  values: tuple[float, ...]
  at: str = ''
  drawn: bool = True

  @property
  def name(self) -> str:
    """The quantity and its unit: 'wavelength (tokens)'."""
    return f'{self.quantity} ({self.unit})' if self.unit else self.quantity


@dataclasses.dataclass(frozen=True)
class Card:
  """What a scheme means for a model that is trained at one length and used at another.

  Attributes:
    label: of the scheme.
    paper: its source.
    marks: lengths (tokens) by name that the card has values at; 'training' is one.
    facts: about the scheme as a whole.
    notes: warnings about settings that do not suit these lengths, with ones that do.
    part: what a row of the table is, 'rotary pair'; '' where there is no table.
    columns: of that table.
  """

  label: str
  paper: str
  marks: Mapping[str, int]
  facts: tuple[Fact, ...] = ()
  notes: tuple[str, ...] = ()
  part: str = ''
  columns: tuple[Column, ...] = ()

  def more(self, *facts: Fact, part: str = '', columns: tuple[Column, ...] = ()) -> 'Card':
    """The card with more facts, and more columns of the same parts."""
    return dataclasses.replace(
      self, facts=self.facts + facts, part=part or self.part, columns=self.columns + columns
    )

  def lengths(self) -> tuple[Fact, ...]:
    """The marks as facts."""
    return tuple(Fact(f'{name} length', n, 'tokens') for name, n in self.marks.items())

  def fact(self, name: str) -> float | int | str:
    """The value of the fact called `name`; KeyError if there is none."""
    return {fact.name: fact.value for fact in self.facts}[name]

  def column(self, quantity: str, at: str = '') -> tuple[float, ...]:
    """The values of a quantity; KeyError if there are none."""
    return {(column.quantity, column.at): column.values for column in self.columns}[quantity, at]


def text(value: float | int | str) -> str:
  """A value as text: four digits, commas between thousands; a dash for nan."""
  if isinstance(value, str):
    return value
  if not math.isfinite(value):
    return '–' if math.isnan(value) else '∞'
  if isinstance(value, int) or abs(value) >= 1000:
    return f'{value:,.0f}'
  return f'{value:.4g}'.replace('-', '−') if value < 0 else f'{value:.4g}'
