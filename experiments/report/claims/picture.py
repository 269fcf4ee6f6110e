"""The table of verdicts as a picture."""

import textwrap
from collections.abc import Sequence

import matplotlib.figure

from experiments.report.claims.drawings import COLORS, SIGNS
from experiments.report.claims.rows import ClaimRow
from pe_research.show import drawing, palette

WIDTH, LINE, GAP = 9.6, 0.155, 0.12  # inches: of all, of a line of text, between claims
COLUMNS = {'claim': (0.1, 42), 'verdict': (3.2, 14), 'effect that decides, 95 %': (4.3, 36),
           'published': (6.75, 45)}  # fmt: skip
# of which: inches from the left, and characters in a line


def cells(row: ClaimRow) -> list[str]:
  """Texts of a claim, in the order of COLUMNS."""
  texts = []
  for variant, verdict in row.verdicts.items():
    alone = f' (alone: {row.alone(variant)})' if row.alone(variant) else ''
    named = f'{variant}: ' if texts else ''
    if not texts or verdict + alone != texts[0]:
      texts.append(f'{named}{verdict}{alone}')
  effect = f'{row.effect}\n{row.deciding_test}' if row.effect else '–'
  return [f'{row.claim.id}  {row.claim.title}', '\n'.join(texts), effect, row.published]


def text(rows: Sequence[ClaimRow]) -> str:
  """The text of the picture, a line for each claim."""
  return '\n'.join(' | '.join(cells(row)).replace('\n', '; ') for row in rows)


def table(rows: Sequence[ClaimRow]) -> matplotlib.figure.Figure:
  """A claim a row: title, verdict, deciding effect, published figure."""
  wrapped = [
    [
      '\n'.join(line for part in text.split('\n') for line in textwrap.wrap(part, size))
      for text, (_, size) in zip(cells(row), COLUMNS.values(), strict=True)
    ]
    for row in rows
  ]
  heights = [max(t.count('\n') + 1 for t in texts) * LINE + GAP for texts in wrapped]
  height = sum(heights) + 0.4
  with drawing.defaults():
    figure = matplotlib.figure.Figure(figsize=(WIDTH, height))
    place = lambda x, y: (x / WIDTH, 1 - y / height)
    rule = lambda y, alpha: figure.add_artist(
      matplotlib.lines.Line2D([0.01, 0.99], [1 - y / height] * 2, color=palette.INK, alpha=alpha,
                              linewidth=0.7)
    )  # fmt: skip
    for name, (x, _) in COLUMNS.items():
      figure.text(*place(x, 0.2), name, fontsize=8.5, weight='bold', va='center')
    top = 0.34
    for row, texts, tall in zip(rows, wrapped, heights, strict=True):
      rule(top, 0.7 if row is rows[0] else 0.2)
      for text, (name, (x, _)) in zip(texts, COLUMNS.items(), strict=True):
        if name == 'verdict' and row.verdict in SIGNS:
          mark = {'marker': SIGNS[row.verdict], 'color': palette.PALETTE[COLORS[row.verdict]][0]}
          spot = place(x - 0.12, top + GAP / 2 + LINE / 2)
          figure.add_artist(matplotlib.lines.Line2D([spot[0]], [spot[1]], markersize=6, **mark))
        figure.text(*place(x, top + GAP / 2), text, fontsize=8, va='top', linespacing=1.15)
      top += tall
  return figure
