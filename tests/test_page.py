"""The page in a browser: whole, quiet, and readable on phones and desks, by day and by night."""

import functools
import html
import json
import pathlib
import re
import shutil
import subprocess

import pytest
import sweeps

from experiments import report
from experiments.report import card_figure
from pe_research import card, positions

BROWSER = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--hide-scrollbars', '--enable-logging=stderr', '--virtual-time-budget=2000',
)  # fmt: skip
SCHEMES = {'light': 'preferredColorScheme=1', 'dark': 'preferredColorScheme=0'}
MARKS = ['data.source (nope_seed0 -> rope_seed1): ' + 'd' * 64 + ' -> ' + 'e' * 64]
# Measures the laid-out page, in a frame as a window cannot be as narrow as a phone; what it finds
# goes into the title of the page around it, where --dump-dom shows it.
PROBE = """
<script>
const box = (e) => { const r = e.getBoundingClientRect();
  return [r.left, r.top, r.right, r.bottom, e.textContent]; };
const all = (query, root = document) => [...root.querySelectorAll(query)];
all('details').forEach((d) => { d.open = true; });
const tooWide = (e) => !e.closest('.scroll, svg') && box(e)[2] > innerWidth + 0.5;
parent.postMessage(JSON.stringify({
  width: innerWidth,
  scroll: document.documentElement.scrollWidth,
  dark: matchMedia('(prefers-color-scheme: dark)').matches,
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(all('figure text')[0]).fill,
  figures: all('figure svg').filter((s) => s.clientWidth).map(
    (s) => ({box: box(s).slice(0, 4), texts: all('text', s).map(box)})),
  wide: all('main *').filter(tooWide).map((e) => e.outerHTML.slice(0, 80)),
  boxes: all('.scroll').map((e) => box(e)[2]),
}), '*');
</script>
"""
AROUND = """<!DOCTYPE html><meta name="color-scheme" content="light dark"><title></title><script>
onmessage = (event) => { document.title = event.data; };
</script><iframe src="probe.html" width="%d" height="900" style="border: 0"></iframe>"""

pytestmark = pytest.mark.skipif(
  not BROWSER, reason='no chromium, chromium-browser or google-chrome on PATH'
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A page with everything in it, and a copy that measures itself."""
  root = tmp_path_factory.mktemp('site')
  measured = [('fixed_targets', 'cropped'), ('sliding', 'none')]
  report.write(sweeps.runs(root, (0, 1, 2), measures=measured), root, MARKS)
  text = (root / 'report.html').read_text()
  (root / 'probe.html').write_text(text.replace('</body>', f'{PROBE}</body>'))
  return root


@functools.cache
def panels():
  """How many drawings the cards of all schemes have."""
  cards = [card.card(sweeps.run(pathlib.Path(), name).config) for name in positions.SCHEMES]
  return sum(len(card_figure.panels(one)) for one in cards)


def browse(site, page, mode='light', action='--dump-dom'):
  command = [
    BROWSER, *FLAGS, f'--user-data-dir={site / "profile"}', '--window-size=1280,900',
    f'--blink-settings={SCHEMES[mode]}', action, (site / page).as_uri(),
  ]  # fmt: skip
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
  assert 'CONSOLE' not in done.stderr, done.stderr
  return done.stdout


def probe(site, width=1280, mode='light'):
  (site / 'around.html').write_text(AROUND % width)
  title = re.search(r'<title>(.*?)</title>', browse(site, 'around.html', mode=mode), re.DOTALL)
  return json.loads(html.unescape(title[1]))


def test_the_page_loads_whole_and_without_a_word_on_the_console(site):
  dom = browse(site, 'report.html')
  tables = re.findall(r'<table.*?</table>', dom, re.DOTALL)
  losses = [table for table in tables if 'bits per byte by evaluation length' in table]
  assert len(losses) == 3  # a section each
  for table in losses:
    heads = re.findall(r'<th scope="row"[^>]*>(.*?)</th>', table)
    assert heads == [scheme.label for scheme in positions.SCHEMES.values()]
    assert table.count('<td') == len(heads) * len(sweeps.LENGTHS)
  assert dom.count('<svg') == 6 + panels() and dom.count('role="img"') == 3 + panels()
  assert dom.count('<details class="card">') == len(positions.SCHEMES)
  assert all(f'-line-{name}"' in dom for name in positions.SCHEMES)


@pytest.mark.parametrize('mode', ['light', 'dark'])
@pytest.mark.parametrize('width', [360, 1280])
def test_nothing_is_too_wide_or_on_top_of_another(site, width, mode):
  found = probe(site, width, mode)
  assert found['width'] == width and found['dark'] == (mode == 'dark')
  assert found['scroll'] <= width and not found['wide'], found['wide']
  assert max(found['boxes']) <= width
  assert len(found['figures']) == 3 + panels()
  for figure in found['figures']:
    left, top, right, bottom = figure['box']
    texts = [text for text in figure['texts'] if text[4]]
    for i, (x0, y0, x1, y1, text) in enumerate(texts):
      assert left <= x0 and x1 <= right and top <= y0 and y1 <= bottom, f'{text!r} is cut off'
      assert min(x1 - x0, y1 - y0) >= 5 and max(x1 - x0, y1 - y0) >= 9, f'{text!r} is too small'
      for u0, v0, u1, v1, other in texts[i + 1 :]:
        assert x1 <= u0 or u1 <= x0 or y1 <= v0 + 2 or v1 <= y0 + 2, f'{text!r} is on {other!r}'


def test_ink_and_paper_follow_the_reader(site):
  light, dark = (probe(site, mode=mode) for mode in SCHEMES)
  assert (light['paper'], light['ink']) == ('rgb(255, 255, 255)', 'rgb(26, 27, 28)')
  assert (dark['paper'], dark['ink']) == ('rgb(21, 23, 26)', 'rgb(230, 232, 234)')


def test_it_prints(site):
  target = site / 'page.pdf'
  browse(site, 'report.html', action=f'--print-to-pdf={target}')
  assert target.read_bytes()[:5] == b'%PDF-'
