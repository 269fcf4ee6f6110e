"""The page in a browser: whole, quiet, and readable on phones and desks, by day and by night."""

import functools
import pathlib
import re

import browser
import pytest
import sweeps

from experiments.report import writer
from pe_research import positions
from pe_research.settings import configs
from pe_research.show import card_figure, card_text

MARKS = ['data.source (nope_seed0 -> rope_seed1): ' + 'd' * 64 + ' -> ' + 'e' * 64]
pytestmark = browser.needed


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A page with everything in it."""
  root = tmp_path_factory.mktemp('site')
  measured = [('fixed_targets', 'cropped'), ('sliding', 'none')]
  writer.write(sweeps.runs(root, (0, 1, 2), measures=measured), root, MARKS)
  return root / 'report.html'


@functools.cache
def panels():
  """How many drawings the cards of all schemes have."""
  found = [sweeps.run(pathlib.Path(), name).config for name in positions.SCHEMES]
  made = [card_text.card(configs.scheme(config), config['length']) for config in found]
  return sum(len(card_figure.panels(one)) for one in made)


def test_the_page_loads_whole_and_without_a_word_on_the_console(site):
  dom = browser.browse(site)
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
  found = browser.probe(site, width, mode)
  browser.check_layout(found, width, mode)
  assert len(found['figures']) == 3 + panels()


def test_ink_and_paper_follow_the_reader(site):
  light, dark = (browser.probe(site, mode=mode) for mode in browser.SCHEMES)
  assert (light['paper'], light['ink']) == ('rgb(255, 255, 255)', 'rgb(26, 27, 28)')
  assert (dark['paper'], dark['ink']) == ('rgb(21, 23, 26)', 'rgb(230, 232, 234)')


def test_it_prints(site):
  target = site.parent / 'page.pdf'
  browser.browse(site, action=f'--print-to-pdf={target}')
  assert target.read_bytes()[:5] == b'%PDF-'
