"""When what a claim asks was committed, and whether its runs were made before that.

What it asks is its file but for what only shows: models, tests, thresholds. Words may be mended
afterwards; a threshold that is moved after the runs is said to be.
"""

import ast
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

from experiments.claims.terms import Claim

CLAIMS = pathlib.Path(__file__).parent / 'claims'
SHOWN = {'title', 'published', 'says', 'traps', 'note', 'figure', 'label', 'panel', 'shown',
         'paper', 'unit', 'least_seeds', 'fewest_seeds'}  # fmt: skip
NAMES = {'PAPER', 'LABELS'}  # constants of what only shows


def asked(source: str) -> str:
  """A claim's file as far as it decides anything: not its words, nor how it is written down."""
  tree = ast.parse(source)
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.FunctionDef):
      node.body = [part for part in node.body if not _aside(part)]
    if isinstance(node, ast.Call):
      node.keywords = sorted(
        (k for k in node.keywords if k.arg not in SHOWN), key=lambda k: k.arg or ''
      )
      if isinstance(node.func, ast.Name) and node.func.id == 'Expect':
        node.args = node.args[1:]  # its words
  return ast.dump(tree)


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
  present = asked(file.read_text())
  at = lambda commit: _same(commit, file.name, present)
  commits = _git('log', '--format=%H', '--', file.name).split()
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
  source = _git('show', f'{commit}:./{name}')
  return bool(source) and asked(source) == present


def _git(*words: str) -> str:
  done = subprocess.run(
    ['git', '-C', str(CLAIMS), *words], capture_output=True, text=True, check=False
  )
  return done.stdout if done.returncode == 0 else ''
