"""What a positional scheme means at given lengths: wavelengths, windows, buckets, warnings.

  python -m pe_research.card --position=yarn --factor=8 --length=128
  python -m pe_research.card --position=yarn --factor=8 --length=128 --preset=matched
  python -m pe_research.card --workdir=RUN --output=card.svg

Every argument of the scheme is a flag; --position=NAME --help lists them. The model has the sizes
of configs/lm.py unless flags say otherwise; with --workdir all is that of a saved run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.positions import facts
from pe_research.settings import configs
from pe_research.show.card_help import FAR


def card(config: Mapping[str, Any], longest: int | None = None) -> facts.Card:
  """The card of a config's scheme.

  Args:
    config: of which position, length and the model's width, heads and head_dim are read.
    longest: tokens; None is the target of the scheme, or FAR times the training length.

  Raises:
    ValueError: the scheme cannot be built so, or is not defined at the training length.
  """
  scheme, length = configs.scheme(config), config['length']
  scheme.check_length(length)
  if longest is None:
    marks = scheme.marks(length, length)
    longest = marks.get('target', FAR * marks['training'])
  return scheme.card(length, longest)


def described(position: Mapping[str, Any]) -> str:
  """The arguments of a position config on one line; long ones as how many numbers they are."""
  given = {k: v for k, v in position.items() if k != 'name' and v not in (None, '')}
  many = lambda v: isinstance(v, Sequence) and not isinstance(v, str) and len(v) > 4
  return ', '.join(f'{k}={f"({len(v)} numbers)" if many(v) else v}' for k, v in given.items())


def text(card: facts.Card) -> str:
  """The card for a terminal: warnings, facts, and a line for each part."""
  rows = [(f.name, facts.text(f.value), f.unit) for f in (*card.lengths(), *card.facts)]
  widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
  lines = [*(f'warning: {note}' for note in card.notes), *([''] if card.notes else [])]
  lines += [f'{n.ljust(widths[0])}  {v.rjust(widths[1])} {u}'.rstrip() for n, v, u in rows]
  return '\n'.join([*lines, *_table(card)])


def _table(card: facts.Card) -> list[str]:
  """Columns under heads of three lines: the quantity, its unit, which of several it is."""
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
