"""What is exported gives the same logits in Hugging Face transformers, of releases 4 and 5.

Needs Pythons with transformers and torch: this one, or those that PE_PEERS names, with a colon
between them.
"""

import importlib.util
import itertools
import json
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
PYTHONS = [python for python in os.environ.get('PE_PEERS', '').split(':') if python]
if not PYTHONS and all(map(importlib.util.find_spec, ('transformers', 'torch'))):
  PYTHONS = [sys.executable]
REASON = 'needs transformers and torch: name Pythons that have them in PE_PEERS'
pytestmark = pytest.mark.skipif(not PYTHONS, reason=REASON)


@pytest.fixture(scope='module')
def exported(tmp_path_factory) -> dict[str, pathlib.Path]:
  """Folders of every case."""
  root, made = tmp_path_factory.mktemp('exported'), {}
  for name in published.CASES:
    config = published.config(name)
    made[name] = root / name.replace(' ', '_').replace('-', '_')
    bytes_each = 4000 if name == 'llama' else 10**9
    exporting.export(
      exporting.plan(config), published.params(config), made[name], shard_bytes=bytes_each
    )
    np.save(made[name] / 'ids.npy', published.ids(name))
    (made[name] / 'text.txt').write_text(TEXT)
  return made


@pytest.fixture(scope='module', params=PYTHONS)
def read(request, exported, tmp_path_factory) -> pathlib.Path:
  """What one release of transformers makes of them."""
  into = tmp_path_factory.mktemp('read') / 'found'
  script = pathlib.Path(__file__).parents[1] / 'peers' / 'logits.py'
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  done = subprocess.run(
    [request.param, script, into, *exported.values()],
    capture_output=True, text=True, check=False, env=environment | {'HF_HUB_OFFLINE': '1'},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  return into


def refused(exported, read, name: str) -> bool:
  """Whether this release has no such rule of RoPE, which it must say."""
  fields = json.loads((exported[name] / 'config.json').read_text())
  kind = fields.get('rope_parameters', {}).get('rope_type')
  error = read / f'{exported[name].name}.txt'
  if kind == 'proportional' and (read / 'version').read_text() < '5':
    assert error.exists()  # a KeyError of the kind, or of a field that it lacks
    return True
  assert not error.exists(), error.read_text()
  return False


@pytest.mark.parametrize('name', published.CASES)
def test_logits_are_those_of_transformers(exported, read, name):
  if refused(exported, read, name):
    return
  config = published.config(name)
  tokens = jnp.asarray(published.ids(name))
  decoder = FunctionalDecoder(config).bind(published.params(config))
  ours = decoder(tokens, Tokens.contiguous(tokens.shape[1]), Spec())
  theirs = np.load(read / f'{exported[name].name}.npy')
  assert theirs.std() > 0.1
  np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_tokenizer_is_that_of_bytes(read):
  assert bytes(np.load(read / 'llama.text.npy').tolist()) == TEXT.encode()


def test_the_logits_tell_positions_apart(exported, read):
  plain = [n for n, (_, _, model) in published.CASES.items() if model is published.LLAMA]
  plain = [name for name in plain if not refused(exported, read, name)]
  logits = {name: np.load(read / f'{exported[name].name}.npy') for name in plain}
  for a, b in itertools.combinations(plain, 2):
    assert np.abs(logits[a] - logits[b]).max() > 3e-3, (a, b)
