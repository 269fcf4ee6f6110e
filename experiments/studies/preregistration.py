"""When the question of a claim was committed, and whether its runs came after that.

The question is all of a claim's code that determines its verdict, models, tests and thresholds,
with what it uses of terms.py and quantities.py, but not the texts that are only shown. Texts may
change afterwards; if a threshold is moved after the runs, the verdict says so. Everything else is
checked elsewhere: rows carry the key of their whole config, and all claims share the rule of
verdicts.py.
"""

import ast
import copy
import itertools
import json
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

from experiments.studies.terms import Claim
from experiments.studies.verdicts import MISSING

EXPERIMENTS = pathlib.Path(__file__).parents[1]
SHOWN = {'title', 'published', 'says', 'traps', 'note', 'figure', 'label', 'panel', 'shown',
         'paper'}  # fmt: skip
SEEDS = {'least_seeds', 'fewest_seeds'}  # no thresholds: a verdict says how many seeds it has
NAMES = {'PAPER', 'LABELS'}  # constants that are only shown


def question(source: str, terms: str = '', quantities: str = '') -> str:
  """The code of a claim that determines its verdict, in a form that formatting does not change.

  Args:
    source: text of the claim's file.
    terms: text of terms.py; what the file uses of it belongs to the question.
    quantities: text of quantities.py, whose functions claims name by strings.
  """
  tree, functions = _decisive(source), {}
  own = frozenset(_definitions(tree))
  inline = _Inline(
    _definitions(_decisive(terms)), _definitions(_decisive(quantities)), functions, own
  )
  tree = inline.visit(tree)
  return '\n'.join([ast.dump(tree), *(functions[name] for name in sorted(functions))])


def _decisive(source: str) -> ast.Module:
  """The code of a file without imports, docstrings and what is only shown."""
  tree = ast.parse(source)
  imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
  modules = {(name.asname or name.name) for node in imports for name in node.names}
  tree = _Unqualified(modules).visit(tree)
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.FunctionDef):
      node.body = [part for part in node.body if not _is_only_shown(part)]
    if isinstance(node, ast.Call):
      node.keywords = sorted(
        (k for k in node.keywords if k.arg not in SHOWN | SEEDS), key=lambda k: k.arg or ''
      )
      if isinstance(node.func, ast.Name) and node.func.id == 'Expect':
        node.args = node.args[1:]  # without `says`
  return tree


def _definitions(module: ast.Module) -> dict[str, ast.expr | ast.FunctionDef]:
  """Functions and constants by name, without classes, which only hold the fields of a claim."""
  definitions: dict[str, ast.expr | ast.FunctionDef] = {}
  for part in module.body:
    if isinstance(part, ast.FunctionDef):
      definitions[part.name] = part
    elif isinstance(part, ast.Assign):
      target, value = part.targets[0], part.value
      several = isinstance(target, ast.Tuple)
      pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]
      definitions |= {name.id: meaning for name, meaning in pairs}
  return definitions


class _Unqualified(ast.NodeTransformer):
  """Drops the names of modules, so that moving or renaming one changes no question."""

  def __init__(self, modules: set[str]):
    self.modules = modules

  def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
    self.generic_visit(node)
    qualified = isinstance(node.value, ast.Name) and node.value.id in self.modules
    return ast.Name(node.attr, node.ctx) if qualified else node


class _Inline(ast.NodeTransformer):
  """Replaces constants by their values, and collects the functions that are used."""

  def __init__(self, definitions, derived, functions: dict[str, str], own: frozenset[str]):
    """Looks names up in `definitions` except `own`, strings in `derived`; adds to `functions`."""
    self.definitions, self.derived, self.functions = definitions, derived, functions
    self.own = own

  def visit_Name(self, node: ast.Name) -> ast.expr:
    unknown = node.id in self.own or node.id not in self.definitions
    if unknown or not isinstance(node.ctx, ast.Load):
      return node
    meaning = self.definitions[node.id]
    if isinstance(meaning, ast.expr):
      return self._within(self.definitions).visit(copy.deepcopy(meaning))
    self._add(node.id, self.definitions)
    return node

  def visit_Constant(self, node: ast.Constant) -> ast.expr:
    if isinstance(node.value, str) and node.value in self.derived:
      self._add(node.value, self.derived)
    return node

  def _add(self, name: str, definitions) -> None:
    if name not in self.functions:
      self.functions[name] = ''  # it may call itself
      body = copy.deepcopy(definitions[name])
      self.functions[name] = ast.dump(self._within(definitions).visit(body))

  def _within(self, definitions) -> '_Inline':
    return _Inline(definitions, self.derived, self.functions, frozenset())


def _is_only_shown(part: ast.stmt) -> bool:
  """Whether a statement is a docstring, an import or a constant that is only shown."""
  if isinstance(part, ast.Assign):
    return isinstance(part.targets[0], ast.Name) and part.targets[0].id in NAMES
  text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
  return text or isinstance(part, ast.Import | ast.ImportFrom)


def since(claim: Claim, runs: Iterable[str | None] = (), scale: str = '') -> dict[str, Any]:
  """When a claim's question was committed.

  Args:
    claim: the claim.
    runs: commits of the code that made its runs; None if one is unknown.
    scale: of the kept verdicts to look at; '': none.

  Returns:
    'commit': the first with the present question; None without one in git. 'clean': whether HEAD
    has this question. 'changed_after': those of `runs` with another question, or not known here.
    'otherwise': commit -> verdict, of every verdict that was committed with another question.
  """
  paths = [EXPERIMENTS / places[0] for places in _places(claim)]
  present = question(*(path.read_text(encoding='utf-8') if path.exists() else '' for path in paths))

  def is_present(commit: str) -> bool:
    return _question_at(commit, claim) == present

  first = None
  for commit in _git('log', '--format=%H', '--', *itertools.chain(*_places(claim))).split():
    if not is_present(commit):
      break
    first = commit
  file = f'results/{scale}/{claim.id}.verdict.json'
  commits = _git('log', '--reverse', '--format=%H', '--', file).split() if scale else []
  otherwise = {}
  for commit in commits:
    if not is_present(commit):
      verdict = json.loads(_git('show', f'{commit}:./{file}'))['verdict']
      otherwise |= {commit: verdict} if verdict != MISSING else {}
  return {
    'commit': first,
    'clean': is_present('HEAD'),
    'changed_after': sorted({str(run) for run in runs if not (run and is_present(run))}),
    'otherwise': otherwise,
  }


def _places(claim: Claim) -> tuple[tuple[str, ...], ...]:
  """Paths within `experiments` of the claim, terms.py and quantities.py, the present ones first."""
  return (
    (f'claims/{claim.name}.py',),
    ('studies/terms.py', 'claims/terms.py'),
    ('studies/quantities.py', 'quantities.py'),
  )


def _question_at(commit: str, claim: Claim) -> str:
  """The question of a claim at a commit; '' if there is none."""
  source, *others = (
    next(filter(None, (_git('show', f'{commit}:./{path}') for path in paths)), '')
    for paths in _places(claim)
  )
  return question(source, *others) if source else ''


def _git(*words: str) -> str:
  done = subprocess.run(
    ['git', '-C', str(EXPERIMENTS), *words], capture_output=True, text=True, check=False
  )
  return done.stdout if done.returncode == 0 else ''
