"""Figures of a section of results, as matplotlib figures."""

import dataclasses
import math

import matplotlib.figure
import matplotlib.lines
import matplotlib.ticker
import numpy as np

from experiments.report import axes as axes_lib
from experiments.report.summary import Scheme, Section
from pe_research.show.drawing import apart, defaults
from pe_research.show.palette import INK

UNIFORM = 8.0  # bits/byte of a uniform guess
CEILING = 8.6  # bits/byte; lines leave the figure above it
SHARE = 0.68  # of the height, for what lies below the knee


def style(scheme: Scheme) -> dict[str, object]:
  """The look of a scheme, by its place in the registry."""
  return axes_lib.look(scheme.style)


@dataclasses.dataclass(frozen=True)
class Limits:
  """The vertical axis, bits/byte.

  Attributes:
    low: its lower end.
    top: its upper end; higher values are outside the figure.
    knee: above it the axis is compressed; None: nowhere.
  """

  low: float
  top: float
  knee: float | None


def limits(section: Section) -> Limits:
  """An axis that separates lines that differ little, even where others rise far above them."""
  values = [v for s in section.schemes for n in section.lengths for v in section.values(s, n)]
  values = [v for v in values if math.isfinite(v)] or [0.0, UNIFORM]
  first = [section.mean(s, section.reference(s)) for s in section.schemes]
  low, high = min(values), max(values)
  usual = max((v for v in first if v is not None and math.isfinite(v)), default=high)
  knee = usual + max(0.6 * (usual - low), 0.2)
  top = CEILING if high > 0.95 * UNIFORM else high + 0.05 * max(high - low, 0.1)
  if top - knee < knee - low:
    return Limits(low - 0.05 * (top - low), top, None)
  decimals = -math.floor(math.log10(knee - low))
  knee = math.ceil(knee * 10**decimals) / 10**decimals
  return Limits(low - 0.06 * (knee - low), top, knee)


def loss_by_length(section: Section, narrow: bool = False) -> matplotlib.figure.Figure:
  """Bits/byte against evaluation length, one line per scheme; `narrow` is for a phone's width.

  Lines are means over seeds, bands reach from the lowest seed to the highest. A line ends where
  its scheme has no value.
  """
  with defaults():
    drawn = [s for s in section.schemes if section.last(s) is not None]
    names = [_name(section, scheme) for scheme in drawn]
    longest = max(map(len, names))
    right = 0.75 + 0.086 * longest  # room for a name, inches
    beside = not narrow and len(drawn) <= 16 and right < 3.5
    width = 3.7 if narrow else 9.0
    columns = max(1, min(4, int(width / (0.55 + 0.073 * longest))))
    below = 0 if beside else 0.172 * math.ceil(len(drawn) / columns)
    left, bottom, top = 0.6, 0.5 + below, 0.5 if narrow else 0.42
    right = right if beside else 0.2
    height = (3.4 if narrow else 4.5) + below
    inner = width - left - right, height - bottom - top
    figure = matplotlib.figure.Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, inner[0] / width, inner[1] / height))
    _scale_lengths(axes, section, 6 if narrow else 14)
    _scale_losses(axes, limits(section))
    _notes(axes, section, narrow)
    for scheme in drawn:
      _line(axes, section, scheme)
    if beside:
      _names_beside(axes, section, drawn, names, inner)
    else:
      handles = [matplotlib.lines.Line2D([], [], label=n, **style(s))
                 for s, n in zip(drawn, names, strict=True)]  # fmt: skip
      axes_lib.legend_below(figure, columns, handles=handles, columnspacing=1.2, labelspacing=0.35)
  return figure


def _name(section: Section, scheme: Scheme) -> str:
  """The label, with the length where the line ends early or the value that is too high to draw."""
  last = section.last(scheme)
  value = section.mean(scheme, last)
  name = scheme.label if last == section.lengths[-1] else f'{scheme.label}, to {last}'
  if not math.isfinite(value):
    return f'{name} ↑ not finite'
  return name if value <= limits(section).top else f'{name} ↑ {value:.1f}'


def _line(axes, section: Section, scheme: Scheme) -> None:
  """The mean over seeds, up to the last length that has one, and a band where there are several."""
  lengths = section.lengths
  values = [section.values(scheme, n) or [math.nan] for n in lengths]
  (line,) = axes.plot(lengths, [np.mean(v) for v in values], zorder=3, **style(scheme))
  line.set_gid(f'line-{scheme.key}')
  if any(len(v) > 1 for v in values):
    low, high = ([f(v) for v in values] for f in (min, max))
    axes_lib.band(axes, lengths, low, high, line.get_color()).set_gid(f'band-{scheme.key}')


def _scale_lengths(axes, section: Section, most: int) -> None:
  """Log2, with ticks at the powers of two, or at the measured lengths if there are too few."""
  lengths = [*section.lengths, *section.train_lengths]
  low, high = min(lengths), max(lengths)
  powers = [2**i for i in range(high.bit_length()) if low <= 2**i <= high]
  ticks = powers if len(powers) > 1 else sorted(set(lengths))
  every = math.ceil(len(ticks) / most)
  labels = [str(n) if i % every == 0 else '' for i, n in enumerate(ticks)]
  axes_lib.log_lengths(axes, ticks, labels)
  axes.set_xlim(low / 2**0.2, high * 2**0.2)
  axes.set_xlabel('evaluation length (tokens)')


def _scale_losses(axes, limit: Limits) -> None:
  """Limits and ticks; above the knee, if there is one, the axis is compressed and shaded."""
  fine = matplotlib.ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
  if limit.knee is None:
    axes.set_ylim(limit.low, limit.top)
    axes.yaxis.set_major_locator(fine)
  else:
    low, knee, top = limit.low, limit.knee, limit.top
    slopes = SHARE / (knee - low), (1 - SHARE) / (top - knee)
    axes.set_yscale(
      'function',
      functions=(
        lambda y: SHARE + (y - knee) * np.where(y < knee, *slopes),
        lambda z: knee + (z - SHARE) / np.where(z < SHARE, *slopes),
      ),
    )
    axes.set_ylim(low, top)
    coarse = matplotlib.ticker.MaxNLocator(3, steps=[1, 2, 5]).tick_values(knee, top)
    coarse = [t for t in coarse if knee + 0.12 * (top - knee) <= t <= top]
    fine = [t for t in fine.tick_values(low, knee) if low <= t <= knee + 1e-9]
    decimals = max(len(f'{t:.6g}'.partition('.')[2]) for t in fine)
    texts = [f'{t:.{decimals}f}' for t in fine] + [f'{t:g}' for t in coarse]
    axes.yaxis.set_major_locator(matplotlib.ticker.FixedLocator([*fine, *coarse]))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FixedFormatter(texts))
    axes.axhspan(knee, top, color=INK, alpha=0.06, linewidth=0, gid='compressed')
  axes.set_ylabel('validation loss (bits per byte)')
  axes_lib.bare(axes)
  axes.set_axisbelow(True)
  if limit.top > UNIFORM:
    axes.axhline(UNIFORM, color=INK, linewidth=0.8, linestyle=':', gid='uniform')


def _notes(axes, section: Section, narrow: bool) -> None:
  """Explains vertical lines and the shaded part, above the axes where no curve is."""
  small = {'fontsize': 9, 'va': 'bottom', 'transform': axes.transAxes}
  for length in section.train_lengths:
    axes.axvline(length, color=INK, linewidth=1, linestyle=(0, (4, 3)), gid='training-length')
  place = axes.transScale + axes.transLimits
  x = place.transform((section.train_lengths[-1], axes.get_ylim()[0]))[0]
  plural = 's' if len(section.train_lengths) > 1 else ''
  axes.text(x, 1.015, f'training length{plural}', ha='right' if x > 0.7 else 'left', **small)
  knee, target = limits(section).knee, section.target_length
  if target and section.lengths[0] <= target <= section.lengths[-1]:
    axes.axvline(target, color=INK, linewidth=1, linestyle=(0, (1, 2.5)), gid='target-length')
    end = place.transform((target, axes.get_ylim()[0]))[0]
    clear = knee is None and end - x > 0.35
    axes.text(end, 1.015 if clear else 1.08, 'target length', ha='center', **small)
  if knee is not None:
    height = 1.08 if narrow or x > 0.3 else 1.015  # clear of the other text
    axes.text(1, height, f'shaded: compressed above {knee:g}', ha='right', **small)


def _names_beside(axes, section: Section, drawn, names, inner) -> None:
  """Names right of the axes (`inner` inches), near the ends of their lines, without overlap."""
  place, (bottom, top), ends = axes.transScale + axes.transLimits, axes.get_ylim(), []
  for scheme in drawn:
    last = section.last(scheme)
    value = section.mean(scheme, last)
    value = min(max(value, bottom), top) if math.isfinite(value) else top
    ends.append(place.transform((last, value)))
  start, width, space = 0.3 / inner[0], 0.36 / inner[0], 0.08 / inner[0]
  heights = apart([y for _, y in ends], 13.5 / 72 / inner[1])
  for scheme, name, (x, y), height in zip(drawn, names, ends, heights, strict=True):
    look, free = style(scheme), {'transform': axes.transAxes, 'clip_on': False}
    if section.last(scheme) == section.lengths[-1] and y < 1:
      leader = [x, 1 + start - space], [y, height]
      axes.plot(*leader, color=look['color'], linewidth=0.8, alpha=0.7, **free)
    handle = 1 + np.array([start, start + width / 2, start + width])
    axes.plot(handle, [height] * 3, markevery=[1], **look, **free)
    axes.text(1 + start + width + space, height, name, va='center', **free)
