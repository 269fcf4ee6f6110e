"""Figures of a claim: the curves that were measured, and every effect with its interval."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker
import numpy as np

from experiments.report import axes as axes_lib
from experiments.studies import verdicts
from experiments.studies.ledger import Finding
from experiments.studies.terms import Claim
from pe_research import positions
from pe_research.evaluation import measures
from pe_research.show import drawing, palette

SIGNS = {verdicts.REPRODUCED: 'o', verdicts.REFUTED: 'X', verdicts.INCONCLUSIVE: 'D'}
COLORS = {verdicts.REPRODUCED: 3, verdicts.REFUTED: 4, verdicts.INCONCLUSIVE: 0}  # of the palette
WIDE, NARROW = 9.0, 3.7  # inches


class Curve(NamedTuple):
  """Of a model, over seeds."""

  lengths: list[int]
  mean: list[float]
  low: list[float]
  high: list[float]


def curves(finding: Finding) -> dict[str, Curve]:
  """Each model's exact answers in tasks, or loss on fixed targets, by length."""
  wanted = ('task', 'exact') if _tasks(finding) else ('fixed_targets', 'none')
  drawn = {}
  for name in finding.claim.models:
    values: dict[int, list[float]] = {}
    for seed in finding.seeds:
      for (protocol, control, length), row in finding.rows.get((name, seed), {}).items():
        if (protocol, control) == wanted and row['value'] is not None:
          values.setdefault(length, []).append(row['value'])
    if len(values) > 1:
      lengths = sorted(values)
      by_length = [values[n] for n in lengths]
      mean = [float(np.mean(v)) for v in by_length]
      drawn[name] = Curve(lengths, mean, [*map(min, by_length)], [*map(max, by_length)])
  return drawn


def _tasks(finding: Finding) -> bool:
  return any(model.task for model in finding.claim.models.values())


def label(claim: Claim, name: str, panel: bool = True) -> str:
  """Of a model; with its panel, or without as in a legend."""
  model = claim.models[name]
  text = model.label or positions.scheme(model.position.partition(':')[0]).label
  return f'{text}, {model.panel}' if panel and model.panel else text


def panels(finding: Finding) -> dict[str, list[str]]:
  """The models of each panel by its title; one without a title where no model names a panel."""
  drawn = {name: finding.claim.models[name].panel for name in curves(finding)}
  titles = dict.fromkeys(drawn.values())
  whole = [t for t in titles if not any(t in other and t != other for other in titles)]
  return {title: [name for name, own in drawn.items() if own in title] for title in whole}


def lines(finding: Finding, narrow: bool = False) -> matplotlib.figure.Figure | None:
  """Loss or exact answers against length, a line for each model; None without any curve."""
  drawn, by_model = panels(finding), curves(finding)
  if not drawn:
    return None
  looks = _looks(finding, [name for own in drawn.values() for name in own])
  columns = 1 if narrow or len(drawn) == 1 else 2
  rows, legend_columns = math.ceil(len(drawn) / columns), 1 if narrow else 3
  width, below = NARROW if narrow else WIDE, 0.25 + 0.19 * math.ceil(len(looks) / legend_columns)
  height = (2.3 if len(drawn) > 1 else 2.9) * rows + below
  with drawing.defaults():
    figure = matplotlib.figure.Figure(figsize=(width, height))
    grid = figure.subplots(
      rows, columns, squeeze=False, sharex=True, sharey=True,
      gridspec_kw={
        'left': 0.74 / width, 'right': 1 - 0.14 / width, 'top': 1 - 0.28 / height,
        'bottom': (below + 0.42) / height, 'hspace': 0.2, 'wspace': 0.06,
      },
    )  # fmt: skip
    for axes, (title, models) in zip(grid.flat, drawn.items(), strict=False):
      own = {label(finding.claim, name, False): by_model[name] for name in models}
      _panel(axes, own, looks, (width - 0.8) / columns)
      axes.set_title(title, fontsize=9.5, loc='left', pad=3)
    for empty in range(len(drawn), rows * columns):
      grid.flat[empty].set_visible(False)
      grid.flat[empty - columns].tick_params(labelbottom=True)
    y_label, x_label = 'validation loss (nats/token)', 'evaluation length (tokens)'
    if _tasks(finding):
      y_label, x_label = 'exact answers (share)', 'size of the task'
    middle = (below + height) / 2 / height
    figure.text(0.08 / width, middle, y_label, rotation=90, va='center')
    figure.text(0.5, (below + 0.04) / height, x_label, ha='center')
    handles = [matplotlib.lines.Line2D([], [], label=text, **look) for text, look in looks.items()]
    axes_lib.legend_below(figure, legend_columns, handles=handles, labelspacing=0.3)
  return figure


def scales(finding: Finding, narrow: bool = False) -> matplotlib.figure.Figure | None:
  """Loss above its lowest against the factor on queries and keys; None where none was measured."""
  drawn: dict[str, dict[float, list[float]]] = {}
  for (name, _), rows in finding.rows.items():
    for (_, control, length), row in rows.items():
      scale = measures.option(control, 'scale')
      if scale and row['value'] is not None:
        line = drawn.setdefault(f'{label(finding.claim, name)}, at {length}', {})
        line.setdefault(float(scale) ** 0.5, []).append(row['value'])
  if not drawn:
    return None
  columns = 1 if narrow else 2
  width, below = NARROW if narrow else WIDE, 0.72 + 0.19 * math.ceil(len(drawn) / columns)
  height = 2.6 + below
  with drawing.defaults():
    figure = matplotlib.figure.Figure(figsize=(width, height))
    axes = figure.add_axes(
      (0.8 / width, below / height, 1 - 0.94 / width, 1 - (below + 0.15) / height)
    )
    for i, (name, values) in enumerate(drawn.items()):
      x = sorted(values)
      y = np.array([np.mean(values[at]) for at in x])
      axes.plot(x, y - y.min(), label=name, **axes_lib.look(i))
    axes.set_ylim(bottom=0)
    axes.set_xlabel('factor on queries and keys')
    axes.set_ylabel('above the lowest (nats/token)')
    axes_lib.bare(axes)
    axes_lib.legend_below(figure, columns, labelspacing=0.3)
  return figure


def _looks(finding: Finding, names: Sequence[str]) -> dict[str, dict[str, object]]:
  """The look of each label: the colour of its scheme, other marks for further models of one."""
  places, taken = list(positions.SCHEMES), {}
  for name in names:
    scheme = finding.claim.models[name].position.partition(':')[0]
    index, text = places.index(scheme), label(finding.claim, name, False)
    while taken.get(index, text) != text:
      index += len(palette.PALETTE)
    taken[index] = text
  return {text: axes_lib.look(index) for index, text in taken.items()}


def _tick_labels(ticks: Sequence[int], wide: float) -> list[str]:
  """Labels of ticks on a log axis `wide` inches wide; '' where one would touch its neighbour."""
  inches = wide / max(math.log2(ticks[-1] / ticks[0]), 1e-9)  # of a doubling
  labels, last = [], None
  for n in ticks:
    fits = last is None or math.log2(n / last) * inches > 0.1 + 0.085 * len(str(n))
    labels.append(str(n) if fits else '')
    last = n if fits else last
  return labels


def _panel(axes, drawn: dict[str, Curve], looks, wide: float) -> None:
  for name, curve in drawn.items():
    axes.plot(curve.lengths, curve.mean, **looks[name])
    axes_lib.band(axes, curve.lengths, curve.low, curve.high, looks[name]['color'])
  ticks = sorted({n for curve in drawn.values() for n in curve.lengths})
  axes_lib.log_lengths(axes, ticks, _tick_labels(ticks, wide))
  axes.tick_params(axis='x', labelsize=9)
  axes_lib.bare(axes)


def effects(finding: Finding, narrow: bool = False) -> matplotlib.figure.Figure | None:
  """Every effect with its 95 % interval; shaded: where the claim has it; dotted: zero.

  Each row has its own scale, since effects of one claim can differ by orders of magnitude.
  """
  drawn = [outcome for outcome in finding.outcomes if outcome.estimate is not None]
  if not drawn:
    return None
  with drawing.defaults():
    height = 0.3 + 0.5 * len(drawn)
    figure = matplotlib.figure.Figure(figsize=(NARROW if narrow else WIDE, height))
    for i, outcome in enumerate(drawn):
      test, estimate = outcome.test, outcome.estimate
      left = 0.04 if narrow else 0.5
      axes = figure.add_axes(
        (left, 1 - (0.15 + 0.5 * (i + 1) - 0.14) / height, 0.97 - left, 0.16 / height)
      )
      bounds = [b for b in (test.above, test.below) if b is not None] + [0.0] * (not test.amount)
      low, high = min(*estimate.interval, *bounds), max(*estimate.interval, *bounds)
      margin = 0.12 * (high - low or 1.0)
      axes.set_xlim(low - margin, high + margin)
      claimed = [
        low - margin if test.above is None else test.above,
        high + margin if test.below is None else test.below,
      ]
      axes.axvspan(*claimed, color=palette.INK, alpha=0.12, linewidth=0)
      if not test.amount:
        axes.axvline(0, color=palette.INK, linewidth=0.8, linestyle=':')
      color = palette.PALETTE[COLORS[outcome.verdict]][0]
      axes.plot(estimate.interval, [0, 0], color=color, linewidth=2.4, solid_capstyle='butt')
      axes.plot([estimate.value], [0], marker=SIGNS[outcome.verdict], color=color, markersize=6)
      axes.set_ylim(-1, 1)
      axes.set_yticks([])
      axes.spines[['top', 'right', 'left']].set_visible(False)
      axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4 if narrow else 6))
      axes.tick_params(labelsize=7, pad=1)
      named = f'{test.variant}: {test.says}' if test.variant else test.says
      if narrow:
        axes.text(0, 1.25, named, transform=axes.transAxes, fontsize=7, va='bottom')
      else:
        place = (0.02, 1 - (0.15 + 0.5 * (i + 1) - 0.22) / height)
        figure.text(*place, named, fontsize=8.5, va='center')
  return figure
