"""When what a claim asks was committed, and whether its runs were made before that.

What it asks is its file, and what it takes from the claims' common words, but for what only shows:
models, tests, thresholds. Words may be mended afterwards; a threshold that is moved after the runs
is said to be. What is not here is held elsewhere: rows carry the key of their whole config, and the
rule of verdicts.py is one for all claims.
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
SEEDS = {'least_seeds', 'fewest_seeds'}  # no threshold: a verdict says how many it has
NAMES = {'PAPER', 'LABELS'}  # constants of what only shows


def asked(source: str, common: str = '', derived: str = '') -> str:
  """A claim's file as far as it decides anything: not its words, nor how it is written down.

  Args:
    source: text of the file.
    common: text of the claims' common words, of which what the file reaches decides too.
    derived: text of what makes numbers of measurements, which claims name by strings.
  """
  tree, functions = _deciding(source), {}
  own = frozenset(_defined(tree))
  words = _Words(_defined(_deciding(common)), _defined(_deciding(derived)), functions, own)
  tree = words.visit(tree)
  return '\n'.join([ast.dump(tree), *(functions[name] for name in sorted(functions))])


def _deciding(source: str) -> ast.Module:
  tree = ast.parse(source)
  imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
  modules = {(name.asname or name.name) for node in imports for name in node.names}
  tree = _Unqualified(modules).visit(tree)
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.FunctionDef):
      node.body = [part for part in node.body if not _aside(part)]
    if isinstance(node, ast.Call):
      node.keywords = sorted(
        (k for k in node.keywords if k.arg not in SHOWN | SEEDS), key=lambda k: k.arg or ''
      )
      if isinstance(node.func, ast.Name) and node.func.id == 'Expect':
        node.args = node.args[1:]  # its words
  return tree


def _defined(module: ast.Module) -> dict[str, ast.expr | ast.FunctionDef]:
  """Functions and constants by name; the classes are the claims' grammar."""
  found: dict[str, ast.expr | ast.FunctionDef] = {}
  for part in module.body:
    if isinstance(part, ast.FunctionDef):
      found[part.name] = part
    elif isinstance(part, ast.Assign):
      target, value = part.targets[0], part.value
      several = isinstance(target, ast.Tuple)
      pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]
      found |= {name.id: meant for name, meant in pairs}
  return found


class _Unqualified(ast.NodeTransformer):
  """Drops the names of modules, so that one which is moved or renamed changes no question."""

  def __init__(self, modules: set[str]):
    self.modules = modules

  def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
    self.generic_visit(node)
    qualified = isinstance(node.value, ast.Name) and node.value.id in self.modules
    return ast.Name(node.attr, node.ctx) if qualified else node


class _Words(ast.NodeTransformer):
  """Puts what a constant stands for in its place, and notes the functions that are reached."""

  def __init__(self, known, derived, functions: dict[str, str], hidden: frozenset[str]):
    """Looks names up in `known` but for `hidden`, strings in `derived`; notes in `functions`."""
    self.known, self.derived, self.functions, self.hidden = known, derived, functions, hidden

  def visit_Name(self, node: ast.Name) -> ast.expr:
    if not isinstance(node.ctx, ast.Load) or node.id in self.hidden or node.id not in self.known:
      return node
    meant = self.known[node.id]
    if isinstance(meant, ast.expr):
      return self._within(self.known).visit(copy.deepcopy(meant))
    self._note(node.id, self.known)
    return node

  def visit_Constant(self, node: ast.Constant) -> ast.expr:
    if isinstance(node.value, str) and node.value in self.derived:
      self._note(node.value, self.derived)
    return node

  def _note(self, name: str, among) -> None:
    if name not in self.functions:
      self.functions[name] = ''  # it may call itself
      self.functions[name] = ast.dump(self._within(among).visit(copy.deepcopy(among[name])))

  def _within(self, among) -> '_Words':
    return _Words(among, self.derived, self.functions, frozenset())


def _aside(part: ast.stmt) -> bool:
  """Docstrings, imports, and constants of what only shows."""
  if isinstance(part, ast.Assign):
    return isinstance(part.targets[0], ast.Name) and part.targets[0].id in NAMES
  text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
  return text or isinstance(part, ast.Import | ast.ImportFrom)


def since(claim: Claim, runs: Iterable[str | None] = (), scale: str = '') -> dict[str, Any]:
  """When a claim's question was committed.

  Args:
    claim: the claim.
    runs: commits that its runs were made by; None where one is not known.
    scale: whose committed verdicts are looked at.

  Returns:
    'commit': the first that has the question as it is; None where git knows none. 'clean': whether
    HEAD has it so. 'changed_after': those of `runs` that do not have it so, or are not known here.
    'otherwise': commit -> verdict, of every verdict that was committed on another question.
  """
  files = [EXPERIMENTS / places[0] for places in _places(claim)]
  present = asked(*(file.read_text() if file.exists() else '' for file in files))
  at = lambda commit: _at(commit, claim) == present
  first = None
  for commit in _git('log', '--format=%H', '--', *itertools.chain(*_places(claim))).split():
    if not at(commit):
      break
    first = commit
  verdict = f'results/{scale}/{claim.id}.verdict.json'
  told = _git('log', '--reverse', '--format=%H', '--', verdict).split() if scale else []
  return {
    'commit': first,
    'clean': at('HEAD'),
    'changed_after': sorted({str(run) for run in runs if not (run and at(run))}),
    'otherwise': {
      commit: came_to
      for commit in told
      if not at(commit)
      and (came_to := json.loads(_git('show', f'{commit}:./{verdict}'))['verdict']) != MISSING
    },
  }


def _places(claim: Claim) -> tuple[tuple[str, ...], ...]:
  """Where the claim, the common words and what makes numbers of measurements lie, and lay before.

  Paths within `experiments`, the present one first.
  """
  return (
    (f'claims/{claim.name}.py',),
    ('studies/terms.py', 'claims/terms.py'),
    ('studies/quantities.py', 'quantities.py'),
  )


def _at(commit: str, claim: Claim) -> str:
  """The question as a commit has it; '' where it has none."""
  show = lambda place: _git('show', f'{commit}:./{place}')
  source, *others = (next(filter(None, map(show, places)), '') for places in _places(claim))
  return asked(source, *others) if source else ''


def _git(*words: str) -> str:
  done = subprocess.run(
    ['git', '-C', str(EXPERIMENTS), *words], capture_output=True, text=True, check=False
  )
  return done.stdout if done.returncode == 0 else ''
