"""The explorer in a browser: laid out at any width, named for screen readers, quick to be there."""

import itertools
import re

import browser
import explorer_case
import pytest
from explorer_case import settle

from pe_research import positions
from pe_research.show import explorer

pytestmark = browser.needed
# Of every chart: the size of its canvas, and the boxes of its legends and of the names of rules.
BOXES = """() => charts().filter((chart) => chart.element.clientWidth).map((chart) => {
  const {view, holder} = chart, [left, top] = view.origin(), padding = view.padding(), found = [];
  const walk = (item, dx, dy) => {
    const {x = 0, y = 0, bounds, marktype, items} = item;
    if (marktype === undefined && item.mark && ['legend', 'axis'].includes(item.mark.role)) {
      found.push([item.mark.role, bounds.x1 + dx, bounds.y1 + dy, bounds.x2 + dx, bounds.y2 + dy]);
    }
    if (item.mark?.marktype === 'text' && item.datum?.at) {
      found.push(['rule', bounds.x1 + dx, bounds.y1 + dy, bounds.x2 + dx, bounds.y2 + dy]);
    }
    for (const child of items ?? []) {
      walk(child, dx + (marktype === undefined ? x : 0), dy + (marktype === undefined ? y : 0));
    }
  };
  walk(view.scenegraph().root, left + padding.left, top + padding.top);
  const canvas = holder.querySelector('canvas');
  return {name: chart.element.getAttribute('aria-label'), size: [canvas.clientWidth,
    canvas.clientHeight], room: chart.element.clientWidth, boxes: found};
})"""
# Writes down in which part of the page each canvas comes to be, and how wide plots in panels are by
# then, which is the last that is done to them.
ORDER = """
globalThis.order = [];
globalThis.widths = () => panels.map(({chart}) => chart.view?.width() ?? null);
new MutationObserver((changes) => {
  for (const {addedNodes} of changes) for (const node of addedNodes) {
    if (node.nodeName === 'CANVAS') {
      order.push([node.closest('#panels, #decay, #waves').id, widths()]);
    }
  }
}).observe(document, {childList: true, subtree: true});
"""


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('explorer') / 'explorer.html'
  path.write_text(explorer.html())
  return path


@pytest.fixture(scope='module')
def chromium():
  with explorer_case.chromium() as one:
    yield one


@pytest.fixture
def opened(chromium, file):
  with explorer_case.tabs(chromium, file) as tab:
    yield tab


def check_charts(tab):
  """Legends, axes and the names of rules lie within their canvas, and that within the page."""
  width = tab.viewport_size['width']
  assert tab.evaluate('document.documentElement.scrollWidth') <= width
  charts = tab.evaluate(BOXES)
  assert len(charts) >= 9
  for chart in charts:
    across, down = chart['size']
    assert across <= chart['room'] <= width, chart['name']
    for kind, x0, y0, x1, y1 in chart['boxes']:
      assert min(x0, y0) >= -1 and x1 <= across + 1 and y1 <= down + 1, (chart['name'], kind)
    rules = [box[1:] for box in chart['boxes'] if box[0] == 'rule']
    for one, other in itertools.pairwise(rules):
      assert one[3] <= other[1] or other[3] <= one[1], f'names of rules overlap: {chart["name"]}'


@pytest.mark.parametrize('mode', ['light', 'dark'])
@pytest.mark.parametrize('width', [360, 768, 1920])
def test_nothing_is_too_wide(width, mode, opened):
  tab = opened(width=width, mode=mode)
  check_charts(tab)
  paper = tab.evaluate('getComputedStyle(document.body).backgroundColor')
  assert (paper == 'rgb(255, 255, 255)') == (mode == 'light')


@pytest.mark.parametrize('width', [360, 1280])
def test_nothing_is_cut_off_after_changes(width, opened):
  tab = opened(width=width)
  for box in tab.locator('#wave-schemes input').all():
    box.check()
  for i, name in enumerate(('kerple', 'xpos', 'yarn')):
    tab.get_by_label(f'scheme of panel {i + 1}', exact=True).select_option(name)
  tab.get_by_label('heads, of panels').fill('5')
  tab.get_by_label(re.compile('^length')).fill('80')
  tab.get_by_label('stretch (×), of wavelengths').fill('1.5')
  settle(tab)
  check_charts(tab)
  names = [box[0] for chart in tab.evaluate(BOXES) for box in chart['boxes']]
  assert names.count('rule') == 4 + 2  # where trained, by distance; training and target length
  tab.check('#modifier')
  settle(tab)
  check_charts(tab)


def test_charts_follow_the_window(opened):
  tab = opened(width=1280)
  sizes = lambda: [chart['size'][0] for chart in tab.evaluate(BOXES)]
  wide = sizes()
  for width in (700, 360):
    tab.set_viewport_size({'width': width, 'height': 900})
    settle(tab)
    check_charts(tab)
  tab.set_viewport_size({'width': 1280, 'height': 900})
  settle(tab)
  assert sizes() == wide


def test_the_page_is_alone_and_small(file):
  text = file.read_text()
  assert len(text.encode()) < 3e6
  assert not re.search(r'(?:src|href)="(?!data:|https://arxiv)', text.partition('<script')[0])


def test_the_panels_come_first(opened):
  tab = opened(before=ORDER)
  order, final = tab.evaluate('order'), tab.evaluate('widths()')
  assert [part for part, _ in order[:4]] == ['panels'] * 4
  assert sorted(part for part, _ in order[4:]) == ['decay'] * 4 + ['waves']
  assert all(widths == final for _, widths in order[4:])


def test_charts_are_named_after_loading_and_after_the_switch(opened):
  tab = opened()
  labels = [positions.scheme(name).label for name in positions.FAMILIES]
  for modifier in (False, True):
    tab.set_checked('#modifier', modifier)
    settle(tab)
    for i, label in enumerate(labels):
      chart = tab.locator('#panels .chart').nth(i)
      assert chart.get_attribute('role') == 'application'
      assert chart.get_attribute('aria-label').startswith(f'{label}: ')
      kind = 'heatmap' if modifier or label != 'ALiBi' else 'line chart'
      assert chart.get_attribute('aria-roledescription') == kind
  exposed = tab.evaluate(
    """() => [...document.querySelectorAll('.chart *')]
      .filter((e) => e.role && !e.closest('[aria-hidden=true]')).length"""
  )
  assert exposed == 0


def test_everything_has_a_name_of_its_own(opened):
  tab = opened()
  names = tab.evaluate(
    """() => [...document.querySelectorAll('input, select, button, [role=application]')]
      .map((e) => e.getAttribute('aria-label') ?? e.labels?.[0]?.innerText)"""
  )
  assert all(names) and len(set(names)) == len(names)
  said = tab.evaluate(
    "() => [...document.querySelectorAll('input[type=range]')].map((e) => e.ariaValueText)"
  )
  assert said and all(re.search(r'\d', text) for text in said)


def test_one_region_speaks(opened):
  tab = opened()
  live = tab.locator('output, [aria-live], [role=status], [role=alert], [role=log]')
  assert live.count() == 1
  tab.locator('#panels .chart').nth(2).focus()
  tab.keyboard.press('ArrowDown')
  assert live.inner_text().startswith('RoPE: position 10, pair 2')
