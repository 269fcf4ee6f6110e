"""Figures show what the rows of the runs say."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import sweeps
from hypothesis import given
from hypothesis import strategies as st

from experiments.report import figures, render, summary, tables
from pe_research import positions
from pe_research.show import drawing, palette

CROPPED = [('fixed_targets', 'cropped')]
SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture(scope='module', params=[(0,), (0, 1, 2)], ids=['one seed', 'three seeds'])
def section(request, tmp_path_factory):
  return summary.sections(sweeps.runs(tmp_path_factory.mktemp('sweep'), request.param))[0]


def lines_of(svg):
  """{'rope': [(x, y), ...]}, and {tick label: x}."""
  root = ET.fromstring(svg)
  groups = {g.get('id'): g for g in root.iter(f'{SVG}g') if g.get('id')}
  lines, ticks = {}, {}
  for name, group in groups.items():
    if found := re.search(r'-line-(\w+)$', name):
      drawn = group.find(f'{SVG}path').get('d')
      lines[found[1]] = [tuple(map(float, p)) for p in re.findall(r'[ML] (\S+) (\S+)', drawn)]
    if '-xtick_' in name:
      label = ''.join(t.text for t in group.iter(f'{SVG}text'))
      ticks[label] = float(next(group.iter(f'{SVG}use')).get('x'))
  return lines, ticks


@pytest.mark.parametrize('narrow', [False, True])
def test_a_line_a_scheme_that_ends_where_its_values_end(section, narrow):
  drawn = figures.loss_by_length(section, narrow)
  lines, ticks = lines_of(drawing.svg(drawn, 'loss'))
  shown = sweeps.LENGTHS[:: 1 + narrow]
  assert [tick for tick in ticks if tick] == [str(length) for length in shown]
  assert list(lines) == list(positions.SCHEMES)
  first, last = ticks['64'], ticks['4096']
  place = lambda length: first + (last - first) * math.log2(length / 64) / 6
  for scheme in section.schemes:
    defined = [n for n in sweeps.LENGTHS if section.values(scheme, n)]
    xs = [x for x, _ in lines[scheme.key]]
    np.testing.assert_allclose(xs, [place(n) for n in defined], atol=1e-3)
  assert len(lines['learned']) == 1 < len(lines['rope'])
  for i, length in enumerate(sweeps.LENGTHS):
    there = [s for s in section.schemes if section.values(s, length)]
    by_loss = sorted(there, key=lambda s: section.mean(s, length))
    assert by_loss == sorted(there, key=lambda s: -lines[s.key][i][1])


def test_the_figure_says_what_it_shows(section):
  figure = figures.loss_by_length(section)
  svg = drawing.svg(figure, 'loss')
  root = ET.fromstring(svg)
  texts = [t.text for t in root.iter(f'{SVG}text')]
  for text in ('evaluation length (tokens)', 'validation loss (bits per byte)', 'training length'):
    assert text in texts
  for label in (s.label for s in positions.SCHEMES.values()):
    assert sum(text == label or text.startswith((f'{label},', f'{label} ↑')) for text in texts) == 1
  assert ('id="loss-band-rope"' in svg) == section.several_seeds
  dashed = next(g for g in root.iter(f'{SVG}g') if g.get('id') == 'loss-training-length')
  x = float(re.search(r'M (\S+)', dashed.find(f'{SVG}path').get('d'))[1])
  assert x == pytest.approx(lines_of(svg)[1]['64'], abs=1e-3)
  assert drawing.png(figure)[:8] == b'\x89PNG\r\n\x1a\n'


@pytest.mark.parametrize('other', [256, 512])
def test_the_length_that_all_are_stretched_to_is_marked(tmp_path, other):
  stretched = [
    sweeps.run(tmp_path, name, position={'factor': target / 64, 'target_length': target})
    for name, target in (('pi', 256), ('ntk', other))
  ]
  section = summary.sections([sweeps.run(tmp_path, 'rope'), *stretched])[0]
  svg = drawing.svg(figures.loss_by_length(section), 'loss')
  found = [g for g in ET.fromstring(svg).iter(f'{SVG}g') if g.get('id') == 'loss-target-length']
  if other != 256:
    assert not found and section.target_length is None
    return
  x = float(re.search(r'M (\S+)', found[0].find(f'{SVG}path').get('d'))[1])
  assert x == pytest.approx(lines_of(svg)[1]['256'], abs=1e-3) and '>target length<' in svg


def test_a_band_reaches_from_the_lowest_seed_to_the_highest():
  section = sweeps.section({'a': {64: [2.0, 2.1, 2.3], 128: [2.2, 2.6, 2.4]}, 'b': {64: 2.0}})
  axes = figures.loss_by_length(section).axes[0]
  (band,) = [c for c in axes.collections if c.get_gid() == 'band-a']
  assert {tuple(p) for p in band.get_paths()[0].vertices} == {
    (64, 2.0), (64, 2.3), (128, 2.2), (128, 2.6),
  }  # fmt: skip
  line = next(line for line in axes.lines if line.get_gid() == 'line-a')
  assert line.get_ydata() == pytest.approx([6.4 / 3, 2.4])


@pytest.mark.parametrize('highest', [2.7, 4.0, 7.9, 30.0, math.inf, math.nan])
def test_what_rises_does_not_squash_what_does_not(highest):
  losses = {'a': {64: 2.3, 128: 2.31}, 'b': {64: 2.6, 128: 2.62}, 'c': {64: 2.4, 128: highest}}
  section = sweeps.section(losses)
  limit, axes = figures.limits(section), figures.loss_by_length(section).axes[0]
  height = lambda loss: (axes.transScale + axes.transLimits).transform((64, loss))[1]
  assert height(2.6) - height(2.3) > 0.3
  assert limit.low < 2.3 and limit.top <= figures.CEILING
  assert (limit.knee is not None) == (3 < highest < math.inf)
  texts = [text.get_text() for text in axes.texts]
  name = f'C ↑ {highest:.1f}' if highest > limit.top else 'C'
  assert (name if math.isfinite(highest) else 'C ↑ not finite') in texts
  assert any('compressed above' in text for text in texts) == (limit.knee is not None)


def test_a_gap_is_a_gap_and_what_was_never_measured_is_no_line():
  losses = {'a': {64: 2.3, 256: 2.4}, 'b': {64: 2.3, 128: 2.4, 256: 2.5}, 'c': {64: None}}
  section = sweeps.section(losses)
  lines, _ = lines_of(drawing.svg(figures.loss_by_length(section), 'f'))
  assert list(lines) == ['a', 'b'] and len(lines['a']) == 2
  drawn = drawing.svg(figures.loss_by_length(section), 'f')
  path = next(g for g in ET.fromstring(drawn).iter(f'{SVG}g') if g.get('id') == 'f-line-a')
  assert path.find(f'{SVG}path').get('d').count('M') == 2
  cells = [cell for row in tables.losses(section, 'value').rows for cell in row]
  assert 'not run' in [cell.text for cell in cells]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.08))
def test_names_beside_lines_keep_apart_and_in_order(wanted, gap):
  heights = drawing.apart(wanted, gap)
  ranked = [heights[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
  assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(ranked))
  assert min(heights) >= 0 and max(heights) <= 1 + 1e-9
  free = [abs(a - b) >= gap for a, b in itertools.combinations(wanted, 2)]
  if all(free):
    assert heights == pytest.approx(wanted, abs=1e-6)


def test_many_schemes_look_different():
  looks = [figures.style(summary.Scheme('', '', i, 64, ())) for i in range(360)]
  assert len({(k['color'], k['marker'], k['linestyle']) for k in looks}) == 360
  grey = [(k['marker'], k['linestyle']) for k in looks]
  assert len(set(grey[:45])) == 45


def luminance(color):
  channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
  return np.dot(linear, [0.2126, 0.7152, 0.0722])


def contrast(one, other):
  low, high = sorted([luminance(one), luminance(other)])
  return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize('mode', [0, 1], ids=['light', 'dark'])
def test_text_and_lines_stand_out_from_their_paper(mode):
  roots = re.findall(r':root \{(.*?)\}', render.text('style.css'), re.DOTALL)
  colors = dict(re.findall(r'--([\w-]+): (#[0-9a-f]{6})', roots[mode]))
  for text in ('ink', 'soft', 'link'):
    for paper in ('paper', 'worse'):
      assert contrast(colors[text], colors[paper]) >= 4.5, (text, paper)
  assert contrast(colors['warn'], colors['warn-paper']) >= 4.5
  assert contrast(colors['ink'], colors['warn-paper']) >= 4.5
  for pair in palette.PALETTE:
    assert contrast(pair[mode], colors['paper']) >= 3
