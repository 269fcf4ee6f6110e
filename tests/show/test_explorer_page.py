"""The explorer in a browser: its numbers are the modules', by mouse and keys, at any controls."""

import base64
import dataclasses
import io
import re

import browser
import explorer_case
import numpy as np
import pytest
from explorer_case import hover, number, on_logit, readouts, settle
from flax import nnx
from PIL import Image

from pe_research import positions
from pe_research.positions.base import PositionScheme
from pe_research.show.explorer import effects, page

pytestmark = browser.needed
BARE = 'base'  # a word that twins.js has for something else


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
  with explorer_case.chromium() as one:
    yield one


@pytest.fixture
def opened(chromium, file):
  with explorer_case.tabs(chromium, file) as tab:
    yield tab


@pytest.fixture(scope='module')
def kept(chromium, file):
  """One page for tests that leave it to the next."""
  with explorer_case.tabs(chromium, file) as tab:
    yield tab()


def effect(one: page.Shown, length=16, layer=0, heads=4, **changes) -> effects.Effect:
  """Of a scheme without parameters, with other arguments or sizes."""
  dims = dataclasses.replace(one.dims, layer=layer, heads=heads)
  scheme = positions.build(dict(one.arguments) | changes, dims, nnx.Rngs(0))
  return effects.of(scheme, dims, length)


def pixels(tab, panel: int) -> np.ndarray:
  """What the canvas of a panel shows, as an array."""
  canvas = tab.locator('#panels canvas').nth(panel)
  data = canvas.evaluate('(canvas) => canvas.toDataURL()').partition(',')[2]
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB'))


def pick(tab, panel: int, name: str):
  """Puts a scheme into a panel."""
  tab.get_by_label(f'scheme of panel {panel + 1}', exact=True).select_option(name)
  settle(tab)


def inputs(tab, panel: int) -> list[str]:
  """The names of the controls of a panel."""
  found = tab.locator('#panels .controls').nth(panel).locator('input, select').all()
  return [one.get_attribute('aria-label').partition(',')[0] for one in found]


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


@pytest.mark.parametrize('mode', ['light', 'dark'])
def test_numbers_under_the_mouse_are_the_modules(mode, shown, opened):
  tab = opened(mode=mode)
  found = {n: effects.of(shown[n].layers[0], shown[n].dims, 16) for n in positions.FAMILIES}
  added, biased, turned, penalty = (found[name] for name in positions.FAMILIES)
  hover(tab, 'panels[0].chart', 5, 12)
  said = number(re.search(r'channel 5: (\S+) onto', readouts(tab)[0])[1])
  assert said == pytest.approx(added.added[12, 5], rel=1e-4)
  hover(tab, 'panels[1].chart', 3, 11)
  said = number(re.search(r'query 11, key 3: bias (\S+);', readouts(tab)[1])[1])
  assert said == pytest.approx(biased.bias[0, 11, 3], rel=1e-4)
  hover(tab, 'panels[2].chart', 1, 7)
  said = number(re.search(r'position 7, pair 1: turned by (\S+) rad', readouts(tab)[2])[1])
  assert said == pytest.approx(turned.angles[7, 1], rel=1e-3)
  tab.check('#modifier')
  settle(tab)
  hover(tab, 'panels[3].chart', 2, 14)
  for one, words in zip((added, biased, turned, penalty), readouts(tab), strict=True):
    assert 'query 14 and key 2, 12 back' in words
    assert on_logit(words) == pytest.approx(one.modifier[0, 14, 2], rel=1e-4)


def test_readouts_say_small_numbers_too(shown, opened):
  """Of every position and pair as the page opens: the angle, and the effect on the logit."""
  ask = """() => range(16).flatMap((m) => range(8).map((c) => {
    Object.assign(state, {m, c, n: Math.min(c, m)});
    panels[2].move();
    return panels[2].readout.textContent;
  }))"""
  found, told = effect(shown['rope']), iter(opened().evaluate(ask))
  for m, c in np.ndindex(16, 8):
    words = next(told)
    angle = number(re.search(r'turned by (\S+) rad', words)[1])
    assert angle == pytest.approx(found.angles[m, c], rel=1e-4, abs=1e-12)
    assert on_logit(words) == pytest.approx(found.modifier[0, m, min(c, m)], rel=1e-4, abs=3e-6)


def test_points_of_lines_are_those_under_the_mouse(shown, opened):
  """Of the penalty as the page opens: the line of each head, at its points and between them."""
  tab, bias = opened(), effect(shown['alibi']).bias
  for head, distance, beside in [(1, 8, 0), (0, 12, 0), (2, 14, 0), (3, 15, 0), (0, 9, 0.3)]:
    value = bias[head, 15, 15 - distance]
    hover(tab, 'panels[3].chart', distance + beside, value * (1 + beside / distance))
    words = readouts(tab)[3]
    said = re.search(r'head (\d), distance (\d+): bias (\S+);', words)
    assert (int(said[1]), int(said[2])) == (head, distance)
    assert number(said[3]) == pytest.approx(value, rel=1e-4)
    assert on_logit(words) == pytest.approx(value, rel=1e-4) and f'{distance} back' in words
  assert 'query 15 and key 6' in readouts(tab)[1]  # all panels follow


def test_charts_by_distance_say_their_values(shown, opened):
  tab, wanted = opened(), effect(shown['alibi']).modifier
  readout = tab.locator('#decay .readout').nth(3)
  hover(tab, 'decays[3].reader.chart', 6, wanted[1, 15, 9])
  assert 'head 1: −0.375 on the logit of a key 6 back' in readout.inner_text()
  tab.locator('#decay .chart').nth(3).focus()
  for key in ('ArrowDown', 'ArrowRight'):
    tab.keyboard.press(key)
  said = re.search(r'head 2: (\S+) on the logit of a key 7 back', readout.inner_text())
  assert number(said[1]) == pytest.approx(wanted[2, 15, 8], rel=1e-4)
  hover(tab, 'waves.chart', 3, 2 * np.pi * 10_000 ** (3 / 8))
  assert 'RoPE, pair 3: rotates once in 198.69 tokens' in tab.locator('#waves').inner_text()


def test_arrow_keys_move_the_cell(shown, opened):
  tab = opened()
  tab.locator('#panels .chart').nth(3).focus()
  for key in ('ArrowDown', 'ArrowDown', 'ArrowRight'):  # by heads and by distance
    tab.keyboard.press(key)
  settle(tab)
  words, wanted = readouts(tab)[3], effect(shown['alibi']).modifier
  assert 'head 2, distance 6' in words and 'query 9 and key 3' in words
  assert on_logit(words) == pytest.approx(wanted[2, 9, 3], rel=1e-4)
  assert tab.locator('#said').inner_text() in f'ALiBi: {words}'
  tab.locator('#panels .chart').nth(1).focus()
  for key in ('ArrowDown', *['ArrowRight'] * 20):
    tab.keyboard.press(key)
  assert 'query 10, key 10' in readouts(tab)[1]  # no key ahead of the query
  reached = set()
  tab.locator('#modifier').focus()
  for _ in range(40):
    reached.add(tab.evaluate('document.activeElement.className || document.activeElement.tagName'))
    tab.keyboard.press('Tab')
  assert {'SELECT', 'INPUT', 'BUTTON'} <= reached and any('chart' in one for one in reached)


@pytest.mark.parametrize('name', [*positions.SCHEMES, BARE])
def test_every_scheme_renders(name, kept):
  tab = kept
  blank = pixels(tab, 0)[0, 0]
  pick(tab, 0, name)
  for modifier in (False, True):
    tab.set_checked('#modifier', modifier)
    settle(tab)
    assert (pixels(tab, 0) != blank).any()
    words = readouts(tab)[0]
    assert 'NaN' not in words and 'undefined' not in words and re.search(r'\d', words)
  assert positions.SCHEMES.get(name, Bare).label in tab.locator('#decay h3').first.inner_text()


def test_controls_change_the_numbers_and_can_be_taken_back(shown, opened):
  tab = opened()
  before = readouts(tab)[3]
  tab.get_by_label('max bias, panel 4').fill('4')
  tab.get_by_label('biased heads, panel 4').fill('3')
  settle(tab)
  wanted = effect(shown['alibi'], max_bias=4.0, biased_heads=3).modifier
  assert on_logit(readouts(tab)[3]) == pytest.approx(wanted[0, 9, 4], rel=1e-4)
  tab.get_by_label('reset, panel 4').click()
  settle(tab)
  assert readouts(tab)[3] == before
  assert tab.get_by_label('max bias, panel 4').input_value() == '8'
  tab.get_by_label(re.compile('^length')).fill('40')
  settle(tab)
  assert tab.evaluate('panels[1].cells.length') == 40 * 41 // 2


def test_only_controls_that_do_something_are_shown(opened):
  tab = opened()
  shared = lambda: [
    label.inner_text().split()[0] for label in tab.locator('#bar > label:visible').all()
  ]
  assert shared() == ['show', 'length', 'head', 'heads', 'training']
  pick(tab, 3, 'kerple')  # whose heads have parameters
  assert shared() == ['show', 'length', 'head', 'training']
  pick(tab, 1, 'rnope')
  pick(tab, 3, 'abf')
  assert shared() == ['show', 'length', 'layer', 'training']  # all heads are alike
  assert inputs(tab, 3) == ['new base', 'fraction']
  assert inputs(tab, 1) == ['base', 'fraction', 'period', 'window']
  tab.get_by_label('layer, of panels').fill('3')
  settle(tab)
  assert inputs(tab, 1) == ['period']  # a layer without positions
  pick(tab, 0, 'longrope')
  assert 'factor' not in inputs(tab, 0)
  tab.get_by_label('temperature, panel 1').select_option('su')
  settle(tab)
  assert 'factor' in inputs(tab, 0)


def test_heads_end_with_the_last(opened):
  tab = opened()
  head = tab.get_by_label('head, of panels')
  assert head.get_attribute('max') == '3'
  tab.get_by_label('heads, of panels').fill('6')
  settle(tab)
  assert head.get_attribute('max') == '5'


def test_defaults_that_follow_are_said(opened):
  tab = opened()
  pick(tab, 0, 'rnope')
  window = tab.get_by_label('window, panel 1')
  assert window.get_attribute('aria-valuetext') == '32 (default)'
  tab.get_by_label(re.compile('^training length')).fill('128')
  settle(tab)
  assert window.get_attribute('aria-valuetext') == '64 (default)'
  assert window.input_value() == '64'
  pick(tab, 0, 'longrope')
  said = tab.get_by_label('start tokens, panel 1').get_attribute('aria-valuetext')
  assert said == '0 (default)'


def test_factors_that_no_search_found_are_called_so(opened):
  tab = opened()
  pick(tab, 0, 'longrope')
  said = 'its factors are an example'
  assert said in tab.locator('#panels .formula').first.inner_text()
  assert said in tab.locator('#wave-notes').inner_text()


def test_what_the_page_does_not_know_is_said(shown, opened):
  tab = opened()
  pick(tab, 0, BARE)
  tab.get_by_label(re.compile('^length')).fill('20')
  settle(tab)
  assert 'has its values at lengths 8, 16, 32, 64' in readouts(tab)[0]
  pick(tab, 0, 'learned')
  tab.get_by_label(re.compile('^length')).fill('100')
  settle(tab)
  with pytest.raises(ValueError) as refused:
    shown['learned'].layers[0].check_length(100)
  assert readouts(tab)[0] == str(refused.value)
  assert not tab.locator('#panels .chart').first.is_visible()


def test_places_are_named_by_their_families(opened):
  tab = opened()
  assert [title.split('\n')[0] for title in tab.locator('#panels h3').all_inner_texts()] == [
    'Absolute', 'Relative', 'Rotary', 'Linear penalty'
  ]  # fmt: skip
  assert [tab.locator('#panels .panel > select').nth(i).input_value() for i in range(4)] == list(
    positions.FAMILIES
  )


def test_formulas_have_the_names_of_the_controls(shown, opened):
  """A number that a control moves is a name in the formula."""
  tab = opened()
  pick(tab, 0, 'llama3')
  text = tab.locator('#panels .formula').first.inner_text()
  assert 'fhigh' in text and 'flow' in text
  alibi = tab.locator('#panels .formula').nth(3).inner_text()
  assert '2−max_bias (h + 1)/H' in alibi
  for h in range(4):
    assert effect(shown['alibi']).bias[h, 1, 0] == pytest.approx(-(2.0 ** (-8 * (h + 1) / 4)))
