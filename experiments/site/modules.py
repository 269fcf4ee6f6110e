"""Pages of the modules, from their docstrings: one for every module that is no program."""

import pkgutil
from collections.abc import Iterator

import pe_research
from experiments.report import render

ROOT = pe_research.__name__
FOLDER = 'api'


def names() -> list[str]:
  """The package and every module below it, dotted, but those that begin with '_'."""

  def failed(name: str):
    raise  # pkgutil calls this while it handles the error, and would go on without the module

  found = pkgutil.walk_packages(pe_research.__path__, f'{ROOT}.', failed)
  return [ROOT, *(m.name for m in found if not m.name.rpartition('.')[2].startswith('_'))]


def page_of(name: str) -> str:
  """The document of a module."""
  return f'{FOLDER}/{name}'


def pages() -> Iterator[tuple[str, str]]:
  """Documents with their Markdown."""
  modules = names()
  for name in modules:
    below = [module for module in modules if module.rpartition('.')[0] == name]
    children = [(module.rpartition('.')[2], page_of(module)) for module in below]
    yield page_of(name), render.text('site/module.md', name=name, children=children)
