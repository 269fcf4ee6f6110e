"""The explorer in a browser: its numbers are the modules', by mouse and by keys, at any width."""

import base64
import dataclasses
import io
import itertools
import json
import re

import browser
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from playwright.sync_api import sync_playwright

from pe_research import positions
from pe_research.explorer import effects, page
from pe_research.positions import t5
from pe_research.positions.base import PositionScheme

pytestmark = browser.needed
KINDS = ('added', 'angles', 'bias', 'modifier')
BARE = 'base'  # a word that twins.js has for something else
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


class Bare(PositionScheme):
  """A user's scheme, of which the page knows no twin."""

  label, paper, formula = 'Bare', 'nowhere', 'ℓ − (m − n)²/9'

  def bias(self, q_pos, k_pos):
    away = q_pos[:, None, :, None] - k_pos[:, None, None, :]
    return -(away.astype('float32') ** 2) / 9


@pytest.fixture(scope='module')
def shown():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(positions.SCHEMES, BARE, Bare)
    yield {name: page.shown(name) for name in positions.SCHEMES}


@pytest.fixture(scope='module')
def file(shown, tmp_path_factory):
  path = tmp_path_factory.mktemp('explorer') / 'explorer.html'
  path.write_text(page.page(list(shown.values()), positions.FAMILIES, []))
  return path


@pytest.fixture(scope='module')
def chromium():
  with sync_playwright() as playwright:
    one = playwright.chromium.launch(executable_path=browser.BROWSER, args=['--no-sandbox'])
    yield one
    one.close()


@pytest.fixture
def opened(chromium, file):
  """A function that opens the page; whatever a page says on its console fails the test."""
  said = []

  def tab(width=1400, height=1000, mode='light'):
    one = chromium.new_page(viewport={'width': width, 'height': height}, color_scheme=mode)
    one.on('console', lambda message: said.append(message.text))
    one.on('pageerror', lambda error: said.append(str(error)))
    one.goto(file.as_uri())
    settle(one)
    return one

  yield tab
  for one in chromium.contexts:
    one.close()
  assert not said, said


def settle(tab):
  """Waits until everything that was asked for is drawn."""
  tab.evaluate(
    """async () => {
      const frame = () => new Promise(requestAnimationFrame);
      await frame(); await frame();
      for (const {chart, decay} of panels) { await chart.made; await decay.made; }
      await waves.made; await frame(); await frame();
    }"""
  )


def readouts(tab):
  return tab.locator('#panels .readout').all_inner_texts()


def number(text: str) -> float:
  return float(text.replace('−', '-').replace('+', '').replace(',', ''))


def on_logit(readout: str) -> float:
  return number(re.search(r'on the logit of [^:]*: ([^;.]*(?:\.\d+)?)', readout)[1])


def pixels(tab, panel: int) -> np.ndarray:
  """What the canvas of a panel shows, as an array."""
  canvas = tab.locator('#panels canvas').nth(panel)
  data = canvas.evaluate('(canvas) => canvas.toDataURL()').partition(',')[2]
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))


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
  controls = tab.evaluate('(name) => TWINS[name].controls', name)
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
  else:
    nnx.update(scheme, nnx.state(own, nnx.Param))
  return scheme


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_twins_compute_what_modules_compute(name, shown, opened):
  tab, one = opened(), shown[name]
  cases = [(c, length, layer) for c, (length, layer) in zip(
    choices(name, tab), itertools.cycle([(16, 0), (9, 3), (65, 1), (130, 2)])
  )]  # fmt: skip
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


def test_twins_leave_alone_what_they_do_not_follow(opened):
  tab = opened()
  ask = """([name, change]) => {
    const args = {...DATA.schemes[name].arguments, ...change};
    return valuesOf(name, args, {}, 20)?.constructor.name ?? null;
  }"""
  assert tab.evaluate(ask, ['yarn', {'factor': 2}]) == 'Computed'
  assert tab.evaluate(ask, ['yarn', {'slice_factor': 1.2}]) is None
  assert tab.evaluate(ask, ['t5', {'bidirectional': True}]) is None


def test_embedded_values_are_the_modules(shown, opened):
  tab = opened()
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


def test_the_switch_redraws_all_four(shown, opened):
  tab = opened()
  before, said = [pixels(tab, i) for i in range(4)], readouts(tab)
  tab.check('#modifier')
  settle(tab)
  after = [pixels(tab, i) for i in range(4)]
  for one, other, words, name in zip(before, after, said, positions.FAMILIES, strict=True):
    assert one.shape != other.shape or (one != other).any(), name
    assert on_logit(words) == pytest.approx(
      effects.of(shown[name].layers[0], shown[name].dims, 16).modifier[0, 9, 4], rel=1e-4, abs=1e-4
    )
  assert all(words.startswith('on the logit') for words in readouts(tab))


def hover(tab, panel: int, across: int, down: int):
  """Moves the mouse onto a cell."""
  tab.locator('#panels .chart').nth(panel).scroll_into_view_if_needed()
  x, y = tab.evaluate(
    """([i, across, down]) => {
      const {view} = panels[i].chart, [left, top] = view.origin(), padding = view.padding();
      const box = panels[i].figure.querySelector('canvas').getBoundingClientRect();
      const at = (name, value) => view.scale(name)(value) + view.scale(name).bandwidth() / 2;
      return [
        box.left + padding.left + left + at('x', across),
        box.top + padding.top + top + at('y', down),
      ];
    }""",
    [panel, across, down],
  )
  tab.mouse.move(x, y)
  settle(tab)


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_numbers_under_the_mouse_are_the_modules(mode, shown, opened):
  tab = opened(mode=mode)
  found = {n: effects.of(shown[n].layers[0], shown[n].dims, 16) for n in positions.FAMILIES}
  added, biased, turned, penalty = (found[name] for name in positions.FAMILIES)
  hover(tab, 0, 5, 12)
  said = number(re.search(r'channel 5: (\S+) onto', readouts(tab)[0])[1])
  assert said == pytest.approx(added.added[12, 5], rel=1e-4)
  hover(tab, 1, 3, 11)
  said = number(re.search(r'query 11, key 3: bias (\S+);', readouts(tab)[1])[1])
  assert said == pytest.approx(biased.bias[0, 11, 3], rel=1e-4)
  hover(tab, 2, 1, 7)
  said = number(re.search(r'position 7, pair 1: turned by (\S+) rad', readouts(tab)[2])[1])
  assert said == pytest.approx(turned.angles[7, 1], rel=1e-3)
  tab.check('#modifier')
  settle(tab)
  hover(tab, 3, 2, 14)
  for effect, words in zip((added, biased, turned, penalty), readouts(tab), strict=True):
    assert 'query 14 and key 2, 12 back' in words
    assert on_logit(words) == pytest.approx(effect.modifier[0, 14, 2], rel=1e-4)


def test_arrow_keys_move_the_cell(shown, opened):
  tab = opened()
  tab.locator('#panels .chart').nth(3).focus()
  for key in ('ArrowDown', 'ArrowDown', 'ArrowRight'):  # a penalty is drawn by distance
    tab.keyboard.press(key)
  settle(tab)
  wanted = effects.of(shown['alibi'].layers[0], shown['alibi'].dims, 16).modifier
  words = readouts(tab)[3]
  assert 'query 11 and key 3' in words
  assert on_logit(words) == pytest.approx(wanted[0, 11, 3], rel=1e-4)
  label = tab.locator('#panels .chart').nth(3).get_attribute('aria-label')
  assert 'query 11 and key 3' in label
  tab.locator('#panels .chart').nth(1).focus()
  for _ in range(20):
    tab.keyboard.press('ArrowRight')
  assert 'query 11, key 11' in readouts(tab)[1]  # no key ahead of the query
  reached = set()
  tab.locator('#modifier').focus()
  for _ in range(40):
    reached.add(tab.evaluate('document.activeElement.className || document.activeElement.tagName'))
    tab.keyboard.press('Tab')
  assert {'SELECT', 'INPUT'} <= reached and any('chart' in one for one in reached)


@pytest.mark.parametrize('name', [*positions.SCHEMES, BARE])
def test_every_scheme_renders(name, opened):
  tab = opened()
  blank = pixels(tab, 0)[0, 0]
  tab.locator('#panels select').first.select_option(name)
  for modifier in (False, True):
    tab.set_checked('#modifier', modifier)
    settle(tab)
    assert (pixels(tab, 0) != blank).any()
    words = readouts(tab)[0]
    assert 'NaN' not in words and 'undefined' not in words and re.search(r'\d', words)
  assert positions.SCHEMES.get(name, Bare).label in tab.locator('#decay h3').first.inner_text()


def test_controls_change_the_numbers(shown, opened):
  tab = opened()
  tab.get_by_label(re.compile('^max bias')).fill('4')
  settle(tab)
  one = shown['alibi']
  wanted = effects.of(as_built(one, {'max_bias': 4.0}, 0, one.dims), one.dims, 16)
  assert on_logit(readouts(tab)[3]) == pytest.approx(wanted.modifier[0, 9, 4], rel=1e-4)
  tab.get_by_label(re.compile('^length')).fill('40')
  settle(tab)
  assert tab.evaluate('panels[1].cells.length') == 40 * 41 // 2


def test_what_the_page_does_not_know_is_said(opened):
  tab = opened()
  tab.locator('#panels select').first.select_option(BARE)
  tab.get_by_label(re.compile('^length')).fill('20')
  settle(tab)
  assert 'has those at lengths 8, 16, 32, 64' in readouts(tab)[0]
  tab.locator('#panels select').first.select_option('learned')
  tab.get_by_label(re.compile('^length')).fill('80')
  settle(tab)
  assert tab.evaluate('Math.max(...panels[0].cells.map((cell) => cell.y))') == 63


@pytest.mark.parametrize('mode', ['light', 'dark'])
@pytest.mark.parametrize('width', [360, 768, 1920])
def test_nothing_is_too_wide(width, mode, opened):
  tab = opened(width=width, mode=mode)
  assert tab.evaluate('document.documentElement.scrollWidth') <= width
  for box in tab.locator('#panels canvas').all():
    found = box.bounding_box()
    assert found['x'] >= 0 and found['x'] + found['width'] <= width
  paper = tab.evaluate('getComputedStyle(document.body).backgroundColor')
  assert (paper == 'rgb(255, 255, 255)') == (mode == 'light')


def test_the_page_is_alone_and_small(file):
  text = file.read_text()
  assert len(text.encode()) < 3e6
  assert not re.search(r'(?:src|href)="(?!data:|https://arxiv)', text.partition('<script')[0])


def test_everything_has_a_name_for_a_screen_reader(opened):
  tab = opened()
  unnamed = tab.evaluate(
    """() => [...document.querySelectorAll('input, select, [role=img], [role=application]')]
      .filter((e) => !e.getAttribute('aria-label') && !e.labels?.length).map((e) => e.outerHTML)"""
  )
  assert not unnamed
