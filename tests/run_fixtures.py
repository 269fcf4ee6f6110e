"""Runs of a few steps on a corpus of a few documents, for tests of everything around the model."""

import json
import os
import pathlib
import subprocess
import sys

import decoder_fixtures as fixtures
import numpy as np

from pe_research.machines import exits
from pe_research.settings import cli, configs

ROOT = pathlib.Path(__file__).parent.parent
WORDS = [
  'the',
  'of',
  'and',
  'to',
  'in',
  'that',
  'is',
  'for',
  'it',
  'as',
  'was',
  'with',
  'be',
  'by',
  'on',
  'not',
  'he',
  'his',
  'but',
  'at',
  'are',
  'this',
]


def write_corpus(folder: pathlib.Path, documents: int = 12, words: int = 300) -> pathlib.Path:
  """Documents of random words, always the same."""
  folder.mkdir(parents=True)
  for i in range(documents):
    rng = np.random.default_rng(i)
    (folder / f'{i:02}.txt').write_text(' '.join(rng.choice(WORDS, words)) + '\n')
  return folder


SIZES = {  # of a run that takes seconds
  'steps': 12,
  'model.width': 16,
  'model.layers': 2,
  'model.heads': 2,
  'optimizer.batch': 8,
  'optimizer.warmup': 2,
  'run.save_every': 4,
}


def flags(corpus: pathlib.Path, position: str = 'rope', **overrides) -> list[str]:
  """--config=... of a tiny run; `model__width=8` overrides model.width."""
  settings = {
    **SIZES,
    'data.source': corpus,
    'eval.lengths': '(16, 32, 64)',
    'eval.targets': 8,
    'eval.windows': 6,
    'eval.tokens': 256,
    'run.log_every': 1,
  } | {name.replace('__', '.'): value for name, value in overrides.items()}
  if position in fixtures.ARGUMENTS:  # the heads are as wide as those of the tiny decoder
    given = {k: v for k, v in fixtures.position(position).items() if v is not None and k != 'name'}
    plain = lambda v: tuple(v) if isinstance(v, list) else v
    settings = {f'position.{k}': plain(v) for k, v in given.items()} | settings
  return [
    f'--config={ROOT}/configs/smoke.py:position={position},length=16',
    *(f'--config.{name}={value}' for name, value in settings.items()),
  ]


def config(corpus: pathlib.Path, position: str = 'rope', **overrides) -> dict:
  """The resolved config of `flags`."""
  return configs.resolve(cli.read_config(flags(corpus, position, **overrides)))


def trained(folder: pathlib.Path) -> pathlib.Path:
  """The workdir of a run of RoPE on enough documents to search on; takes a dozen seconds."""
  from pe_research import main

  settings = {'steps': 20, 'optimizer__learning_rate': 0.01}
  main.run(config(write_corpus(folder / 'text', documents=120), **settings), folder / 'rope')
  return folder / 'rope'


def environment(**extra: str) -> dict[str, str]:
  """Of a command that a test starts: the tests' own, with no restart to tune malloc."""
  return os.environ | {'GLIBC_TUNABLES': exits.TUNABLES, 'PYTHONPATH': str(ROOT)} | extra


def run(*arguments: str, cwd: pathlib.Path = ROOT, timeout: float = 240, **extra: str):
  """Runs `python arguments` to its end."""
  return subprocess.run(
    [sys.executable, *map(str, arguments)], cwd=cwd, env=environment(**extra),
    capture_output=True, text=True, timeout=timeout, check=False,
  )  # fmt: skip


def start(*arguments: str, **extra: str) -> subprocess.Popen:
  """Starts `python arguments`."""
  return subprocess.Popen(
    [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment(**extra),
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


def shellcheck(script: pathlib.Path) -> str:
  """What shellcheck says of a script: '' where it passes."""
  program = pathlib.Path(sys.executable).with_name('shellcheck')
  done = subprocess.run([program, script], capture_output=True, text=True, check=False)
  return done.stdout + done.stderr


def losses(workdir: pathlib.Path) -> dict[int, float]:
  """Loss by step; of a step that was run twice, the last."""
  rows = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return {row['step']: row['loss'] for row in rows if 'loss' in row}
