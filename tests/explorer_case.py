"""The explorer in Chromium, for tests: opened, drawn to the end, pointed into and listened to."""

import contextlib
import re

import browser
from playwright.sync_api import sync_playwright

PATIENCE = 120_000  # milliseconds, on a machine that does other work
# Waits until everything that was asked for is drawn.
SETTLE = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  await ready; await frame(); await frame();
  for (const chart of charts()) await chart.drawn;
  await frame(); await frame();
}"""
# Every chart of the page; where a value of one lies in the window.
FUNCTIONS = """
globalThis.charts = () => [...panels, ...decays.map((one) => one.reader), waves,
  ...look.maps.map((map) => map.reader), look.losses].filter(Boolean).map((one) => one.chart);
globalThis.placeOf = (chart, x, y) => {
  const {view} = chart, [left, top] = view.origin(), padding = view.padding();
  const box = chart.holder.querySelector('canvas').getBoundingClientRect();
  const at = (axis, value) => {
    const scale = view.scale(axis);
    return scale(value) + (scale.bandwidth?.() ?? 0) / 2;
  };
  return [box.left + padding.left + left + at('x', x), box.top + padding.top + top + at('y', y)];
};
"""


@contextlib.contextmanager
def chromium():
  """A browser."""
  with sync_playwright() as playwright:
    one = playwright.chromium.launch(executable_path=browser.BROWSER, args=['--no-sandbox'])
    yield one
    one.close()


@contextlib.contextmanager
def tabs(chromium, file):
  """A function that opens the page; whatever a page says on its console is an error."""
  said, pages = [], []

  def tab(width=1400, height=1000, mode='light', before=''):
    one = chromium.new_page(viewport={'width': width, 'height': height}, color_scheme=mode)
    pages.append(one)
    one.set_default_timeout(PATIENCE)
    one.on('console', lambda message: said.append(message.text))
    one.on('pageerror', lambda error: said.append(str(error)))
    if before:
      one.add_init_script(before)
    one.goto(file.as_uri())
    one.evaluate(f'() => {{ {FUNCTIONS} }}')
    settle(one)
    return one

  yield tab
  for one in pages:
    one.close()
  assert not said, said


def settle(tab):
  """Waits until everything that was asked for is drawn."""
  tab.evaluate(SETTLE)


def readouts(tab):
  """What the panels say."""
  return tab.locator('#panels .readout').all_inner_texts()


def hover(tab, chart: str, x, y):
  """Moves the mouse to values x, y of a chart, an expression such as 'panels[0].chart'."""
  tab.evaluate(f'{chart}.element.scrollIntoView({{block: "center"}})')
  tab.mouse.move(*tab.evaluate(f'([x, y]) => placeOf({chart}, x, y)', [x, y]))
  settle(tab)


def number(text: str) -> float:
  """A number as the page writes it."""
  return float(text.replace('−', '-').replace('+', '').replace(',', ''))


def on_logit(readout: str) -> float:
  """The logit modifier that a panel says."""
  return number(re.search(r'on the logit of [^:]*: ([^;.]*(?:\.\d+)?)', readout)[1])
