"""Scheme cards: what each scheme means at the lengths of a report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from experiments.report import render
from experiments.report.numbers import joined
from experiments.report.render import Cell, Table
from experiments.report.summary import Scheme
from pe_research.positions import facts
from pe_research.show import card_figure, card_text


@dataclasses.dataclass(frozen=True)
class Panel:
  """A drawing of one quantity, with its text for screen readers."""

  svg: markupsafe.Markup
  alternative: str


@dataclasses.dataclass(frozen=True)
class Panels:
  """A drawing for each quantity of a card, all of one size."""

  drawings: Sequence[Panel]
  caption: str


@dataclasses.dataclass(frozen=True)
class View:
  """A card as pages show it.

  Attributes:
    label: of the scheme.
    error: why there is no card; the rest is then empty.
    about: paper and arguments.
    notes: warnings.
    facts: names and values with units.
    panels: None where the card has no parts.
    table: a row for each part; None where it has none.
  """

  label: str
  error: str = ''
  about: str = ''
  notes: Sequence[str] = ()
  facts: Sequence[tuple[str, str]] = ()
  panels: Panels | None = None
  table: Table | None = None


def of_scheme(scheme: Scheme, longest: int, index: int) -> View:
  """The card of a scheme of a report.

  Args:
    scheme: its first run has the config.
    longest: tokens, the longest evaluation length.
    index: makes ids of the drawings unique in the page.
  """
  config = scheme.runs[0].config
  try:
    card = card_text.card(config, max(longest, config['length']))
  except ValueError as error:  # a config that this code cannot build is still a line of the report
    return View(scheme.label, f'{scheme.label} has no card: {error}')
  return view(card, scheme.label, config['position'], index)


def view(card: facts.Card, label: str, position: Mapping[str, Any], index: int = 0) -> View:
  """A card as pages show it; `position` is the config, `index` as in `of_scheme`."""
  return View(
    label=label,
    about='. '.join(filter(None, [card.paper, card_text.described(position)])),
    notes=card.notes,
    facts=[
      (fact.name, f'{facts.text(fact.value)} {fact.unit}'.strip())
      for fact in (*card.lengths(), *card.facts)
    ],
    panels=_panels(card, label, index),
    table=_table(card, label),
  )


def _panels(card: facts.Card, label: str, index: int) -> Panels | None:
  groups = card_figure.panels(card)
  if not groups:
    return None
  quantities = [columns[0].name for columns in groups]
  drawings = [
    Panel(
      render.svg(card_figure.panel(card, columns), f'card{index}-{i}'),
      f'{label}: {name} of each {card.part}, the numbers of the table below.',
    )
    for i, (columns, name) in enumerate(zip(groups, quantities, strict=True))
  ]
  drawn = [column for columns in groups for column in columns]
  caption = [f'{joined(quantities).capitalize()} of each {card.part}']
  if any(column.unit == 'tokens' for column in drawn):
    caption.append('shaded: longer than the training length')
  if any(float('inf') in column.values for column in drawn):
    caption.append('a triangle at the upper edge has no end')
  return Panels(drawings, f'{"; ".join(caption)}.')


def _table(card: facts.Card, label: str) -> Table | None:
  if not card.part:
    return None
  heads = [
    Cell(column.quantity, note=', '.join(filter(None, [column.unit, column.at])))
    for column in card.columns
  ]
  parts = zip(*(column.values for column in card.columns), strict=True)
  rows = [[str(part), *map(facts.text, values)] for part, values in enumerate(parts)]
  return Table(f'{label} by {card.part}.', [card.part.capitalize(), *heads], rows, 'parts')
