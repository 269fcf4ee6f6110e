"""Pages of the modules, from their docstrings: one for every module that is no program."""

import pkgutil
from collections.abc import Iterator

import pe_research
from experiments.site import markdown

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
  known = names()
  for name in known:
    children = [child for child in known if child.rpartition('.')[0] == name]
    below = [(child.rpartition('.')[2], page_of(child)) for child in children]
    lines = [f'# {markdown.plain(name)}', '', '```{eval-rst}', f'.. automodule:: {name}', '```', '']
    yield page_of(name), '\n'.join([*lines, *markdown.toctree(below)])
