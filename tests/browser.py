"""Pages in headless Chromium: what they say on the console, and how they are laid out."""

import html
import json
import pathlib
import re
import shutil
import subprocess

import pytest

BROWSER = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), ''
)
FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--hide-scrollbars', '--enable-logging=stderr', '--virtual-time-budget=2000',
)  # fmt: skip
SCHEMES = {'light': 'preferredColorScheme=1', 'dark': 'preferredColorScheme=0'}
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

needed = pytest.mark.skipif(
  not BROWSER, reason='no chromium, chromium-browser or google-chrome on PATH'
)


def browse(page: pathlib.Path, mode='light', action='--dump-dom'):
  """What a browser prints of a page; nothing may be said on its console."""
  command = [
    BROWSER, *FLAGS, f'--user-data-dir={page.parent / "profile"}', '--window-size=1280,900',
    f'--blink-settings={SCHEMES[mode]}', action, page.as_uri(),
  ]  # fmt: skip
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
  assert 'CONSOLE' not in done.stderr, done.stderr
  return done.stdout


def probe(page: pathlib.Path, width=1280, mode='light'):
  """The page laid out at a width, measured."""
  text = page.read_text(encoding='utf-8').replace('</body>', f'{PROBE}</body>')
  (page.parent / 'probe.html').write_text(text)
  around = page.parent / 'around.html'
  around.write_text(AROUND % width)
  title = re.search(r'<title>(.*?)</title>', browse(around, mode), re.DOTALL)
  return json.loads(html.unescape(title[1]))


def check_layout(found, width: int, mode: str):
  """Nothing is too wide, cut off, too small to read or on top of another."""
  assert found['width'] == width and found['dark'] == (mode == 'dark')
  assert found['scroll'] <= width and not found['wide'], found['wide']
  assert max(found['boxes']) <= width
  for figure in found['figures']:
    left, top, right, bottom = figure['box']
    texts = [text for text in figure['texts'] if text[4]]
    for i, (x0, y0, x1, y1, text) in enumerate(texts):
      assert left <= x0 and x1 <= right and top <= y0 and y1 <= bottom, f'{text!r} is cut off'
      assert min(x1 - x0, y1 - y0) >= 5 and max(x1 - x0, y1 - y0) >= 9, f'{text!r} is too small'
      for u0, v0, u1, v1, other in texts[i + 1 :]:
        assert x1 <= u0 or u1 <= x0 or y1 <= v0 + 2 or v1 <= y0 + 2, f'{text!r} is on {other!r}'
