"""The repository's Markdown as pages, with the images, pages and source files that it links to."""

import pathlib
import posixpath
import re
from collections.abc import Callable
from typing import Any

import pygments.lexers

from experiments.report import render
from experiments.site import modules

ROOT = pathlib.Path(__file__).parents[2]
FIRST = 'README.md'
PATTERNS = ('launch/*.md', 'experiments/*.md', 'experiments/bench/*.md', 'pe_research/**/*.md')
WHOLE = ('.png', '.svg', '.html', '.ipynb')  # copied as they are
FOLDER = 'source'
FENCED = re.compile(r'(^```.*?^```$)', re.DOTALL | re.MULTILINE)
LINK = re.compile(r'(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))')  # a ':' is in links to other sites


def paths() -> list[str]:
  """Of the documents, relative to the repository."""
  found = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
  return [FIRST, *(path.relative_to(ROOT).as_posix() for path in found)]


def page_of(path: str) -> str:
  """The page of a document."""
  return 'index' if path == FIRST else path.removesuffix('.md')


class Tree:
  """The pages of all documents.

  Attributes:
    pages: Markdown by name of the page, linked sources included.
    whole: paths of images and other files to copy, relative to the repository.
  """

  def __init__(self):
    """Reads all documents."""
    self.pages: dict[str, str] = {}
    self.whole: set[str] = set()
    self._documents = paths()
    self._modules = {f'{name.replace(".", "/")}.py': name for name in modules.names()}
    for path in self._documents:
      self.pages[page_of(path)] = self._linked(path)

  def _linked(self, path: str) -> str:
    """The text of a document, with links to pages for links to files of the repository."""
    parts = FENCED.split((ROOT / path).read_text(encoding='utf-8'))
    parts[::2] = [LINK.sub(self._target(path), part) for part in parts[::2]]
    return ''.join(parts)

  def _target(self, document: str) -> Callable[[re.Match], str]:
    def target(found: re.Match) -> str:
      path = posixpath.normpath(posixpath.join(posixpath.dirname(document), found[1]))
      if path.startswith('..') or not (ROOT / path).exists():
        raise ValueError(f'{document} links to {found[1]}, but {path} does not exist; correct it.')
      if path.endswith(WHOLE):
        self.whole.add(path)
        return f'/{path}'
      return f'/{self._page(path)}.md{found[2] or ""}'

    return target

  def _page(self, path: str) -> str:
    """The page that shows a file or a folder; it is added where there is none."""
    if path in self._documents:
      return page_of(path)
    if path in self._modules:
      return modules.page_of(self._modules[path])
    name = f'{FOLDER}/{path}'
    if name not in self.pages:
      self.pages[name] = render.text('site/source.md', path=path, **self._source(path))
    return name

  def _source(self, path: str) -> dict[str, Any]:
    """What the page of a file or a folder shows."""
    whole = ROOT / path
    if whole.is_dir():
      files = sorted(file.relative_to(ROOT).as_posix() for file in whole.glob('*.py'))
      return {'language': '', 'children': [(file, self._page(file)) for file in files]}
    language = pygments.lexers.get_lexer_for_filename(path).aliases[0]
    return {'language': language, 'text': whole.read_text(encoding='utf-8').rstrip()}
