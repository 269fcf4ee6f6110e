"""When what a claim asks was committed, and whether its runs were made before that.

What it asks is its file, and what it takes from the claims' common words, but for what only shows:
models, tests, thresholds. Words may be mended afterwards; a threshold that is moved after the runs
is said to be. What is not here is held elsewhere: rows carry the key of their whole config, and the
rule of verdicts.py is one for all claims.
"""

import ast
import copy
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

from experiments.claims.terms import Claim

CLAIMS = pathlib.Path(__file__).parent / 'claims'
COMMON = 'terms.py'
SHOWN = {'title', 'published', 'says', 'traps', 'note', 'figure', 'label', 'panel', 'shown',
         'paper'}  # fmt: skip
SEEDS = {'least_seeds', 'fewest_seeds'}  # no threshold: a verdict says how many it has
NAMES = {'PAPER', 'LABELS'}  # constants of what only shows


def asked(source: str, common: str = '') -> str:
  """A claim's file as far as it decides anything: not its words, nor how it is written down.

  Args:
    source: text of the file.
    common: text of the claims' common words, of which what the file reaches decides too.
  """
  words = _Words(_deciding(common))
  tree = words.visit(_deciding(source))
  return '\n'.join([ast.dump(tree), *(words.functions[name] for name in sorted(words.functions))])


def _deciding(source: str) -> ast.Module:
  tree = ast.parse(source)
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


class _Words(ast.NodeTransformer):
  """Puts what a constant stands for in its place, and notes the functions that are reached."""

  def __init__(self, common: ast.Module):
    """Takes both from the common words; their classes are the claims' grammar."""
    self.functions: dict[str, str] = {}
    self._known: dict[str, ast.expr | ast.FunctionDef] = {}
    for part in common.body:
      if isinstance(part, ast.FunctionDef):
        self._known[part.name] = part
      elif isinstance(part, ast.Assign):
        target, value = part.targets[0], part.value
        several = isinstance(target, ast.Tuple)
        pairs = zip(target.elts, value.elts, strict=True) if several else [(target, value)]
        self._known |= {name.id: meant for name, meant in pairs}

  def visit_Name(self, node: ast.Name) -> ast.expr:
    found = self._known.get(node.id) if isinstance(node.ctx, ast.Load) else None
    if isinstance(found, ast.FunctionDef) and node.id not in self.functions:
      self.functions[node.id] = ''  # it may call itself
      self.functions[node.id] = ast.dump(self.visit(copy.deepcopy(found)))
    return self.visit(copy.deepcopy(found)) if isinstance(found, ast.expr) else node


def _aside(part: ast.stmt) -> bool:
  """Docstrings, imports, and constants of what only shows."""
  if isinstance(part, ast.Assign):
    return isinstance(part.targets[0], ast.Name) and part.targets[0].id in NAMES
  text = isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
  return text or isinstance(part, ast.Import | ast.ImportFrom)


def since(claim: Claim, runs: Iterable[str | None] = ()) -> dict[str, Any]:
  """When a claim's question was committed.

  Args:
    claim: the claim.
    runs: commits that its runs were made by; None where one is not known.

  Returns:
    'commit': the first that has the question as it is; None where git knows none. 'clean': whether
    HEAD has it so. 'changed_after': those of `runs` that do not have it so, or are not known here.
  """
  file = CLAIMS / f'{claim.name}.py'
  common = CLAIMS / COMMON
  present = asked(file.read_text(), common.read_text() if common.exists() else '')
  at = lambda commit: _same(commit, file.name, present)
  commits = _git('log', '--format=%H', '--', file.name, COMMON).split()
  first = None
  for commit in commits:
    if not at(commit):
      break
    first = commit
  return {
    'commit': first,
    'clean': at('HEAD'),
    'changed_after': sorted({str(run) for run in runs if not (run and at(run))}),
  }


def _same(commit: str, name: str, present: str) -> bool:
  show = lambda file: _git('show', f'{commit}:./{file}')
  source = show(name)
  return bool(source) and asked(source, show(COMMON)) == present


def _git(*words: str) -> str:
  done = subprocess.run(
    ['git', '-C', str(CLAIMS), *words], capture_output=True, text=True, check=False
  )
  return done.stdout if done.returncode == 0 else ''
