"""Our models and PyTorch's on the same work in turn; only ratios within a round are compared."""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from pe_research.storage import files

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = pathlib.Path(__file__).with_name('torch_peers.py')
TRAINING = {
  'S': {'width': 64, 'layers': 2, 'heads': 4, 'batch': 32, 'length': 64, 'steps': 60},
  'M': {'width': 128, 'layers': 4, 'heads': 4, 'batch': 32, 'length': 128, 'steps': 10},
  'L': {'width': 256, 'layers': 4, 'heads': 4, 'batch': 8, 'length': 512, 'steps': 6},
}
LONG = {'width': 128, 'layers': 4, 'heads': 4, 'batch': 1, 'length': 16_384}
CACHED = {'width': 128, 'layers': 4, 'heads': 4, 'length': 256, 'tokens': 128}
COMMON = {'tokens': 0, 'steps': 1, 'compile': False}


@dataclasses.dataclass(frozen=True)
class Contest:
  """One kind of work, done by our model and by others.

  Attributes:
    name: in the table.
    work: sizes, and `mode`.
    ours: position.
    others: (peer, position, whether compiled).
    figure: the field that is compared: tokens_per_second, or seconds.
  """

  name: str
  work: dict[str, Any]
  ours: str
  others: tuple[tuple[str, str, bool], ...]
  figure: str = 'tokens_per_second'


def contests() -> list[Contest]:
  """All of them."""
  found = []
  for size, work in TRAINING.items():
    for position in ('rope', 'alibi'):
      others = (('x-transformers', position, True),)
      others += (('llama', 'rope', True),) if position == 'rope' else ()
      found.append(Contest(f'train {size}, {position}', work | {'mode': 'train'}, position, others))
  for position in ('rope', 'alibi', 't5'):
    others = (('x-transformers', 'rope', False),)
    name = f'forward of 16,384 tokens, {position}'
    found.append(Contest(name, LONG | {'mode': 'forward'}, position, others, 'seconds'))
  for batch in (1, 16):
    work = CACHED | {'mode': 'decode', 'batch': batch}
    found.append(Contest(f'decode, batch {batch}', work, 'rope', (('llama', 'rope', False),)))
  return found


def run(given) -> None:
  """Measures every contest `rounds` times and prints a row for each; a stopped run resumes.

  Raises:
    ValueError: no Python is named, or it lacks a library.
  """
  if not given.peers_python:
    raise ValueError(
      'peers needs --peers-python=PYTHON, with torch, transformers and x-transformers.'
    )
  rows = given.workdir / 'peers.jsonl'
  for contest in contests():
    for number in range(given.rounds):
      done = [
        r for r in files.read_rows(rows) if (r['contest'], r['round']) == (contest.name, number)
      ]
      if done:
        continue
      figures = {'ours': ours(contest)}
      for peer, position, compiled in contest.others:
        named = f'{peer} {position}{", compiled" if compiled else ""}'
        figures[named] = _theirs(contest, peer, position, compiled, given.peers_python)
      files.append_row(rows, {'contest': contest.name, 'round': number, 'figures': figures})
    print(summary(contest, files.read_rows(rows)), flush=True)


def summary(contest: Contest, rows: list[dict[str, Any]]) -> str:
  """Medians, and the ratio of ours to the best other of the same round, on one line."""
  own = [row['figures'] for row in rows if row['contest'] == contest.name]
  medians = {n: statistics.median(f[n][contest.figure] for f in own) for n in own[0]}
  values = [{n: f[n][contest.figure] for n in f} for f in own]
  ratios = [_ratio(contest, v) for v in values]
  shown = ', '.join(f'{name} {value:,.6g}' for name, value in medians.items())
  spread = f'{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})'
  line = f'{contest.name}: {shown} ({contest.figure}); {spread}'
  if contest.figure == 'seconds':
    peaks = {name: max(f[name]['peak_gb'] for f in own) for name in own[0]}
    line += '; at most ' + ', '.join(f'{name} {peak:.2f}' for name, peak in peaks.items()) + ' GB'
  return line


def _ratio(contest: Contest, values: dict[str, float]) -> float:
  others = [value for name, value in values.items() if name != 'ours']
  if contest.figure == 'seconds':
    return min(others) / values['ours']
  return values['ours'] / max(others)


def ours(contest: Contest) -> dict[str, Any]:
  """Our figures for a contest's work, from a process of its own."""
  work = contest.work
  flags = [f'--{name}={value}' for name, value in work.items() if name != 'mode']
  command = [sys.executable, '-m', 'experiments.bench', work['mode'], *flags]
  return _json([*command, f'--position={contest.ours}'])


def _theirs(contest: Contest, peer, position, compiled, python: str) -> dict[str, Any]:
  work = COMMON | contest.work | {'peer': peer, 'position': position, 'compile': compiled}
  return _json([python, str(SCRIPT), json.dumps(work)])


def _json(command: list[str]) -> dict[str, Any]:
  """The last line that a command prints; ValueError with its last line of stderr if it fails."""
  done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
  if done.returncode:
    error = (done.stderr.strip().splitlines() or ['no message'])[-1]
    raise ValueError(f'{" ".join(command[:4])} ... failed: {error}')
  return json.loads(done.stdout.splitlines()[-1])
