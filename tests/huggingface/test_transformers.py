"""What is exported gives the same logits in Hugging Face transformers.

Needs a Python with transformers and torch: this one, or that which PE_PEERS names.
"""

import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import published
import pytest

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.huggingface import exporting
from pe_research.model.functional import FunctionalDecoder

TEXT = 'Fellow citizens, naïve 🙂 — and\ttabs  or two spaces.\n'


def peers() -> str:
  """The Python to run transformers with; skips the test where there is none."""
  found = os.environ.get('PE_PEERS')
  if not found and all(map(importlib.util.find_spec, ('transformers', 'torch'))):
    found = sys.executable
  if not found:
    pytest.skip('needs transformers and torch: name a Python that has them in PE_PEERS')
  return found


@pytest.fixture(scope='module')
def folders(tmp_path_factory) -> dict[str, pathlib.Path]:
  """Every case exported, and read by transformers."""
  python, root = peers(), tmp_path_factory.mktemp('exported')
  made = {}
  for name in published.CASES:
    config = published.config(name)
    made[name] = root / name
    bytes_each = 4000 if name == 'llama' else 10**9
    exporting.export(
      exporting.plan(config), published.params(config), made[name], shard_bytes=bytes_each
    )
    np.save(made[name] / 'ids.npy', published.ids(name))
    (made[name] / 'text.txt').write_text(TEXT)
  script = pathlib.Path(__file__).parents[1] / 'peers' / 'logits.py'
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  done = subprocess.run(
    [python, script, *made.values()],
    capture_output=True,
    text=True,
    check=False,
    env=environment | {'HF_HUB_OFFLINE': '1'},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return made


@pytest.mark.parametrize('name', published.CASES)
def test_logits_are_those_of_transformers(folders, name):
  config = published.config(name)
  tokens = jnp.asarray(published.ids(name))
  decoder = FunctionalDecoder(config).bind(published.params(config))
  ours = decoder(tokens, Tokens.contiguous(tokens.shape[1]), Spec())
  theirs = np.load(folders[name] / 'logits.npy')
  assert theirs.std() > 0.1
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_tokenizer_is_that_of_bytes(folders):
  ids = np.load(folders['llama'] / 'text.npy')
  assert bytes(ids.tolist()) == TEXT.encode()


def test_the_logits_tell_positions_apart(folders):
  plain = [n for n, (_, _, model) in published.CASES.items() if model is published.LLAMA]
  logits = {name: np.load(folders[name] / 'logits.npy') for name in plain}
  for a, b in itertools.combinations(plain, 2):
    assert np.abs(logits[a] - logits[b]).max() > 3e-3, (a, b)
