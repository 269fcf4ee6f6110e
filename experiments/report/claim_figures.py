"""Figures of a claim: the curves that were measured, and every effect with its interval."""

import math

import matplotlib.figure
import numpy as np

from experiments import verdicts
from experiments.ledger import Finding
from experiments.report import figures

MOST = 12  # lines that a figure can keep apart
SIGNS = {verdicts.REPRODUCED: 'o', verdicts.REFUTED: 'X', verdicts.INCONCLUSIVE: 'D'}
COLORS = {verdicts.REPRODUCED: 3, verdicts.REFUTED: 4, verdicts.INCONCLUSIVE: 0}  # of the palette
Curve = tuple[list[int], list[float], list[float], list[float]]  # lengths, mean, lowest, highest


def curves(finding: Finding) -> dict[str, Curve]:
  """Model -> its curve over lengths, of what the claim measures most plainly."""
  tasks = any(model.task for model in finding.claim.models.values())
  wanted = ('task', 'exact') if tasks else ('fixed_targets', 'none')
  found = {}
  for name in finding.claim.models:
    values: dict[int, list[float]] = {}
    for seed in finding.seeds:
      for (protocol, control, length), row in finding.rows.get((name, seed), {}).items():
        if (protocol, control) == wanted and row['value'] is not None:
          values.setdefault(length, []).append(row['value'])
    lengths = sorted(values)
    if len(lengths) > 1:
      found[name] = (
        lengths,
        *([f(values[n]) for n in lengths] for f in (lambda v: float(np.mean(v)), min, max)),
      )
  return found


def label(finding: Finding, name: str) -> str:
  """Of a model."""
  return finding.claim.models[name].label or name


def lines(finding: Finding, narrow: bool = False) -> matplotlib.figure.Figure | None:
  """Loss, or exact answers, against length: a line a model; None where there is no curve."""
  drawn = dict(list(curves(finding).items())[:MOST])
  if not drawn:
    return None
  tasks = any(model.task for model in finding.claim.models.values())
  with figures.defaults():
    width, rows = (3.7, len(drawn)) if narrow else (9.0, math.ceil(len(drawn) / 2))
    below = 0.62 + 0.18 * rows
    height = (2.7 if narrow else 3.4) + below
    figure = matplotlib.figure.Figure(figsize=(width, height))
    axes = figure.add_axes(
      (0.66 / width, below / height, 1 - 0.86 / width, 1 - (below + 0.2) / height)
    )
    for i, (name, (lengths, mean, low, high)) in enumerate(drawn.items()):
      look = figures.look(i)
      axes.plot(lengths, mean, label=label(finding, name), **look)
      axes.fill_between(lengths, low, high, color=look['color'], alpha=0.13, linewidth=0)
    axes.set_xscale('log', base=2)
    ticks = sorted({n for lengths, *_ in drawn.values() for n in lengths})
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.tick_params(axis='x', rotation=45 if narrow and len(ticks) > 5 else 0)
    axes.set_xlabel('size of the task' if tasks else 'evaluation length (tokens)')
    axes.set_ylabel('exact answers (share)' if tasks else 'validation loss (nats/token)')
    axes.grid(axis='y', color=figures.INK, alpha=0.13, linewidth=0.6)
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='lower left', bbox_to_anchor=(0.01, 0), ncols=1 if narrow else 2, fontsize=9,
                  frameon=False, labelspacing=0.3, borderaxespad=0.1, handlelength=2.6)  # fmt: skip
  return figure


def effects(finding: Finding, narrow: bool = False) -> matplotlib.figure.Figure | None:
  """Every effect with its 95 % interval, over where the claim has it (shaded) and zero.

  Each row is scaled to itself, since effects of one claim can differ by orders of magnitude.
  """
  drawn = [outcome for outcome in finding.outcomes if outcome.estimate is not None]
  if not drawn:
    return None
  with figures.defaults():
    width = 3.7 if narrow else 9.0
    height = 0.3 + 0.5 * len(drawn)
    figure = matplotlib.figure.Figure(figsize=(width, height))
    for i, outcome in enumerate(drawn):
      test, found = outcome.test, outcome.estimate
      left = 0.04 if narrow else 0.5
      axes = figure.add_axes(
        (left, 1 - (0.15 + 0.5 * (i + 1) - 0.14) / height, 0.97 - left, 0.16 / height)
      )
      marks = [m for m in (test.above, test.below, 0.0) if m is not None]
      low, high = min(*found.interval, *marks), max(*found.interval, *marks)
      margin = 0.12 * (high - low or 1.0)
      axes.set_xlim(low - margin, high + margin)
      claimed = [
        low - margin if test.above is None else test.above,
        high + margin if test.below is None else test.below,
      ]
      axes.axvspan(*claimed, color=figures.INK, alpha=0.12, linewidth=0)
      axes.axvline(0, color=figures.INK, linewidth=0.8, linestyle=':')
      color = figures.PALETTE[COLORS[outcome.verdict]][0]
      axes.plot(found.interval, [0, 0], color=color, linewidth=2.4, solid_capstyle='butt')
      axes.plot([found.value], [0], marker=SIGNS[outcome.verdict], color=color, markersize=6)
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
