"""Drawings of a scheme card: a marker for every part of the scheme, a panel for every quantity."""

import math
import re
from collections.abc import Sequence

import matplotlib.axes
import matplotlib.figure
import matplotlib.ticker
import numpy as np

from pe_research.positions import facts
from pe_research.show import drawing, palette

WIDTH = 3.7  # inches of a panel, for the width of a phone
LEFT, BOTTOM, INNER = 0.9, 0.5, 2.0  # inches, around the axes and their height
ROW, TITLE = 0.2, 0.35  # inches, of a legend and of a title
MARKERS = 'os^Dv'
COLORS = [palette.PALETTE[i][0] for i in (5, 4, 3, 6)]
REFERENCE = palette.PALETTE[0][0]  # grey, for the first of several columns
SMALL = 8.5  # points


def panels(card: facts.Card) -> list[list[facts.Column]]:
  """The columns to draw, grouped by quantity."""
  by_name: dict[str, list[facts.Column]] = {}
  for column in card.columns:
    if column.drawn:
      by_name.setdefault(column.name, []).append(column)
  return list(by_name.values())


def looks(card: facts.Card) -> dict[str, dict[str, object]]:
  """Colour and marker for each value of `Column.at`, which tells equal quantities apart."""
  kinds = list(dict.fromkeys(column.at for column in card.columns if column.drawn))
  several = len(kinds) > 1
  colors = [*([REFERENCE] if several else []), *COLORS]
  small = len(card.columns[0].values) > 40 if card.columns else False
  return {
    kind: {
      'color': colors[i % len(colors)],
      'marker': MARKERS[i % len(MARKERS)],
      'markersize': 3.5 if small else 5,
      'markeredgewidth': 0,
      'linestyle': '',
    }
    for i, kind in enumerate(kinds)
  }


def panel(card: facts.Card, columns: Sequence[facts.Column]) -> matplotlib.figure.Figure:
  """One quantity of every part."""
  with drawing.defaults():
    figure = matplotlib.figure.Figure(figsize=(WIDTH, _height(columns)))
    _panel(figure, card, columns, 0)
  return figure


def figure(card: facts.Card) -> matplotlib.figure.Figure:
  """All panels of a card side by side under a title; it must have at least one."""
  with drawing.defaults():
    groups = panels(card)
    width, height = WIDTH * len(groups), max(map(_height, groups)) + TITLE
    whole = matplotlib.figure.Figure(figsize=(width, height))
    lengths = ', '.join(f'{name} {n:,}' for name, n in card.marks.items())
    whole.text(0.1 / width, 1 - 0.24 / height, f'{card.label}: {lengths} tokens')
    for i, columns in enumerate(groups):
      _panel(whole, card, columns, i * WIDTH)
  return whole


def file_bytes(card: facts.Card, suffix: str) -> bytes:
  """The contents of an '.svg' or '.png' file."""
  whole = figure(card)
  return drawing.svg(whole, 'card').encode() if suffix == '.svg' else drawing.png(whole)


def _fit(columns: Sequence[facts.Column]) -> int:
  """Entries of the legend that fit into a row."""
  each = 0.4 + 0.066 * max(len(column.at) for column in columns)
  return max(1, int((WIDTH - LEFT) / each))


def _height(columns: Sequence[facts.Column]) -> float:
  """Inches of the axis label, the axes and, for several columns, the legend."""
  rows = math.ceil(len(columns) / _fit(columns)) if len(columns) > 1 else 0
  return BOTTOM + INNER + 0.12 + ROW * rows


def _panel(figure, card: facts.Card, columns: Sequence[facts.Column], left: float) -> None:
  """Draws `columns` in a panel, `left` inches from the left edge."""
  width, height = figure.get_size_inches()
  names = [f'{name} {n:,}' for name, n in card.marks.items()] if _in_tokens(columns) else []
  right = 0.2 + 0.066 * max(map(len, names), default=0)
  inner = WIDTH - LEFT - right
  box = (left + LEFT) / width, BOTTOM / height, inner / width, INNER / height
  axes = figure.add_axes(box)
  _scale(axes, card, columns)
  _levels(axes, card, names)
  kinds = looks(card)
  for column in columns:
    _marks(axes, column, kinds[column.at])
  if len(columns) > 1:
    axes.legend(
      loc='lower left', bbox_to_anchor=(-0.02, 1), ncols=_fit(columns), frameon=False,
      fontsize=SMALL, handletextpad=0.1, columnspacing=0.8, labelspacing=0.3, borderaxespad=0.2,
      borderpad=0, handlelength=1.4,
    )  # fmt: skip


def _in_tokens(columns: Sequence[facts.Column]) -> bool:
  return columns[0].unit == 'tokens'


def _marks(axes: matplotlib.axes.Axes, column: facts.Column, look: dict[str, object]) -> None:
  """A marker for each part; inf is drawn at the upper edge, NaN is left out."""
  values, parts = np.asarray(column.values), np.arange(len(column.values))
  gid = '-'.join(re.findall(r'\w+', f'marks {column.quantity} {column.at}'))
  ends, endless = np.isfinite(values), np.isposinf(values)
  free = {'clip_on': False, 'zorder': 3}
  axes.plot(parts[ends], values[ends], gid=gid, label=column.at, **free, **look)
  if endless.any():
    edge = np.full(endless.sum(), axes.get_ylim()[1])
    axes.plot(parts[endless], edge, gid=f'{gid}-endless', **free, **look | {'marker': '^'})


def _scale(axes: matplotlib.axes.Axes, card: facts.Card, columns: Sequence[facts.Column]) -> None:
  """A logarithmic axis, with 0 if there is one, over all values and the card's lengths."""
  values = [v for column in columns for v in column.values if math.isfinite(v)]
  values += card.marks.values() if _in_tokens(columns) else [1]
  positive = [v for v in values if v > 0]
  low, high = min(positive), max(positive)
  margin = max((high / low) ** 0.05, 1.1)
  if min(values) <= 0:
    axes.set_yscale('symlog', linthresh=low, linscale=0.4)
    axes.set_ylim(-0.2 * low, high * margin)
  else:
    axes.set_yscale('log')
    axes.set_ylim(low / margin, high * margin)
  ticks = _ticks(*axes.get_ylim(), 10 if _in_tokens(columns) else 2)
  axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
  axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
  axes.yaxis.set_major_formatter(matplotlib.ticker.FixedFormatter([_short(t) for t in ticks]))
  axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
  parts = len(columns[0].values)
  axes.set_xlim(-0.04 * parts, parts - 1 + 0.04 * parts)
  axes.tick_params(labelsize=9)
  axes.set_xlabel(f'{card.part} (index)')
  axes.set_ylabel(columns[0].name)
  axes.grid(axis='y', color=palette.INK, alpha=0.13, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.spines[['top', 'right']].set_visible(False)


def _ticks(low: float, high: float, base: int) -> list[float]:
  """0 if in range, and powers of the base, subdivided or thinned to 3 to 7 ticks."""
  zero, low = ([0.0], 0.9) if low <= 0 else ([], low)
  exponents = range(math.floor(math.log(low, base)), math.ceil(math.log(high, base)) + 1)
  for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.2, 1.5, 2, 3, 5, 7)):
    ticks = [step * float(base) ** e for e in exponents for step in steps if step < base]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) >= 3:
      break
  return zero + ticks[:: math.ceil(len(ticks) / 7)]


def _short(tick: float) -> str:
  return f'{tick / 1e6:g}M' if tick >= 1e6 else facts.text(tick)


def _levels(axes: matplotlib.axes.Axes, card: facts.Card, names: Sequence[str]) -> None:
  """Named lines at the card's lengths; beyond the training length the panel is shaded."""
  if not names:
    return
  lengths = list(card.marks.values())
  axes.axhspan(
    card.marks['training'], axes.get_ylim()[1], color=palette.INK, alpha=0.06, linewidth=0,
    gid='past-training',
  )  # fmt: skip
  place = axes.transScale + axes.transLimits
  exact = [place.transform((0, n))[1] for n in lengths]
  heights = drawing.apart(exact, 11.5 / 72 / INNER)
  for n, name, y, height in zip(lengths, names, exact, heights, strict=True):
    axes.axhline(n, color=palette.INK, linewidth=0.9, linestyle=(0, (4, 3)), gid=f'level-{n}')
    free = {'transform': axes.transAxes, 'clip_on': False}
    axes.plot([1, 1.03], [y, height], color=palette.INK, linewidth=0.7, **free)
    axes.text(1.04, height, name, va='center', fontsize=SMALL, **free)
