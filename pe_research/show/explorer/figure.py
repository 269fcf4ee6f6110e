"""The panels for a paper: schemes side by side, each above its logit modifier."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import vl_convert

from pe_research import positions
from pe_research.show.explorer import effects, page, panels

SCALES = {'': 1, '@2x': 2}  # suffix of a PNG's name -> scale
SIZE = 240  # pixels of a panel
GAP, LEGENDS = 36, (0, 26, 31)  # pixels above a panel; height of no legend, of colours, of lines


def drawn(
  schemes: Sequence[page.Shown], length: int, head: int = 0, theme: str = 'light'
) -> dict[str, Any]:
  """The figure, a Vega-Lite spec: a column per scheme, with its logit modifier below.

  For a single scheme the two are side by side.

  Args:
    schemes: columns, from the left.
    length: tokens.
    head: index; a scheme with fewer heads shows its last.
    theme: of panels.THEMES.

  Raises:
    ValueError: a scheme is not defined at that length.
  """
  look = panels.THEMES[theme]
  found = [effects.of(one.layers[0], one.dims, length) for one in schemes]
  above = [panel(effect, effect.kind(), head, look) for effect in found]
  below = [panel(effect, 'modifier', head, look) for effect in found]
  for spec, one, effect in zip(above, schemes, found, strict=True):
    colors = any('color' in layer['encoding'] for layer in spec['layer'])
    legend = LEGENDS[colors + (effect.kind() == 'penalty')]
    spec['title'] = _title(positions.scheme(one.name).label, 15, look, GAP - legend)
    spec['title'] |= {'subtitle': _subtitle(one, effect), 'subtitleColor': look.soft}
  for spec in below:
    spec['title'] = _title('as logit modifier', 15 if len(schemes) == 1 else 12, look, 6)
  config = above[0]['config']
  for spec in (*above, *below):
    del spec['config'], spec['$schema']
  rows = [above, below] if len(schemes) > 1 else [above + below]
  rows = [{'hconcat': specs, 'spacing': 28, 'resolve': _independent()} for specs in rows]
  whole = {'vconcat': rows, 'spacing': 22, 'resolve': _independent()}
  return {'config': config, 'padding': 8} | whole


def _subtitle(one: page.Shown, effect: effects.Effect) -> str:
  """The family of a scheme, and a note if its values are random or an example."""
  said = [panels.FAMILIES[effect.kind()][0]]
  if not one.trained and page.parameters(one.layers[0]):
    said.append('random initial values')
  if page.illustrates(one):
    said.append('example factors')
  return ', '.join(said)


def _title(text: str, size: int, theme: panels.Theme, offset: int) -> dict[str, Any]:
  return {'text': text, 'anchor': 'start', 'fontSize': size, 'color': theme.ink, 'offset': offset}


def panel(effect: effects.Effect, kind: str, head: int, theme: panels.Theme) -> dict[str, Any]:
  """One panel with its data, a Vega-Lite spec."""
  if kind == 'penalty':
    return penalty(effect, theme)
  values = getattr(effect, kind)
  values = values[min(head, len(effect.modifier) - 1)] if values.ndim == 3 else values
  length = len(values)
  top = math.pi if kind == 'angles' else largest(values)
  if kind == 'angles' and length <= panels.HANDS:
    kind = 'hands'
  cells = [
    {'x': x, 'y': y, 'v': float(values[y, x])}
    for y, x in np.ndindex(values.shape)
    if np.isfinite(values[y, x])
  ]
  fixed = panels.Fixed(top, SIZE, SIZE / max(values.shape))
  chart = panels.matrix(kind, theme, fixed)
  return _filled(chart, cells)


def penalty(effect: effects.Effect, theme: panels.Theme) -> dict[str, Any]:
  """The bias of every head by distance, for the last query: a Vega-Lite spec with its data."""
  last = effect.bias[:, -1, ::-1]
  cells = [{'x': d, 'y': float(last[h, d]), 'by': str(h)} for h, d in np.ndindex(last.shape)]
  fixed = panels.Fixed(1.0, SIZE, SIZE / last.shape[1])
  return _filled(panels.lines('penalty', theme, fixed), cells)


def _filled(chart, cells: list[dict[str, Any]]) -> dict[str, Any]:
  spec = chart.properties(width=SIZE, height=SIZE).to_dict()
  spec.pop('padding')
  for layer in spec['layer']:
    layer['data'] = {'values': cells if layer['data']['name'] == panels.CELLS else []}
  return spec


def written(spec: dict[str, Any], suffix: str) -> dict[str, bytes]:
  """Suffix of a file name -> its contents: one SVG, or a PNG at each of SCALES."""
  version = {'vl_version': page.VEGA_LITE}
  if suffix == 'svg':
    return {'.svg': vl_convert.vegalite_to_svg(spec, **version).encode()}
  return {
    f'{end}.png': vl_convert.vegalite_to_png(spec, scale=scale, **version)
    for end, scale in SCALES.items()
  }


def largest(values: np.ndarray) -> float:
  """The largest magnitude, ignoring NaN; 1 if all are 0."""
  return float(np.nanmax(np.abs(values))) or 1.0


def _independent() -> dict[str, Any]:
  channels = ('color', 'shape', 'strokeDash', 'x', 'y')
  return {'scale': dict.fromkeys(channels, 'independent')}
