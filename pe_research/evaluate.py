"""Evaluates a trained model: measurements of a config in, rows of results.jsonl out.

  python -m pe_research.evaluate --workdir=DIR --lengths=64,512,8192 --protocols=sliding
  python -m pe_research.evaluate --workdir=DIR --position=yarn:factor=4 --into=DIR_YARN

The second evaluates the weights of a run under another scheme that can use them, as they are, and
keeps the results in a directory of their own.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from pe_research import (
  attend,
  cli,
  configs,
  data,
  digest,
  lineage,
  measures,
  model,
  records,
  runtime,
  sharding,
  states,
)
from pe_research.blueprint import Blueprint

KEY = ('protocol', 'control', 'eval_length')
SELECTION = ('every', 'lengths', 'protocols', 'controls')  # which rows, not how they are made


def scorer(blueprint: Blueprint, config: Mapping[str, Any], mesh) -> Callable[..., np.ndarray]:
  """A function (params, windows [W, N + 1], last) -> nats of the last `last` targets, [W, last]."""
  how = config['attention'] | {'implementation': config['eval']['implementation']}
  spec = attend.Spec(**how, mesh=mesh)
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  scheme = blueprint.scheme

  def nll(params, tokens, last):
    decoder = blueprint.bind(params)
    at = attend.Tokens.contiguous(tokens.shape[1] - 1)
    features, _ = decoder.features(tokens[:, :-1], at, spec, last=last)
    return model.loss(decoder.logits(features), tokens[:, -last:])

  compiled = jax.jit(nll, static_argnums=2, out_shardings=sharding.replicated(mesh))

  def score(params, windows: np.ndarray, last: int | None = None) -> np.ndarray:
    length = windows.shape[1] - 1
    scheme.check_length(length)
    last = length if last is None else last
    size = max(1, min(len(windows), config['eval']['batch_tokens'] // length))
    size = -(-size // devices) * devices
    rows = sharding.split_batch(mesh, size)
    scored = []
    for start in range(0, len(windows), size):
      part = windows[start : start + size].astype(np.int32)
      full = np.pad(part, ((0, size - len(part)), (0, 0)), mode='edge')
      scored.append(np.asarray(compiled(params, sharding.place(full, rows), last))[: len(part)])
    return np.concatenate(scored)

  return score


def validator(
  blueprint: Blueprint, corpus: data.Corpus, config, mesh
) -> Callable[..., measures.Row]:
  """A function params -> {'validation_loss': nats/token} at the training length."""
  wanted = {'reach': config['length'], 'protocols': ('non_overlapping',)}
  config = config | {'eval': config['eval'] | wanted}
  score, chosen = scorer(blueprint, config, mesh), measures.plan(corpus, config)

  def validate(params) -> measures.Row:
    row = measures.non_overlapping(functools.partial(score, params), chosen, config['length'])
    return {'validation_loss': row['value']}

  return validate


def measurements(config: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
  """Every (protocol, control, length) that the config asks for, short lengths first."""
  for length in sorted(config['eval']['lengths']):
    for protocol in config['eval']['protocols']:
      controls = config['eval']['controls'] if protocol == 'fixed_targets' else ('none',)
      yield from ((protocol, control, length) for control in controls)


def evaluate(config: Mapping[str, Any], workdir: pathlib.Path, params, step: int) -> None:
  """Appends to results.jsonl every measurement of the config that is not there yet.

  Args:
    config: resolved; `eval` says what to measure.
    workdir: the run's directory, with its run.json.
    params: the parameters after `step` steps.
    step: names the rows.
  """
  runtime.prepare(config)
  mesh, blueprint, corpus = (
    sharding.mesh(config['run']['mesh']),
    Blueprint(config),
    data.load(config),
  )
  records.check_data(workdir, corpus.facts)
  chosen = measures.plan(corpus, config)
  score = functools.partial(scorer(blueprint, config, mesh), params)
  record, results = records.read_json(workdir / 'run.json'), workdir / 'results.jsonl'
  settings = {k: v for k, v in config['eval'].items() if k not in SELECTION}
  identity = {
    'run': workdir.name,
    'commit': record['provenance']['commit'],
    'fingerprint': record['fingerprint'],
    'scheme': config['position']['name'],
    'seed': config['seed'],
    'train_length': config['length'],
    'step': step,
    'attention': config['eval']['implementation'],
    'dtype': config['model']['dtype'],
    'device': jax.devices()[0].device_kind,
    'settings': digest.of_json(settings),
  }
  key = lambda row: tuple(row[field] for field in ('step', 'settings', *KEY))
  done = {key(row) for row in records.read_rows(results)}
  for measurement in measurements(config):
    row = identity | dict(zip(KEY, measurement, strict=True))
    if key(row) in done:
      continue
    row |= measures.measure(score, blueprint.scheme, chosen, corpus, *measurement)
    if jax.process_index() == 0:
      records.append_row(results, row)


def show(workdir: pathlib.Path) -> None:
  """Prints the rows of a run's results, a line each, without what fills pages."""
  for row in records.read_rows(workdir / 'results.jsonl'):
    print(json.dumps({k: v for k, v in row.items() if k not in ('documents', 'by_position')}))


def _overrides(argv: list[str]) -> dict[str, Any]:
  """Command-line flags that replace fields of the saved run's `eval`."""
  parser = cli.parser('pe_research.evaluate', __doc__)
  parser.add_argument('--workdir', type=pathlib.Path, required=True, help='of a trained run')
  parser.add_argument('--step', type=int, help='a checkpoint other than the newest')
  parser.add_argument('--position', default='', metavar='NAME[:argument=value,...]')
  parser.add_argument('--into', type=pathlib.Path, help='where results under --position go')
  parser.add_argument('--label', default='', help='of those in figures')
  listed = {'lengths': int, 'protocols': str, 'controls': str}
  for name, kind in listed.items():
    split = lambda text, kind=kind: [kind(item) for item in text.split(',')]
    parser.add_argument(f'--{name}', type=split, help='separated by commas')
  for name in ('reach', 'targets', 'windows', 'stride', 'tokens', 'batch_tokens'):
    parser.add_argument(f'--{name}', type=int)
  parser.add_argument('--implementation', choices=attend.IMPLEMENTATIONS)
  return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> None:
  """Evaluates a saved run at other lengths or by other protocols."""
  given = _overrides(sys.argv[1:] if argv is None else argv)
  workdir, step = given.pop('workdir'), given.pop('step')
  position, into, label = given.pop('position'), given.pop('into'), given.pop('label')
  with cli.errors():
    if bool(position) != (into is not None):
      raise ValueError('--position and --into go together: another scheme, and where it is kept.')
    saved = records.load_config(workdir)
    changed = {name: value for name, value in given.items() if value is not None}
    if 'lengths' in changed:
      changed.setdefault('reach', None)
    config = configs.anywhere(saved) | {'eval': saved['eval'] | changed}
    if position:
      config |= {'position': lineage.given(position, saved)}
      config['run'] = config['run'] | {'label': label}
    config, home = configs.resolve(config), into or workdir
    with records.claim(home):
      params, step = states.load_params(config, workdir, step)
      if position:
        lineage.derive(config, home, workdir, step, digest.of_arrays(params))
      evaluate(config, home, params, step)
      if position:
        records.write_json(home / 'done.json', {'steps': step})
    show(home)


if __name__ == '__main__':
  main()
