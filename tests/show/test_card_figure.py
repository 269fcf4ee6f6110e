"""Drawings of scheme cards, and the cards of a page: a mark, a row and a fact for all there is."""

import html
import itertools
import re
import xml.etree.ElementTree as ET

import card_case
import decoder_fixtures as fixtures
import matplotlib.text
import numpy as np
import pytest
import sweeps
from matplotlib.backends import backend_agg

from experiments.report import cards, summary, writer
from pe_research import positions
from pe_research.positions import facts
from pe_research.settings import configs
from pe_research.show import card_figure, card_text, drawing


@pytest.mark.usefixtures('extra_schemes')
@pytest.mark.parametrize('name', fixtures.NAMES)
def test_a_drawing_has_a_mark_for_each_part(name):
  made = fixtures.scheme(name).card(fixtures.TRAINED, 4096)
  shown = [column for column in made.columns if column.drawn]
  marks, labels = 0, []
  for columns in card_figure.panels(made):
    (axes,) = card_figure.panel(made, columns).axes
    lines = [line for line in axes.lines if (line.get_gid() or '').startswith('marks-')]
    marks += sum(len(line.get_xdata()) for line in lines)
    labels.append((axes.get_xlabel(), axes.get_ylabel()))
    low, high = axes.get_ylim()
    assert all(low < y <= high for line in lines for y in line.get_ydata())
    ending = [line for line in lines if not line.get_gid().endswith('-endless')]
    for line, column in zip(ending, columns, strict=True):
      values = np.array(column.values)
      np.testing.assert_allclose(line.get_ydata(), values[np.isfinite(values)])
  assert marks == sum(len(column.values) for column in shown)
  assert bool(shown) == bool(made.part)
  assert all(x == f'{made.part} (index)' for x, _ in labels)
  assert all(re.fullmatch(r'\w[\w ]* \((tokens|×)\)', y) for _, y in labels)


def test_what_has_no_end_is_at_the_upper_edge_and_what_has_no_place_is_absent():
  made = card_case.card('alibi', 64, biased_heads=1)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  by_gid = {line.get_gid(): line for line in axes.lines}
  assert list(by_gid['marks-window'].get_xdata()) == [0]
  assert list(by_gid['marks-window-endless'].get_xdata()) == [1, 2, 3]
  assert set(by_gid['marks-window-endless'].get_ydata()) == {axes.get_ylim()[1]}
  made = card_case.card('t5', 64, max_distance=17)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  assert len(axes.lines[-1].get_xdata()) == 32 - 14


CROWDED = {
  'yarn': ('yarn', 128, 4096, {'factor': 8}),
  'close lengths': ('dynamic_yarn', 100, 130, {'factor': 2, 'train_length': 50}),
  'wide': ('abf', 4096, 16_000_000, {'new_base': 5e7, 'head_dim': 128}),
  'four lengths': ('yarn', 8192, 262_144, {'factor': 16, 'train_length': 4096}),
  'all the same': ('pi', 64, None, {'factor': 16}),
  'zero': ('t5', 64, None, {}),
  'endless': ('rope', 64, None, {'fraction': 0.5, 'partial': 'frequencies'}),
}


@pytest.mark.parametrize('case', CROWDED)
def test_no_text_of_a_drawing_is_on_another_or_cut_off(case):
  name, length, longest, given = CROWDED[case]
  made = card_case.card(name, length, longest, **given)
  whole = card_figure.figure(made)
  with drawing.defaults():
    canvas = backend_agg.FigureCanvasAgg(whole)
    canvas.draw()
    texts = [t for t in whole.findobj(matplotlib.text.Text) if t.get_text()]
    hidden = [tick.label1 for axes in whole.axes for tick in axes.xaxis.get_major_ticks()
              if not axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]]  # fmt: skip
    texts = [t for t in texts if t not in hidden]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
  width, height = canvas.get_width_height()
  for text, box in boxes:
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
  for (one, a), (other, b) in itertools.combinations(boxes, 2):
    apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
    assert apart, f'{one!r} is on {other!r}'


def test_the_training_length_is_a_line_and_what_is_past_it_shaded():
  made = card_case.card('rope', 64)
  (axes,) = card_figure.panel(made, card_figure.panels(made)[0]).axes
  levels = {line.get_gid(): line.get_ydata()[0] for line in axes.lines if line.get_gid()}
  assert levels['level-64'] == 64 and levels['level-1024'] == 1024
  (shade,) = [patch for patch in axes.patches if patch.get_gid() == 'past-training']
  assert shade.get_y() == 64
  assert {'training 64', 'longest 1,024'} <= {text.get_text() for text in axes.texts}


def cards_of(text):
  """{label: HTML of its card}."""
  found = re.findall(r'<details class="card"><summary>(.*?)</summary>(.*?)</details>', text, re.S)
  return {html.unescape(re.sub('<small>.*', '', label)).strip(): body for label, body in found}


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  root = tmp_path_factory.mktemp('sweep')
  runs = sweeps.runs(root)
  writer.write(runs, root)
  return runs, (root / 'report.html').read_text()


def test_the_page_has_a_card_for_each_scheme(page):
  runs, text = page
  bodies = cards_of(text)
  assert list(bodies) == [scheme.label for scheme in positions.SCHEMES.values()]
  for run in runs:
    made = card_text.card(configs.scheme(run.config), run.config['length'], 4096)
    body = ET.fromstring(f'<body>{bodies[made.label]}</body>')
    shown = {
      d.find('dt').text: d.find('dd').text for d in body.iter('div') if d.find('dt') is not None
    }
    for fact in made.facts:
      assert shown[fact.name] == f'{facts.text(fact.value)} {fact.unit}'.strip()
    assert len(list(body.iter('svg'))) == len(card_figure.panels(made))
    for note in made.notes:
      assert note in html.unescape(bodies[made.label])
    rows = [[td.text for td in tr.iter('td')] for tr in body.iter('tr')][1:]
    columns = [[facts.text(v) for v in column.values] for column in made.columns]
    assert rows == [list(row) for row in zip(*columns, strict=True)]
  assert re.search(r'<summary>YaRN <small>2 warnings</small></summary>', text)


def test_a_scheme_that_cannot_be_built_is_a_line(tmp_path):
  run = sweeps.run(tmp_path, 'rope', position={'base': 0.5})
  (scheme,) = summary.schemes([run])
  view = cards.of_scheme(scheme, 128, 0)
  assert view == cards.View('RoPE', 'RoPE has no card: position.base is 0.5; it must be above 1.')
  writer.write([run], tmp_path)
  text = (tmp_path / 'report.html').read_text()
  assert view.error in text and '<details class="card">' not in text
