"""The page: values of every scheme from its own module, specs of the panels, and the scripts."""

import base64
import dataclasses
import html
import json
import pathlib
import re
import string
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import vl_convert
from flax import nnx

from pe_research import positions
from pe_research.positions.base import Dims, PositionScheme
from pe_research.show.explorer import effects, panels

HERE = pathlib.Path(__file__).parent
SCRIPTS = tuple(
  f'{name}.js'
  for name in (
    'values', 'state', 'charts', 'controls', 'panel', 'decay', 'waves', 'looks', 'page',
  )
)  # fmt: skip
TWINS = tuple(HERE / name for name in ('twins.js', 'twins_rotary.js'))
VEGA_LITE = '6.4'
DIMS = Dims(width=64, heads=4, rotary=16, length=64)  # of configs/lm.py
LAYERS = 4
TOKENS = 16  # when the page opens
LENGTHS = (8, 16, 32, 64)  # embedded for a scheme without a twin
DIGITS = 8  # decimals of parameters, more than float32 has


@dataclasses.dataclass(frozen=True)
class Shown:
  """A scheme on the page.

  Attributes:
    name: in the registry.
    arguments: of its constructor.
    dims: of the model that it is built for.
    layers: one instance, or one per layer if they differ.
    source: where its parameters come from, for people; '' if it has none.
    trained: whether its parameters are those of a run.
  """

  name: str
  arguments: Mapping[str, Any]
  dims: Dims
  layers: Sequence[PositionScheme]
  source: str
  trained: bool = False


def shown(name: str, dims: Dims = DIMS) -> Shown:
  """The scheme with default arguments and initial parameters."""
  arguments = positions.example(name, dims.rotary // 2)
  kind = positions.scheme(name)
  layers = [
    positions.build(arguments, dataclasses.replace(dims, layer=i), nnx.Rngs(i))
    for i in range(LAYERS if kind.per_layer else 1)
  ]
  source = 'untrained: its values are random' if parameters(layers[0]) else ''
  return Shown(name, arguments, dims, layers, source)


def parameters(scheme: PositionScheme) -> dict[str, Any]:
  """The parameters of a scheme by name, as nested lists."""
  return {
    '.'.join(map(str, path)): np.asarray(leaf[...], np.float64).round(DIGITS).tolist()
    for path, leaf in nnx.to_flat_state(nnx.state(scheme, nnx.Param))
  }


def illustrates(one: Shown) -> bool:
  """Whether its factors for the pairs are an example, not found by a search."""
  return bool(one.arguments.get('long_factor')) and not one.arguments['lineage']


def factors(one: Shown) -> str:
  """Where the factors for the pairs come from; '' if the scheme has none."""
  if not one.arguments.get('long_factor'):
    return ''
  if illustrates(one):
    return 'its factors are an example, rising from 1 to the extension; no search found them'
  file, target = one.arguments['lineage'].partition(' ')[0], one.layers[0].target_length
  return f'its factors are those that a search found for {target:,} tokens ({file}), at any factor'


def notes(one: Shown) -> list[str]:
  """Where parameters and factors come from, for people."""
  return [note for note in (one.source, factors(one)) if note]


def layered(one: Shown) -> bool:
  """Whether its layers have different effects."""
  found = [
    effects.of(scheme, one.dims, min(TOKENS, scheme.max_length or TOKENS)) for scheme in one.layers
  ]
  return any(not np.array_equal(e.modifier, found[0].modifier, equal_nan=True) for e in found)


def packed(values: np.ndarray | None) -> str | None:
  """Float32 in base64, for the script."""
  return None if values is None else base64.b64encode(np.float32(values).tobytes()).decode()


def formula(text: str) -> str:
  """As HTML: 'a_x' becomes a subscript after one letter, '^x' and '^(x)' superscripts.

  A longer word with '_' in it is a name, and unchanged.
  """
  text = re.sub(r'\b([^\W_])_(\w+)', r'\1<sub>\2</sub>', html.escape(text))
  inside = r'\(((?:[^()]|\([^()]*\))*)\)'
  return re.sub(rf'\^(?:{inside}|(\w+))', lambda m: f'<sup>{m[1] or m[2]}</sup>', text)


def embedded(one: Shown, twins: Collection[str]) -> dict[str, Any]:
  """The data of a scheme on the page; `twins` are the names of schemes with a JavaScript twin."""
  cls, scheme = positions.scheme(one.name), one.layers[0]
  twin = one.name in twins
  wanted = (TOKENS,) if twin else LENGTHS
  lengths = sorted({min(n, scheme.max_length or n) for n in wanted})
  found = {n: effects.of(scheme, one.dims, n) for n in lengths}
  values = {
    n: {k: packed(getattr(e, k)) for k in ('added', 'angles', 'bias', 'modifier')}
    for n, e in found.items()
  }
  return {
    'label': cls.label, 'formula': formula(cls.formula), 'paper': cls.paper,
    'notes': notes(one), 'trained': one.trained, 'factors': factors(one),
    'kind': found[lengths[-1]].kind(), 'twin': twin, 'values': values,
    'arguments': {k: v for k, v in one.arguments.items() if k != 'name'},
    'dims': dataclasses.asdict(one.dims), 'parameters': [parameters(x) for x in one.layers],
    'drawn': cls.draws_positions, 'by_length': scheme.depends_on_length, 'trains_as': cls.trains_as,
    'limit': scheme.max_length, 'remedy': scheme.remedy, 'layered': layered(one),
  }  # fmt: skip


def vega_spec(chart) -> dict[str, Any]:
  """A chart as Vega, the only format that the page needs."""
  return vl_convert.vegalite_to_vega(chart.to_dict(), vl_version=VEGA_LITE)


def specs(theme: panels.Theme) -> dict[str, Any]:
  """The chart of every kind of panel."""
  charts = {kind: panels.matrix(kind, theme) for kind in panels.MATRICES}
  charts |= {kind: panels.lines(kind, theme) for kind in panels.LINES}
  return {name: vega_spec(chart) for name, chart in charts.items()}


def page(schemes: Sequence[Shown], first: Sequence[str], looks: Sequence[Mapping[str, Any]]) -> str:
  """The whole page, HTML; needs no network and no other file.

  Args:
    schemes: all that can be selected.
    first: names of the schemes in the panels when it opens.
    looks: views of trained runs, see `runs.looks`.
  """
  twins = '\n'.join(path.read_text(encoding='utf-8') for path in TWINS)
  table = twins[twins.index('const TWINS = {') :]
  names = re.findall(r'(\w+): \w+', table)
  dims = next(one.dims for one in schemes if one.name == first[0])
  data = {
    'schemes': {one.name: embedded(one, names) for one in schemes},
    'first': list(first),
    'tokens': TOKENS,
    'hands': panels.HANDS,
    'lines': list(panels.LINES),
    'families': panels.FAMILIES,
    'specs': {name: specs(theme) for name, theme in panels.THEMES.items()},
    'looks': list(looks),
  }
  text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
  vega = vl_convert.javascript_bundle('globalThis.vegaEmbed = vegaEmbed;', vl_version=VEGA_LITE)
  variables = {
    f'{name}_{field}': value
    for name, theme in panels.THEMES.items()
    for field, value in dataclasses.asdict(theme).items()
    if isinstance(value, str)
  }
  return string.Template((HERE / 'page.html').read_text(encoding='utf-8')).substitute(
    variables,
    width=dims.width,
    head=dims.rotary,
    data=text,
    vega=vega.replace('</script', '<\\/script'),
    twins=twins,
    script='\n'.join((HERE / name).read_text(encoding='utf-8') for name in SCRIPTS),
  )
