"""The documentation as a site: the repository's Markdown, a page a scheme, and the modules."""

import importlib.util
import pathlib
import shutil
import tempfile

from experiments.report import render
from experiments.site import documents, modules, pages
from pe_research import positions

HERE = pathlib.Path(__file__).parent
MARK = '.pe_research-site'  # a folder that has it may be replaced
NEEDED = ('sphinx', 'myst_parser', 'furo')


def write(out: pathlib.Path) -> pathlib.Path:
  """Builds the site in place of `out`, which stays as it is where that fails; its first page.

  Raises:
    ValueError: `out` holds something else, a link leads nowhere, or Sphinx warns.
  """
  check(out)
  with tempfile.TemporaryDirectory() as folder:
    stage, made = pathlib.Path(folder, 'pages'), pathlib.Path(folder, 'made')
    _stage(stage)
    _build(stage, made, pathlib.Path(folder, 'doctrees'))
    (made / MARK).touch()
    if out.exists():
      shutil.rmtree(out)
    shutil.copytree(made, out)
  return out / 'index.html'


def check(out: pathlib.Path) -> None:
  """Raises ValueError where a site cannot be written, or `out` is not one and has files."""
  absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
  if absent:
    raise ValueError(
      f'there is no {absent[0]} in this Python; pip install furo myst-parser sphinx, as '
      "pyproject.toml's docs has them."
    )
  if out.is_file():
    raise ValueError(f'--out={out} is a file; name a folder that is empty or not there yet.')
  if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
    raise ValueError(
      f'--out={out} has files in it, and no {MARK} among them, so it is not a site of ours; name '
      'a folder that is empty or not there yet.'
    )


def _stage(stage: pathlib.Path) -> None:
  """Writes everything that Sphinx reads."""
  tree = documents.Tree()
  made = tree.pages | dict(pages.pages()) | dict(modules.pages())
  made['index'] += _navigation()
  for name, text in made.items():
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
  (stage / '_static' / 'site.css').write_text(render.text('site/site.css'))


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
  path.write_text(text)


def _copy(path: str, folder: pathlib.Path) -> None:
  (folder / path).parent.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(documents.ROOT / path, folder / path)


def _build(stage: pathlib.Path, made: pathlib.Path, doctrees: pathlib.Path) -> None:
  from sphinx.cmd.build import build_main  # may be missing, which `check` says

  flags = ['-b', 'html', '-q', '-W', '--keep-going', '-d', str(doctrees)]
  if build_main([*flags, str(stage), str(made)]):
    raise ValueError('Sphinx warns, see above, and pages with warnings are not kept; correct them.')
