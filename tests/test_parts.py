"""Parts build on each other in one order, and no two files import each other."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Each may import what stands before it.
ORDER = {
  'pe_research': ('common', 'storage', 'positions', 'attention', 'model', 'machines', 'data',
                  'settings', 'proof', 'huggingface', 'runs', 'evaluation', 'training', 'search',
                  'show', 'commands'),
  'launch': ('commands',),  # one part
  'configs': ('commands',),
  'experiments': ('bench', 'studies', 'claims', 'report', 'site', 'faults', 'commands'),
}  # fmt: skip
PACKAGES = ('pe_research', 'configs', 'launch', 'experiments')  # in their order as well


def modules() -> dict[str, pathlib.Path]:
  """Every module of the project by its name."""
  found = {}
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob('*.py')):
      name = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
      found[name.removesuffix('.__init__')] = path
  return found


MODULES = modules()


def imports(name: str, *, late: bool = True) -> set[str]:
  """Modules of the project that one imports; with `late` those that functions import as well."""
  tree, found = ast.parse(MODULES[name].read_text()), set()
  for node in ast.walk(tree) if late else tree.body:
    if isinstance(node, ast.ImportFrom):
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        found |= {whole if whole in MODULES else node.module} & MODULES.keys()
    elif isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names} & MODULES.keys()
  return found


def part(name: str) -> tuple[int, int]:
  """Where a module stands: its package, and its part there. Files at the top are commands."""
  package, *rest = name.split('.')
  inner = rest and rest[0] in ORDER[package] and rest[-1] != '__main__'
  at = ORDER[package].index(rest[0] if inner else 'commands')
  return PACKAGES.index(package), (-1 if not rest else at)


def test_every_folder_is_a_part():
  for package, order in ORDER.items():
    folders = {path.parent.name for path in (ROOT / package).glob('*/__init__.py')}
    assert folders - {'engines'} == set(order) - {'commands'}, package


@pytest.mark.parametrize('name', MODULES)
def test_a_part_imports_none_above_it(name):
  for other in imports(name):
    if part(other) > part(name):
      pytest.fail(f'{name} imports {other}, which stands above it')


def test_no_files_import_each_other():
  """Of what runs when a file is imported; a package's file stands for its contents."""
  graph = {name: imports(name, late=False) - {name} for name in MODULES}
  done: dict[str, bool] = {}

  def visit(name: str, way: tuple[str, ...]) -> None:
    if name in way:
      pytest.fail(' -> '.join((*way[way.index(name) :], name)))
    if not done.get(name):
      for other in sorted(graph[name]):
        visit(other, (*way, name))
      done[name] = True

  for name in graph:
    visit(name, ())
