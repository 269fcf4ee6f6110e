"""Twins in JavaScript compute what the modules compute, for every scheme that has one."""

import dataclasses
import itertools
import json

import browser
import explorer_case
import numpy as np
import pytest
from flax import nnx

from pe_research import positions
from pe_research.positions import t5
from pe_research.positions.base import PositionScheme
from pe_research.show.explorer import effects, page

pytestmark = browser.needed
KINDS = ('added', 'angles', 'bias', 'modifier')
# Everything that a scheme does under given arguments, asked of its twin.
ASK = """([name, args, shared, length]) => {
  const given = DATA.schemes[name], dims = {...given.dims, ...shared};
  const one = new Computed(given, name, args, dims, length), all = range(length);
  const row = (f, h, m) => all.map((n) => n > m ? null : f(h, m, n));
  const matrix = (f) => range(one.heads).map((h) => all.map((m) => row(f, h, m)));
  const none = (x) => Number.isNaN(x) ? null : x;
  return {
    added: one.row(0) && all.map((m) => one.row(m).map(none)),
    angles: one.pairs ? all.map((m) => range(one.pairs).map((i) => one.turn(m, i))) : null,
    bias: matrix((h, m, n) => m - n < one.twin.sees ? one.bias(h, m, n) : null),
    modifier: matrix((h, m, n) => none(one.modifier(h, m, n))),
  };
}"""


@pytest.fixture(scope='module')
def shown():
  return {name: page.shown(name) for name in positions.SCHEMES}


@pytest.fixture(scope='module')
def tab(shown, tmp_path_factory):
  """One page for all: nothing is clicked in it."""
  path = tmp_path_factory.mktemp('explorer') / 'explorer.html'
  path.write_text(page.page(list(shown.values()), positions.FAMILIES, []))
  with explorer_case.chromium() as chromium, explorer_case.tabs(chromium, path) as opened:
    yield opened()


def compare(found, effect: effects.Effect):
  """All values of a twin against those of the hooks, to 1e-6 of them or of 1."""
  for kind in KINDS:
    wanted = getattr(effect, kind)
    if wanted is None:
      values = np.array(found[kind], float) if found[kind] is not None else np.zeros(1)
      assert not np.nan_to_num(values).any(), kind
      continue
    values = np.array(found[kind], float)
    if kind == 'angles':
      away = np.angle(np.exp(1j * (values - wanted)))
      np.testing.assert_allclose(away, 0, atol=1e-6, err_msg=kind)
    else:
      heads = len(wanted) if kind != 'added' else None
      np.testing.assert_allclose(values[:heads], wanted, rtol=1e-6, atol=1e-6, err_msg=kind)


def choices(name: str, tab) -> list[dict]:
  """The arguments that controls reach: all at their ends and middles, a few at a time."""
  controls = tab.evaluate('(name) => TWINS[name].controls(DATA.schemes[name].dims)', name)
  known = positions.arguments(name)
  values = {}
  for field, kind in controls.items():
    if field not in known:
      continue
    if isinstance(kind[0], str):
      values[field] = kind
    elif kind[2] == 'log':
      values[field] = [float(f'{v:.2g}') for v in np.geomspace(*kind[:2], 3)]
    else:
      low, high, step = kind
      steps = round((high - low) / step)
      values[field] = [low + step * k for k in (0, steps // 2, steps)]
  every = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]
  chosen = np.random.default_rng(0).permutation(len(every))[:12]
  return [every[i] for i in sorted(chosen)]


def as_built(one: page.Shown, changes: dict, layer: int, dims) -> PositionScheme:
  """The Python scheme with those arguments, and the parameters that the page has."""
  kind = positions.scheme(one.name)
  own = one.layers[min(layer, len(one.layers) - 1)]
  typed = {
    field: int(value) if isinstance(default.default, int) and not isinstance(value, str) else value
    for field, value in changes.items()
    for default in [positions.arguments(one.name)[field]]
  }
  scheme = positions.build(
    dict(one.arguments) | typed, dims, nnx.Rngs(layer if kind.per_layer else 0)
  )
  if kind is t5.T5:
    # Buckets that were not trained read what was at their nearest distance.
    reach = np.arange(scheme.max_distance + 1)
    rows = t5.bucket_of(reach, scheme.buckets, scheme.max_distance)
    nearest = [int(np.argmax(rows == b)) for b in range(scheme.buckets)]
    trained = t5.bucket_of(np.array(nearest), own.buckets, own.max_distance)
    scheme.table[...] = own.table[...][trained]
  elif 'initial' not in positions.arguments(one.name):  # which decides about parameters
    nnx.update(scheme, nnx.state(own, nnx.Param))
  return scheme


@pytest.mark.kinds
@pytest.mark.spread(2)
@pytest.mark.parametrize('name', positions.SCHEMES)
def test_twins_compute_what_modules_compute(name, shown, tab):
  one = shown[name]
  cases = [(c, length, layer) for c, (length, layer) in zip(
    choices(name, tab), itertools.cycle([(16, 0), (9, 3), (65, 1), (130, 2)])
  )]  # fmt: skip
  cases += [({}, 16, 0), ({}, 9, 3)]  # sizes alone change
  shared = [{'heads': 4, 'length': 64}, {'heads': 6, 'length': 24}]
  for i, (changes, length, layer) in enumerate(cases):
    given = shared[i % 2] | {'layer': layer}
    if page.parameters(one.layers[0]):
      given['heads'] = one.dims.heads
    dims = dataclasses.replace(one.dims, **given)
    limit = one.layers[0].max_length or length
    length = min(length, limit)
    scheme = as_built(one, changes, layer, dims)
    wanted = effects.of(scheme, dims, length)
    args = {k: v for k, v in one.arguments.items() if k != 'name'} | changes
    found = tab.evaluate(ASK, [name, json.loads(json.dumps(args)), given, length])
    compare(found, wanted)


def test_twins_leave_alone_what_they_do_not_follow(tab):
  ask = """([name, change]) => {
    const args = {...DATA.schemes[name].arguments, ...change};
    return valuesOf(name, args, {}, 20)?.constructor.name ?? null;
  }"""
  assert tab.evaluate(ask, ['yarn', {'factor': 2}]) == 'Computed'
  assert tab.evaluate(ask, ['yarn', {'slice_factor': 1.2}]) is None
  assert tab.evaluate(ask, ['t5', {'bidirectional': True}]) is None
  assert tab.evaluate(ask, ['xpos', {'fraction': 0.5, 'partial': 'frequencies'}]) is None


def test_embedded_values_are_the_modules(shown, tab):
  for name, one in shown.items():
    found = tab.evaluate(
      """(name) => {
        const given = DATA.schemes[name], one = new Embedded(given, 16), all = range(16);
        const matrix = (f) => range(one.heads).map((h) => all.map((m) => all.map((n) => {
          const v = f(h, m, n); return Number.isNaN(v) ? null : v; })));
        return {
          added: one.row(0) && all.map((m) => one.row(m)),
          angles: one.pairs ? all.map((m) => range(one.pairs).map((i) => one.turn(m, i))) : null,
          bias: matrix((h, m, n) => one.bias(h, m, n)),
          modifier: matrix((h, m, n) => one.modifier(h, m, n)),
        };
      }""",
      name,
    )
    compare(found, effects.of(one.layers[0], one.dims, 16))
