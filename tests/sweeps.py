"""Synthetic runs, in the format of a trained and evaluated one."""

import json
import math
import pathlib

import numpy as np

from experiments.report import summary
from experiments.studies import comparability
from pe_research import positions
from pe_research.common import digest

TRAINED, LENGTHS, STEPS = 64, (64, 128, 256, 512, 1024, 2048, 4096), 1500
HEAD_DIM, STRETCH = 16, 16.0
DOCUMENTS, WINDOWS, TARGETS = 24, 96, 16
# Nats/token at 64 tokens, and what each doubling adds; scaled to look like a small byte model's.
START = (1.78, 1.66, 1.67, 1.62, 1.60, 1.61)
SLOPE = (0.02, 0.2, 0.55, 0.01, 0.30, -0.008)


def loss(name: str, length: int, seed: int) -> float:
  """Nats/token."""
  place = list(positions.SCHEMES).index(name)
  i = place % len(START)
  doublings = math.log2(length / TRAINED)
  curve = SLOPE[i] * doublings ** (1.3 if SLOPE[i] > 0.1 else 1)
  start = START[i] + 0.013 * (place // len(START))  # no two schemes are the same
  return start + curve + 0.01 * math.sin(7 * seed + i) * (1 + doublings / 3)


def row(run: str, name: str, length: int, seed: int, *, protocol='fixed_targets', control='none',
        undefined='', settings='s' * 64, step=STEPS, train_length=TRAINED):  # fmt: skip
  """One row, as evaluate writes it."""
  identity = {
    'run': run,
    'commit': 'c' * 40,
    'environment': 'e' * 64,
    'scheme': name,
    'seed': seed,
    'train_length': train_length,
    'step': step,
    'attention': 'tiled',
    'dtype': 'float32',
    'device': 'cpu',
    'settings': settings,
    'protocol': protocol,
    'control': control,
    'eval_length': length,
  }
  identity['targets'] = f'targets of {protocol}'
  if undefined:
    return identity | {'value': None, 'undefined': undefined}
  draw = np.random.default_rng([seed, length, len(name)])
  per = WINDOWS * TARGETS // DOCUMENTS
  hard = np.random.default_rng(9).normal(0, 0.15, DOCUMENTS)  # of documents, shared by all schemes
  losses = loss(name, length, seed) + hard + draw.normal(0, 0.01, DOCUMENTS)
  documents = {f'{1800 + i}-Speaker-{i}.txt': [float(x * per), per] for i, x in enumerate(losses)}
  tokens = per * DOCUMENTS
  value = sum(total for total, _ in documents.values()) / tokens
  measured = {
    'value': value,
    'unit': 'nats/token',
    'tokens': tokens,
    'windows': WINDOWS,
    'documents': documents,
    'context': [length - TARGETS + 1, length],
  }
  programs = {'program': f'scores {length}', 'own_program': f'scores {length} with {name}'}
  measured |= programs | {'inputs': f'windows of {length}', 'arithmetic': f'of {protocol}'}
  if protocol == 'sliding':
    measured['stride'] = TRAINED
  return identity | measured | {'bytes': tokens, 'bits_per_byte': value / math.log(2)}


def position(name: str) -> dict:
  """The scheme's defaults; those that stretch serve STRETCH times the training length."""
  return positions.example(name, HEAD_DIM // 2, STRETCH)


def run(root: pathlib.Path, name: str, seed: int = 0, *, lengths=LENGTHS, measures=(), **changes):
  """A finished run; 'learned' is undefined past the training length, as the real one is.

  Args:
    root: directory that its workdir would be in.
    name: of a registered scheme.
    seed: of parameters and data.
    lengths: tokens.
    measures: (protocol, control) pairs beside fixed targets.
    changes: replace entries of run.json; `position` those of config['position'].
  """
  given = position(name) | changes.pop('position', {})
  config = {
    'seed': seed,
    'length': TRAINED,
    'steps': STEPS,
    'matmul_precision': 'highest',
    'position': given,
    'model': {
      'width': 64, 'layers': 3, 'heads': 4, 'kv_heads': 4, 'head_dim': HEAD_DIM, 'mlp': 'swiglu',
      'mlp_width': 176, 'tied': True, 'qk_norm': False, 'remat': 'none', 'dtype': 'float32',
    },
    'optimizer': {'batch': 32, 'accumulate': 1, 'learning_rate': 3e-3, 'schedule': 'cosine'},
    'data': {'source': 'state_of_the_union', 'tokenizer': 'bytes', 'vocab': 256},
    'eval': {'lengths': list(lengths), 'protocols': ['fixed_targets'], 'controls': ['none'],
             'measurements': []},
  }  # fmt: skip
  conditions = {
    'program.step': 'p' * 64,
    'program.initial': 'i' * 64,
    'batch_order': 'b' * 64,
    'attention': 'dense',
    'data.source': 'd' * 64,
    'data.documents': 249,
    'data.train_tokens': 9_800_000,
    'data.validation': 'v' * 64,
    'version.jax': '0.10.2',
    'version.flax': '0.12.8',
    'device': 'cpu cpu',
  }
  record = {
    'scheme': name,
    'seed': seed,
    'train_length': TRAINED,
    'fingerprint': digest.of_json(conditions),
    'conditions': conditions,
    'initial_parameters': f'{seed}' * 64,
    'programs': {'step': f'step with {name}', 'initial': f'draw with {name}'},
    'provenance': {
      'commit': 'c' * 40,
      'clean': True,
      'code': 'e' * 64,
      'versions': {'jax': '0.10.2', 'flax': '0.12.8'},
      'python': '3.11.9',
      'machine': 'Linux x86_64',
    },
    'devices': 1,
    'changed_on_resume': [],
    'notes': [],
    'parameters': 180_000,
    'position_parameters': 0,
    'train_flops_per_token': 1_250_000,
    'steps': STEPS,
    'batches': f'{seed + 5}' * 64,
  }
  if name == 't5':
    record['notes'] = ['distances below the training length 64 reach 27 of 32 buckets.']
  record |= changes
  workdir = root / f'{name}_seed{seed}'
  rows = []
  for length in lengths:
    for protocol, control in (('fixed_targets', 'none'), *measures):
      past = name == 'learned' and length > TRAINED and control != 'cropped'
      reason = f"'Learned' holds {TRAINED} positions; asked for {length}." if past else ''
      rows.append(row(workdir.name, name, length, seed, protocol=protocol, control=control,
                      undefined=reason))  # fmt: skip
  return comparability.Run(workdir, config, record, rows)


def save(run: comparability.Run) -> None:
  """Writes the run's files, for code that reads them."""
  run.workdir.mkdir(parents=True)
  (run.workdir / 'config.json').write_text(json.dumps(run.config))
  (run.workdir / 'run.json').write_text(json.dumps(run.record))
  (run.workdir / 'results.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in run.rows))


def runs(root: pathlib.Path, seeds=(0,), names=None, **arguments) -> list[comparability.Run]:
  """One run for each scheme (all registered unless named) and seed."""
  names = list(positions.SCHEMES) if names is None else names
  return [run(root, name, seed, **arguments) for seed in seeds for name in names]


def section(losses, train_length=TRAINED, documents=DOCUMENTS) -> summary.Section:
  """A section of made-up schemes: {name: {length: bits/byte, or a list of them, one a seed}}.

  None stands for an undefined value; every document has the mean, and one token is one byte.
  """
  schemes, rows = [], {}
  for i, (name, by_length) in enumerate(losses.items()):
    seeds = max(len(v) if isinstance(v, list) else 1 for v in by_length.values())
    runs = [comparability.Run(pathlib.Path(name), {}, {'seed': s}, []) for s in range(seeds)]
    schemes.append(summary.Scheme(name, name.upper(), i, train_length, tuple(runs)))
    for length, values in by_length.items():
      values = values if isinstance(values, list) else [values]
      rows[name, length] = [_flat(v, seed, documents) for seed, v in enumerate(values)]
  lengths = sorted({length for by_length in losses.values() for length in by_length})
  return summary.Section('fixed_targets', 'none', schemes, lengths, rows)


def _flat(bits, seed, documents):
  if bits is None:
    return {'seed': seed, 'value': None, 'undefined': 'no such position.', 'settings': 's'}
  nats = bits * math.log(2)
  sums = {f'd{i}': [nats * 8, 8] for i in range(documents)}
  count = {'tokens': 8 * documents, 'bytes': 8 * documents, 'windows': documents}
  row = {'seed': seed, 'value': nats, 'bits_per_byte': bits, 'documents': sums, 'settings': 's'}
  return row | count
