"""Losses of the first 20 steps of every scheme, as these versions of the libraries gave them.

python tests/golden_losses.py

writes golden_losses.json anew: wanted where the training step, a default or a version is meant to
change what runs give, and never to make a failing test pass.
"""

import json
import pathlib
import tempfile

import jax
import run_fixtures

from pe_research import positions
from pe_research.training import loop

PATH = pathlib.Path(__file__).with_suffix('.json')
LATENT = 'rope, latent attention'
CASES = (*positions.SCHEMES, LATENT)


def in_kernels(case: str) -> bool:
  """Whether a kernel computes the scheme's bias, if it has one."""
  scheme, plain = positions.scheme(case.split(',')[0]), positions.PositionScheme
  return scheme.bias is plain.bias or scheme.distance_bias is not plain.distance_bias


def losses(case: str, corpus: pathlib.Path, workdir: pathlib.Path, **changed) -> list[float]:
  """Nats a token of each step."""
  changed |= {'model__projection': 'mla'} if case == LATENT else {}
  name = case.split(',')[0]
  config = run_fixtures.config(corpus, name, steps=20, run__save_every=20, **changed)
  loop.train(config, workdir)
  return list(run_fixtures.losses(workdir).values())


def kept() -> dict[str, list[float]]:
  """By case, those of this version of JAX; empty where none were kept."""
  return json.loads(PATH.read_text()).get(jax.__version__, {})


def main() -> None:
  """Measures every case and adds them to the file."""
  found = json.loads(PATH.read_text()) if PATH.exists() else {}
  with tempfile.TemporaryDirectory() as folder:
    corpus = run_fixtures.write_corpus(pathlib.Path(folder) / 'text')
    own = {case: losses(case, corpus, pathlib.Path(folder) / case) for case in CASES}
  PATH.write_text(json.dumps(found | {jax.__version__: own}, indent=1) + '\n')


if __name__ == '__main__':
  main()
