"""Scheme cards: what each scheme means at the lengths of a report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe

from experiments.report import render
from experiments.report.render import Cell, Table
from experiments.report.summary import Scheme
from pe_research.positions import facts
from pe_research.settings import configs
from pe_research.show import card_figure, card_text


@dataclasses.dataclass(frozen=True)
class View:
  """A card as pages show it.

  Attributes:
    label: of the scheme.
    error: why there is no card; the rest is then empty.
    about: paper and arguments.
    notes: warnings.
    facts: names and values with units.
    part: that the drawings and the table have a mark and a row for; '' where there is none.
    drawings: SVG by quantity, all of one size.
    past_training: whether the drawings shade what is longer than the training length.
    endless: whether a value is infinite.
    table: a row for each part; None without parts.
  """

  label: str
  error: str = ''
  about: str = ''
  notes: Sequence[str] = ()
  facts: Sequence[tuple[str, str]] = ()
  part: str = ''
  drawings: Mapping[str, markupsafe.Markup] = dataclasses.field(default_factory=dict)
  past_training: bool = False
  endless: bool = False
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
    card = card_text.card(configs.scheme(config), config['length'], max(longest, config['length']))
  except ValueError as error:  # a config that this code cannot build is still a line of the report
    return View(scheme.label, f'{scheme.label} has no card: {error}')
  return view(card, scheme.label, config['position'], index)


def view(card: facts.Card, label: str, position: Mapping[str, Any], index: int = 0) -> View:
  """A card as pages show it; `position` is the config, `index` as in `of_scheme`."""
  groups = card_figure.panels(card)
  columns = [column for group in groups for column in group]
  return View(
    label=label,
    about='. '.join(filter(None, [card.paper, card_text.described(position)])),
    notes=card.notes,
    facts=[
      (fact.name, f'{facts.text(fact.value)} {fact.unit}'.strip())
      for fact in (*card.lengths(), *card.facts)
    ],
    part=card.part,
    drawings={
      group[0].name: render.svg(card_figure.panel(card, group), f'card{index}-{i}')
      for i, group in enumerate(groups)
    },
    past_training=any(column.unit == 'tokens' for column in columns),
    endless=any(math.inf in column.values for column in columns),
    table=_table(card, label),
  )


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
