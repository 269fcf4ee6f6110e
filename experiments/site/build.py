"""The documentation as a site: the repository's Markdown, one page per scheme, the modules."""

import importlib.util
import pathlib
import shutil
import tempfile

from experiments.report import render
from experiments.site import documents, modules, pages
from pe_research import positions

HERE = pathlib.Path(__file__).parent
MARK = '.pe_research-site'  # a file in every site: its folder may be replaced
NEEDED = ('sphinx', 'myst_parser', 'furo')


def write(out: pathlib.Path) -> pathlib.Path:
  """Builds the site, replaces `out` with it if that succeeds, and returns its first page.

  Raises:
    ValueError: `out` holds other files, a link is broken, or Sphinx warns.
  """
  check(out)
  with tempfile.TemporaryDirectory() as folder:
    stage, site = pathlib.Path(folder, 'pages'), pathlib.Path(folder, 'site')
    _stage(stage)
    _build(stage, site, pathlib.Path(folder, 'doctrees'))
    (site / MARK).touch()
    if out.exists():
      shutil.rmtree(out)
    shutil.copytree(site, out)
  return out / 'index.html'


def check(out: pathlib.Path) -> None:
  """Raises ValueError where a package is missing, or `out` has files and is no site."""
  absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
  if absent:
    raise ValueError(
      f'{absent[0]} is not installed in this Python; pip install furo myst-parser sphinx, the '
      'docs extra of pyproject.toml.'
    )
  if out.is_file():
    raise ValueError(f'--out={out} is a file; name a folder that is empty or does not exist.')
  if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
    raise ValueError(
      f'--out={out} has files in it, and none is {MARK}, so it is not a site; name a folder that '
      'is empty or does not exist.'
    )


def _stage(stage: pathlib.Path) -> None:
  """Writes everything that Sphinx reads."""
  tree = documents.Tree()
  documents_by_name = tree.pages | dict(pages.pages()) | dict(modules.pages())
  documents_by_name['index'] += _navigation()
  for name, text in documents_by_name.items():
    _write(stage / f'{name}.md', text)
  for name in positions.SCHEMES:
    for theme, drawing in pages.panels(name).items():
      path = stage / pages.FOLDER / pages.panel_of(name, theme)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(drawing)
  for path in sorted(tree.whole):
    _copy(path, stage)
  for path, text in pages.alone().items():
    _write(stage / '_extra' / path, text)
  shutil.copyfile(HERE / 'conf.py', stage / 'conf.py')
  (stage / '_static').mkdir()
  (stage / '_static' / 'site.css').write_text(render.text('site/site.css'), encoding='utf-8')


def _navigation() -> str:
  own = [documents.page_of(path) for path in documents.paths() if path != documents.FIRST]
  groups = {
    'Research': [f'{pages.FOLDER}/index', 'claims'],
    'Documents': own,
    'Code': [modules.page_of(modules.ROOT)],
  }
  return render.text('site/navigation.md', groups=groups)


def _write(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')


def _copy(path: str, folder: pathlib.Path) -> None:
  (folder / path).parent.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(documents.ROOT / path, folder / path)


def _build(stage: pathlib.Path, site: pathlib.Path, doctrees: pathlib.Path) -> None:
  from sphinx.cmd.build import build_main  # may be missing, which `check` says

  flags = ['-b', 'html', '-q', '-W', '--keep-going', '-d', str(doctrees)]
  if build_main([*flags, str(stage), str(site)]):
    raise ValueError(
      'Sphinx warned, see above; a site is built only without warnings. Correct them.'
    )
