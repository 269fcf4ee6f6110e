"""What all matplotlib figures share: style, placement of labels, SVG text and PNG bytes."""

import io
import re
from collections.abc import Sequence

import matplotlib.figure
import matplotlib.style
import numpy as np

from pe_research.show.palette import INK, PALETTE

RC = {
  'font.family': 'sans-serif',
  'font.size': 10,
  'path.simplify': False,
  'svg.fonttype': 'none',
  'text.color': INK,
  'axes.labelcolor': INK,
  'axes.edgecolor': INK,
  'xtick.color': INK,
  'ytick.color': INK,
  'axes.unicode_minus': True,
}


def apart(wanted: Sequence[float], gap: float) -> list[float]:
  """Heights in [0, 1] at least `gap` apart, as close as possible to `wanted` and in its order."""
  order = sorted(range(len(wanted)), key=lambda i: wanted[i])
  blocks: list[list[float]] = []  # labels that touch, as heights minus their gaps
  for rank, i in enumerate(order):
    blocks.append([wanted[i] - rank * gap])
    while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
      blocks[-2:] = [blocks[-2] + blocks[-1]]
  level = [float(np.mean(block)) for block in blocks for _ in block]
  highest = max(0.0, 1 - (len(wanted) - 1) * gap)
  heights = [0.0] * len(wanted)
  for rank, i in enumerate(order):
    heights[i] = min(max(level[rank], 0.0), highest) + rank * gap
  return heights


def defaults(salt: str = ''):
  """A context with matplotlib's defaults and RC, ignoring the user's matplotlibrc."""
  return matplotlib.style.context(['default', RC | ({'svg.hashsalt': salt} if salt else {})])


def svg(figure: matplotlib.figure.Figure, name: str) -> str:
  """The figure as a document on white; `name` makes its ids unique in a page."""
  buffer = io.StringIO()
  with defaults(salt=name):
    metadata = {'Date': None, 'Creator': None, 'Format': None, 'Type': None}
    figure.savefig(buffer, format='svg', transparent=True, metadata=metadata)
  text = buffer.getvalue()
  text = text[text.index('<svg') :]
  text = re.sub(r'font: ([\d.]+)px [^;"]*', r'font-size: \1px', text)
  text = re.sub(r' font-family: [^;"]*;', '', text)
  text = re.sub(r'(\bid="|url\(#|href="#)', rf'\g<1>{name}-', text)
  return text.replace('<svg ', '<svg style="font-family: sans-serif; background: #ffffff" ', 1)


def inline(figure: matplotlib.figure.Figure, name: str) -> str:
  """As `svg`, for a page: ink becomes the text colour, others --series-0, --series-1, ..."""
  document = svg(figure, name)
  box = re.search(r'viewBox="[^"]*"', document)[0]
  text = f'<svg {box} aria-hidden="true"{document[document.index(">") :]}'
  text = text.replace('xlink:href', 'href').replace(INK, 'currentColor')
  for i, (color, _) in enumerate(PALETTE):
    text = text.replace(color, f'var(--series-{i})')
  return text


def png(figure: matplotlib.figure.Figure, said: str = '') -> bytes:
  """The figure on white at 200 dpi, without a date; `said` is its description."""
  buffer = io.BytesIO()
  with defaults():
    metadata = {'Software': None} | ({'Description': said} if said else {})
    figure.savefig(buffer, format='png', dpi=200, facecolor='white', metadata=metadata)
  return buffer.getvalue()
