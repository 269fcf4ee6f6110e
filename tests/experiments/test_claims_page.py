"""The page of the claims in a browser, from the rows that are kept."""

import re

import browser
import PIL.Image
import pytest
import run_fixtures

from experiments import claims
from experiments.report.claims import drawings, rows
from experiments.report.claims import writer as pages
from experiments.studies import scales


@pytest.fixture(scope='module')
def loaded():
  return pages.load(scales.CPU)


@pytest.fixture(scope='module')
def page(loaded, tmp_path_factory):
  folder = tmp_path_factory.mktemp('claims')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pages, 'load', lambda scale: loaded)
    pages.write(scales.CPU, folder)
  return folder / 'claims.html'


@browser.needed
def test_every_claim_has_a_row_and_a_section(page):
  dom = browser.browse(page)
  for claim in claims.CLAIMS.values():
    assert dom.count(f'<section id="{claim.id}">') == 1
    assert dom.count(f'<th scope="row"><a href="#{claim.id}">') == 1
  assert all(f'href="#{claim}"' in dom for claim in rows.FIRST)


@browser.needed
@pytest.mark.parametrize('mode', ['light', 'dark'])
@pytest.mark.parametrize('width', [360, 1280])
def test_nothing_is_too_wide_or_on_top_of_another(page, width, mode):
  browser.check_layout(browser.probe(page, width, mode), width, mode)


@browser.needed
def test_it_prints(page):
  target = page.parent / 'page.pdf'
  browser.browse(page, action=f'--print-to-pdf={target}')
  assert target.read_bytes()[:5] == b'%PDF-'


def test_the_committed_results_are_those_of_the_kept_rows(page):
  here = run_fixtures.ROOT / 'experiments'
  assert (page.parent / 'RESULTS.md').read_text() == (here / 'RESULTS.md').read_text()
  pictures = [PIL.Image.open(folder / 'claims.png') for folder in (page.parent, here)]
  made, kept = (picture.text['Description'] for picture in pictures)
  assert made == kept and made.count('\n') == len(claims.CLAIMS) - 1


def test_what_a_figure_is_said_to_be_is_there(page):
  said = re.findall(r'role="img" aria-label="C01, (\w+): (.*?)">', page.read_text())
  assert dict(said) == {
    'lines': 'Means over seeds; bands reach from the lowest to the highest.',
    'effects': 'the table below holds the numbers.',
  }


def test_lengths_are_written_where_there_is_room(loaded):
  findings, _ = loaded
  (finding,) = [f for f in findings if f.claim.id == 'C01']
  written = lambda axes: [t.get_text() for t in axes.get_xticklabels() if t.get_text()]
  lengths = ['32', '64', '128', '256', '512', '1024']
  assert written(drawings.lines(finding).axes[0]) == lengths
  assert written(drawings.lines(finding, narrow=True).axes[0])[:2] == lengths[:2]
