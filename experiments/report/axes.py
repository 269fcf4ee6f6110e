"""What all figures of reports share: looks of lines, axes over lengths, bands and legends."""

from collections.abc import Sequence
from typing import Any

import matplotlib.ticker

from pe_research.show.palette import INK, PALETTE

MARKERS = 'osD^vXP<>'
DASHES = ((), (5, 1.6), (1.2, 1.4), (6, 1.6, 1.2, 1.6), (9, 2))


def look(index: int) -> dict[str, Any]:
  """Colour, marker and dashes of a line; no two of the first 360 share all three."""
  dashes = DASHES[index % len(DASHES)]
  return {
    'color': PALETTE[index % len(PALETTE)][0],
    'marker': MARKERS[index % len(MARKERS)],
    'linestyle': (0, dashes) if dashes else '-',
    'linewidth': 1.8,
    'markersize': 5.5,
    'markeredgewidth': 0,
  }


def bare(axes) -> None:
  """Faint horizontal lines, and spines at the left and the bottom only."""
  axes.grid(axis='y', color=INK, alpha=0.13, linewidth=0.6)
  axes.spines[['top', 'right']].set_visible(False)


def log_lengths(axes, ticks: Sequence[int], labels: Sequence[str]) -> None:
  """A log2 axis of lengths with these ticks; '' leaves a tick without a label."""
  axes.set_xscale('log', base=2)
  axes.xaxis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
  axes.xaxis.set_major_formatter(matplotlib.ticker.FixedFormatter(labels))
  axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def band(axes, x: Sequence[float], low: Sequence[float], high: Sequence[float], color: str):
  """Shades from the lowest to the highest value; returns the patch."""
  return axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)


def legend_below(figure, columns: int, **options: Any) -> None:
  """A legend at the lower left of the figure; options are matplotlib's."""
  figure.legend(
    loc='lower left', bbox_to_anchor=(0.01, 0), ncols=columns, frameon=False, fontsize=9,
    handlelength=2.6, borderaxespad=0.1, **options,
  )  # fmt: skip
