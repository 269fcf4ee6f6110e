"""The documentation as a site, built once: a page a scheme from the registry, no link broken."""

import functools
import html.parser
import pathlib
import re
import urllib.parse

import pytest
import run_fixtures

from experiments import claims, site
from experiments.report.claims import rows
from experiments.site import build, docstrings, pages
from experiments.studies import scales
from pe_research import positions

pytestmark = pytest.mark.slow  # the whole site is built


class Page(html.parser.HTMLParser):
  """What a page says and links to.

  Attributes:
    links: values of href and src.
    ids: that a link may end in.
    tables: by the heading above; a row is a list of texts of cells.
    text: all of it, blanks as one.
  """

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.links, self.ids, self.tables, self._said = [], set(), {}, []
    self._heading, self._in_heading = '', False
    self.feed(path.read_text(encoding='utf-8'))
    self.text = ' '.join(''.join(self._said).split())

  def handle_starttag(self, tag, attributes):
    given = dict(attributes)
    self.links += [given[name] for name in ('href', 'xlink:href', 'src') if given.get(name)]
    self.ids |= {given['id']} if given.get('id') else set()
    if tag in ('h1', 'h2', 'h3'):
      self._heading, self._in_heading = '', True
    elif tag == 'a' and 'headerlink' in (given.get('class') or ''):
      self._in_heading = False
    elif tag == 'tr':
      self.tables.setdefault(self._heading, []).append([])
    elif tag in ('td', 'th') and self._heading in self.tables:
      self.tables[self._heading][-1].append('')

  def handle_endtag(self, tag):
    if tag in ('h1', 'h2', 'h3'):
      self._in_heading = False

  def handle_data(self, data):
    self._said.append(data)
    if self._in_heading:
      self._heading += data
    elif self._heading in self.tables and self.tables[self._heading][-1]:
      row = self.tables[self._heading][-1]
      row[-1] = ' '.join((row[-1] + data).split(' '))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp('site') / 'made'
  done = run_fixtures.run('-m', 'experiments.site', f'--out={out}', timeout=900)
  assert done.returncode == 0, done.stderr
  return out


@pytest.fixture(scope='module')
def read(folder):
  return functools.cache(lambda path: Page(folder / path))


def cells(page: Page, heading: str) -> list[list[str]]:
  return [[' '.join(cell.split()) for cell in row] for row in page.tables.get(heading, [])]


def test_there_are_pages_of_the_registered_schemes_and_no_others(folder):
  made = {path.stem for path in (folder / 'schemes').glob('*.html')}
  assert made == positions.SCHEMES.keys() | {'index'}


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_a_scheme_has_its_formula_and_papers(read, name):
  page, cls = read(f'schemes/{name}.html'), positions.scheme(name)
  assert ' '.join(cls.formula.split()) in page.text
  papers = {f'https://arxiv.org/abs/{i}' for i in re.findall(r'arXiv:(\d+\.\d+)', cls.paper)}
  linked = {link for link in page.links if 'arxiv.org' in link}
  assert papers and linked == papers
  assert any(link.endswith(f'#{cls.__module__}.{cls.__qualname__}') for link in page.links)


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_a_scheme_says_how_paper_and_code_differ(name):
  about, differences = pages.described(name)
  assert about.strip() and differences.strip().endswith('.') and 'Paper and code' not in about


def test_a_docstring_need_not_say_so(monkeypatch):
  monkeypatch.setattr(positions.RoPE, '__doc__', 'Turns.')
  assert pages.described('rope') == ('Turns.', '')


def test_factors_that_no_search_found_are_called_so(read):
  assert 'its factors are an example' in read('schemes/longrope.html').text


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_the_page_of_a_scheme_has_a_section_of_these_differences(read, name):
  page = read(f'schemes/{name}.html')
  assert 'known-differences-between-paper-and-code' in page.ids
  said = pages.described(name)[1].split('`')[0].split()[:4]
  assert ' '.join(said) in page.text


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_a_scheme_has_its_arguments_with_defaults_and_meanings(read, name):
  shown = cells(read(f'schemes/{name}.html'), 'Arguments')[1:]
  wanted = [[field, repr(p.default)] for field, p in positions.arguments(name).items()]
  assert [row[:2] for row in shown] == wanted
  assert all(row[2] for row in shown)


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_a_scheme_says_how_it_trains(read, name):
  said = dict(
    row for row in cells(read(f'schemes/{name}.html'), positions.scheme(name).label) if row
  )
  cls = positions.scheme(name)
  stretched = positions.scheme(cls.trains_as).label if cls.trains_as else 'itself'
  assert said['trains as'] == stretched
  assert said['draws positions in training'] == ('yes' if cls.draws_positions else 'no')


@pytest.fixture(scope='module')
def verdicts():
  return {row.claim.id: row.verdicts for row in rows.judge(rows.load(scales.CPU)[0])}


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_claims_of_a_scheme_are_those_whose_models_use_it(read, verdicts, name):
  used = re.compile(rf'{name}(:.*)?')
  wanted = {
    claim.id
    for claim in claims.CLAIMS.values()
    if any(used.fullmatch(model.position) for model in claim.models.values())
  }
  page = read(f'schemes/{name}.html')
  shown = {row[0].split()[0]: row[1] for row in cells(page, 'Claims')[1:]}
  assert shown.keys() == wanted
  for claim, verdict in shown.items():
    for variant, found in verdicts[claim].items():
      assert (f'{variant}: {found}' if variant else found) in verdict
    assert f'../experiments/claims.html#{claim}' in page.links


def test_every_public_module_has_a_page_with_what_it_says(folder, read):
  root = run_fixtures.ROOT / 'pe_research'
  for file in root.rglob('[!_]*.py'):
    module = '.'.join(file.relative_to(run_fixtures.ROOT).with_suffix('').parts)
    assert f'module-{module}' in read(f'api/{module}.html').ids
  assert not list((folder / 'api').glob('*.__main__.html'))


def test_no_link_within_the_site_is_broken(folder, read):
  checked = 0
  for path in folder.rglob('*.html'):
    for link in read(path.relative_to(folder)).links:
      parts = urllib.parse.urlsplit(link)
      if parts.scheme or parts.netloc:
        assert parts.scheme in ('http', 'https', 'mailto', 'data'), link
        continue
      target = path.parent / urllib.parse.unquote(parts.path) if parts.path else path
      assert target.exists(), f'{path}: {link}'
      fragment, checked = urllib.parse.unquote(parts.fragment), checked + 1
      if fragment and target.suffix == '.html':
        page = read(target.resolve().relative_to(folder.resolve()))
        assert fragment in page.ids, f'{path}: {link}'
  assert checked > 1000


def test_nothing_comes_from_another_site(folder, read):
  for path in folder.rglob('*.html'):
    text = path.read_text()
    loaded = re.findall(
      r'<(?:script|img|iframe)[^>]* src="([^"]*)"|<link[^>]* href="([^"]*)"', text
    )
    assert not [link for pair in loaded for link in pair if re.match(r'(\w+:)?//', link)], path


def test_a_folder_of_something_else_is_left_alone(tmp_path):
  (tmp_path / 'notes.txt').write_text('mine')
  (tmp_path / '.buildinfo').write_text('of another site')
  with pytest.raises(ValueError, match=r'has files in it.*name a folder that is empty'):
    build.write(tmp_path)
  with pytest.raises(ValueError, match='is a file'):
    build.write(tmp_path / 'notes.txt')
  assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_its_own_folder_may_be_replaced(folder):
  build.check(folder)


def test_a_link_that_leads_nowhere_is_an_error(monkeypatch, tmp_path):
  (tmp_path / 'README.md').write_text('# Mine\n\n[gone](gone.md)\n')
  monkeypatch.setattr(site.documents, 'ROOT', tmp_path)
  with pytest.raises(ValueError, match=r'README\.md links to gone\.md'):
    site.documents.Tree()


def test_docstrings_keep_what_they_say():
  made = docstrings.rst(
    ['A *b* of x_.', '', '  python -m a', '', 'Two of them:', '  one: `x`', '    more', 'End.']
    + ['', 'Args:', '  x: a|b.']
  )
  assert made == [
    r'A \*b\* of x\_.', '', '', '.. code-block:: text', '', '  python -m a', '', 'Two of them:', '',
    '* ``one``: ``x``', '  more', '', 'End.', '', 'Args:', r'  x: a\|b.',
  ]  # fmt: skip
