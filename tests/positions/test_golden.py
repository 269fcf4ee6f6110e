"""Agreement with other software: golden arrays in golden/, or in the directory PE_GOLDEN."""

import collections
import functools
import hashlib
import json
import os
import pathlib

import golden_case
import golden_checks
import golden_models
import numpy as np
import pytest

DIRECTORY = pathlib.Path(
  os.environ.get('PE_GOLDEN') or pathlib.Path(__file__).parents[1] / 'golden'
)
MANIFEST = json.loads((DIRECTORY / 'manifest.json').read_text())


@functools.cache
def archive(file: str):
  return np.load(DIRECTORY / file)


def arrays(entry: dict, role: str) -> dict[str, np.ndarray]:
  stored = archive(entry['file'])
  return {n: stored[a['key']] for n, a in entry['arrays'].items() if a['role'] == role}


def test_directory_is_whole():
  meta = MANIFEST['meta']
  assert len(MANIFEST['cases']) == meta['case_count']
  for file, want in meta['sha256'].items():
    assert hashlib.sha256((DIRECTORY / file).read_bytes()).hexdigest() == want, file
  for entry in MANIFEST['cases']:
    assert entry['file'] in meta['sha256']
    for name, array in entry['arrays'].items():
      assert array['role'] in ('input', 'output')
      assert array['key'] in archive(entry['file']), (entry['id'], name)


def in_turn():
  """Every case; of those that one library gave of one scheme, each third is in the first tier."""
  seen = collections.Counter()
  for entry in MANIFEST['cases']:
    kind = entry['family'], entry['scheme']
    marks = [pytest.mark.slow] if seen[kind] % 3 else []
    seen[kind] += 1
    yield pytest.param(entry, id=f'{entry["family"]}-{entry["id"]}', marks=marks)


@pytest.mark.parametrize('entry', list(in_turn()))
def test_case(entry, monkeypatch):
  case = golden_case.Case(
    params=entry['params'],
    notes=entry['notes'],
    inputs=arrays(entry, 'input'),
    outputs=arrays(entry, 'output'),
    **entry['tolerance'],
  )
  if entry['family'] == 'models':
    stack = entry['scheme'].startswith('t5')
    check = golden_models.t5_stack if stack else golden_models.decoder_model
    check(case, DIRECTORY, monkeypatch)
  else:
    golden_checks.CHECKS[entry['family'], entry['scheme']](case)
  assert case.outputs and case.compared == set(case.outputs), 'an output was not compared'
