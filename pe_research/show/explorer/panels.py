"""The panels as Vega-Lite charts, for the page and for papers; data are set later, by name."""

import dataclasses

import altair as alt

from pe_research.show.palette import PALETTE

CELLS, CURSOR, MARKS = 'cells', 'cursor', 'marks'  # names of the data
SIZE = 300  # pixels of a panel, across
HANDS = 20  # positions up to which angles are drawn as hands, not as colours
MATRICES = {
  'added': ('channel', 'position (tokens)', 'added'),
  'hands': ('pair of channels', 'position (tokens)', 'radians'),
  'angles': ('pair of channels', 'position (tokens)', 'radians'),
  'bias': ('key position n (tokens)', 'query position m (tokens)', 'bias'),
  'modifier': ('key position n (tokens)', 'query position m (tokens)', 'logits'),
  'weights': ('key (tokens)', 'query (tokens)', 'weight'),
}  # x, y, unit of the values
FAMILIES = {
  'added': ('Absolute', 'vectors are added to embeddings'),
  'bias': ('Relative', 'a number for each distance is added to the logit'),
  'angles': ('Rotary', 'queries and keys rotate with position'),
  'penalty': ('Linear penalty', 'the logit falls in proportion to the distance'),
  'modifier': ('Other', 'logits are scaled, or unchanged'),
}  # Effect.kind -> name and description


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colours on light or on dark paper.

  Attributes:
    ink: of text.
    soft: of axes.
    line: of grids.
    edge: of shapes, with a contrast of 3:1 to the paper.
    paper: background.
    diverging: five, from negative to positive, the middle near the paper.
    cyclic: nine, the first and last the same, for -pi to pi.
    sequential: three, from 0 to the maximum.
    series: of lines.
  """

  ink: str
  soft: str
  line: str
  edge: str
  paper: str
  diverging: tuple[str, ...]
  cyclic: tuple[str, ...]
  sequential: tuple[str, ...]
  series: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Fixed:
  """Sizes of a chart with known data; on the page they follow from data and window.

  Attributes:
    top: end of the colour scale, in the unit of the values.
    size: pixels of the panel.
    cell: pixels of the shorter side of a cell, or between points.
  """

  top: float
  size: float
  cell: float


# Blue and orange can be distinguished with every kind of colour blindness.
THEMES = {
  'light': Theme(
    '#1a1b1c', '#565b61', '#dcdfe3', '#868c93', '#ffffff',
    ('#00407a', '#5d9fd0', '#eef0f2', '#e8934a', '#8a3200'),
    ('#221330', '#5a2f86', '#5f7cbb', '#a5c3cd', '#ece6ec', '#d6ad95', '#b5584f', '#6b2148',
     '#221330'),
    ('#f1f3f5', '#5d9fd0', '#00305c'),
    tuple(pair[0] for pair in PALETTE),
  ),
  'dark': Theme(
    '#e9ecef', '#aab1b8', '#363b42', '#727981', '#15171a',
    ('#9fd4ff', '#2f76a8', '#262a2f', '#b05c1c', '#ffb27d'),
    ('#15121c', '#5a3a8e', '#6b88c8', '#a9c8d2', '#f1ebf1', '#dab39b', '#c0645b', '#7a2c55',
     '#15121c'),
    ('#22262b', '#2f76a8', '#cfeaff'),
    tuple(pair[1] for pair in PALETTE),
  ),
}  # fmt: skip


def matrix(kind: str, theme: Theme, fixed: Fixed | None = None) -> alt.LayerChart:
  """Cells {x, y, v} in colour and a frame {x, y} around one.

  Without `fixed`, the parameter `top` is the end of the colour scale. 'hands' draws angles as the
  hands of small clocks, 'angles' as colours, for many positions.
  """
  across, down, unit = MATRICES[kind]
  axis = alt.Axis(
    labelAngle=0, labelOverlap='parity', labelSeparation=6, ticks=False, domain=False, grid=False
  )
  x = alt.X('x:O', title=across, axis=axis)
  y = alt.Y('y:O', title=down, axis=axis)
  cells = alt.Chart(alt.NamedData(CELLS)).encode(x=x, y=y)
  if kind == 'hands':
    cell = str(fixed.cell) if fixed else 'min(bandwidth("x"), bandwidth("y"))'
    size = alt.ExprRef(f'pow({cell}, 2) * 0.9')
    hand = {'filled': False, 'opacity': 1, 'stroke': theme.ink, 'size': size}
    layers = [
      cells.mark_point(**hand | {'stroke': theme.edge}, shape='circle', strokeWidth=1),
      cells.transform_calculate(turn='-datum.v * 180 / PI')
      .mark_point(**hand, shape='M0,0L1,0', strokeWidth=1.8)
      .encode(angle=alt.Angle('turn:Q', scale=None)),
    ]
  else:
    color = alt.Color('v:Q', title=unit, scale=_colors(kind, theme, fixed), legend=_legend(fixed))
    layers = [cells.mark_rect().encode(color=color)]
  frame = alt.Chart(alt.NamedData(CURSOR)).encode(x=x, y=y)
  layers += [
    frame.mark_rect(filled=False, stroke=color, strokeWidth=width, strokeJoin='round')
    for color, width in two_tone(theme)
  ]
  whole = alt.layer(*layers)
  if fixed is None:
    whole = whole.add_params(alt.param('top', value=1.0))
  return _finished(whole, theme)


def two_tone(theme: Theme) -> tuple[tuple[str, float], ...]:
  """Colours and widths of two strokes, one on the other, visible on any cell."""
  return (theme.paper, 5.0), (theme.ink, 2.0)


def _legend(fixed: Fixed | None) -> alt.Legend:
  length = fixed.size - 60 if fixed else alt.ExprRef('width - 60')  # room for the unit
  return alt.Legend(
    type='gradient', orient='top', direction='horizontal', gradientThickness=9,
    gradientLength=length,
    titleOrient='left', titleFontWeight='normal', titleLimit=80, offset=4, format='.2~g',
    tickCount=5,
  )  # fmt: skip


def _colors(kind: str, theme: Theme, fixed: Fixed | None) -> alt.Scale:
  if kind == 'angles':
    colors, ends = theme.cyclic, (-1, 1)
  elif kind == 'weights':
    colors, ends = theme.sequential, (0, 1)
  else:
    colors, ends = theme.diverging, (-1, 1)
  step = (ends[1] - ends[0]) / (len(colors) - 1)
  shares = [ends[0] + i * step for i in range(len(colors))]
  domain = [share * fixed.top if fixed else alt.ExprRef(f'{share} * top') for share in shares]
  return alt.Scale(domain=domain, range=list(colors), clamp=True, type='linear', interpolate='rgb')


LINES = {
  'penalty': ('distance (tokens)', 'bias (logits)', 'head'),
  'decay': ('distance (tokens)', 'added to the logit', 'head'),
  'waves': ('pair of channels', 'wavelength (tokens)', 'scheme'),
  'loss': ('position (tokens)', 'loss (nats/token)', 'run'),
}  # x, y, what distinguishes the lines
POINTS, LOG_X, LOG_Y = ('penalty', 'waves'), ('loss',), ('waves',)
LEVELS = ('waves',)  # charts whose rules are horizontal
APART = 7  # pixels between points, below which they have no symbols
LABEL = 20  # pixels for the name of a rule, above or below it


def lines(kind: str, theme: Theme, fixed: Fixed | None = None) -> alt.LayerChart:
  """Lines of {x, y, by}, a ring at one {x, y} of them, and rules such as the training length.

  A rule is {at, name}; a horizontal one also has the `side` of its name: 1 below, -1 above. Without
  `fixed`, the parameter `columns` is the number of columns of the legend.
  """
  across, up, by = LINES[kind]

  def scale(log: bool, padding: int = 0) -> alt.Scale:
    padded = {'padding': padding} if padding else {}
    return alt.Scale(type='log' if log else 'linear', nice=not log, **padded)

  common = {'labelOverlap': 'greedy', 'grid': True, 'tickCount': 6, 'labelFlush': True}
  axis, whole = alt.Axis(**common), alt.Axis(**common, tickMinStep=1)
  columns = 4 if fixed else alt.ExprRef('columns')
  legend = {
    'title': by,
    'sort': None,
    'legend': alt.Legend(
      orient='top', columns=columns, titleOrient='left', labelLimit=alt.ExprRef('width - 70')
    ),
  }
  x = alt.X('x:Q', title=across, axis=whole, scale=scale(kind in LOG_X))
  y = alt.Y('y:Q', title=up, axis=axis, scale=scale(kind in LOG_Y, LABEL * (kind in LEVELS)))
  base = alt.Chart(alt.NamedData(CELLS)).encode(
    x=x,
    y=y,
    color=alt.Color('by:N', scale=alt.Scale(range=list(theme.series)), **legend),
    strokeDash=alt.StrokeDash('by:N', **legend),
  )
  layers = [base.mark_line(strokeWidth=1.8, clip=True)]
  if kind in POINTS:
    shape = alt.Shape('by:N', sort=None, legend=None)
    layers.append(base.mark_point(filled=True, size=_mark(fixed), opacity=1).encode(shape=shape))
  layers += _rules(kind, theme)
  ring = alt.Chart(alt.NamedData(CURSOR)).encode(x=x, y=y)
  layers += [
    ring.mark_point(filled=False, opacity=1, size=120, stroke=color, strokeWidth=width)
    for color, width in two_tone(theme)
  ]
  chart = alt.layer(*layers)
  if fixed is None:
    chart = chart.add_params(alt.param('columns', value=4))
  return _finished(chart, theme)


def _mark(fixed: Fixed | None) -> int | alt.ExprRef:
  """Square pixels of the symbol at a point; 0 if the points are too close."""
  if fixed:
    return 32 if fixed.cell >= APART else 0
  return alt.ExprRef(f'width / (domain("x")[1] - domain("x")[0]) < {APART} ? 0 : 32')


def _rules(kind: str, theme: Theme) -> list[alt.Chart]:
  """Dashed lines with names: beside a horizontal one, above the plot for a vertical one."""
  rules = alt.Chart(alt.NamedData(MARKS))
  if kind in LEVELS:
    at, edge = {'y': alt.Y('at:Q')}, {'x': alt.value('width')}
    place = {'align': 'right', 'dx': -4, 'dy': alt.ExprRef('9 * datum.side')}
  else:
    at, edge = {'x': alt.X('at:Q')}, {'y': alt.value(-7)}
    left = 'scale("x", datum.at) < width / 2'
    place = {'align': alt.ExprRef(f'{left} ? "left" : "right"')}
  return [
    rules.mark_rule(strokeDash=[4, 3], stroke=theme.soft).encode(**at),
    rules.mark_text(baseline='middle', fill=theme.soft, **place).encode(
      text='name:N', **at, **edge
    ),
  ]


def _finished(chart: alt.LayerChart, theme: Theme) -> alt.LayerChart:
  """Adds sizes, and the colours of axes, legends and background."""
  return chart.properties(width=SIZE, height=SIZE, padding=2).configure(
    background=theme.paper,
    font='system-ui, sans-serif',
    view=alt.ViewConfig(stroke=None),
    axis=alt.AxisConfig(
      labelColor=theme.soft, titleColor=theme.ink, titleFontWeight='normal', gridColor=theme.line,
      domainColor=theme.line, tickColor=theme.line, labelFontSize=11, titleFontSize=12,
    ),
    legend=alt.LegendConfig(
      labelColor=theme.soft, titleColor=theme.ink, labelFontSize=11, titleFontSize=12,
      titleFontWeight='normal', symbolStrokeWidth=2,
    ),
  )  # fmt: skip
