"""Evaluates a trained model: measurements of a config in, rows of results.jsonl out.

  python -m pe_research.evaluate --workdir=DIR --lengths=64,512,8192 --protocols=sliding
  python -m pe_research.evaluate --workdir=DIR --position=yarn:factor=4 --into=DIR_YARN

The second evaluates the weights of a run under another scheme that can use them, as they are, and
keeps the results in a directory of their own.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from pe_research.attention import ring
from pe_research.attention.spec import IMPLEMENTATIONS
from pe_research.common import digest, progress, sharding
from pe_research.data import texts
from pe_research.evaluation import fixed_inputs, measures, programs, scoring
from pe_research.machines import cluster, exits, heartbeat, jax_setup, multiprocess
from pe_research.model.functional import Blueprint
from pe_research.proof import program_store
from pe_research.proof.programs import Both, keep
from pe_research.runs import lineage, run_folder
from pe_research.settings import cli, configs, protocols
from pe_research.storage import files, paths
from pe_research.training import train_state

KEY = ('protocol', 'control', 'eval_length')


def evaluate(
  config: Mapping[str, Any],
  workdir: pathlib.Path,
  params,
  step: int,
  beat: Callable[[str], None] = progress.unheard,
) -> None:
  """Appends to results.jsonl every measurement of the config that is not there yet.

  Args:
    config: resolved; `eval` says what to measure.
    workdir: the run's directory, with its run.json.
    params: the parameters after `step` steps.
    step: names the rows.
    beat: is told what is begun.
  """
  jax_setup.prepare(config)
  mesh, blueprint = sharding.mesh(config['run']['mesh']), Blueprint(config)
  corpus = texts.load(config, beat)
  run_folder.check_data(workdir, corpus.facts)
  chosen = measures.plan(corpus, config)
  scorer = scoring.Scorer(blueprint, config, mesh)
  for *_, length in protocols.measurements(config):
    ring.check(scorer.spec, length)
  shown = programs.Scoring(config, params, scorer)
  record, results = files.read_json(workdir / 'run.json'), workdir / 'results.jsonl'
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
    'environment': digest.of_json(jax_setup.environment()),
    'settings': protocols.settings(config['eval']),
  }
  key = lambda row: tuple(row[field] for field in ('step', 'settings', *KEY))
  done = {key(row) for row in files.read_rows(results)}
  for measurement in protocols.measurements(config):
    row = identity | dict(zip(KEY, measurement, strict=True))
    if key(row) in done:
      continue
    beat('measuring ' + '/'.join(map(str, measurement)))
    subject = scoring.Subject(scorer, params)
    arithmetic = fixed_inputs.of_row(*measurement[:2], config['data']['task'])
    row |= measures.measure(subject, blueprint.scheme, chosen, corpus, *measurement)
    used = [shown.of(call) for call in dict.fromkeys(subject.calls)]
    row |= evidence(subject, used, arithmetic) if used else {}
    keep(workdir, used)
    if multiprocess.first():
      files.append_row(results, row)


def evidence(subject: scoring.Subject, used: Sequence[Both], arithmetic: str) -> measures.Row:
  """What shows how a row was made: its program, what that read, and what was made of the losses."""
  (both,) = used
  return {
    'program': both.shared.digest,
    'own_program': both.own.digest,
    'inputs': subject.inputs,
    'arithmetic': arithmetic,
  }


def show(workdir: pathlib.Path) -> None:
  """Prints the rows of a run's results, a line each, without what fills pages."""
  for row in files.read_rows(workdir / 'results.jsonl'):
    print(json.dumps({k: v for k, v in row.items() if k not in ('documents', 'by_position')}))


def _mesh(text: str) -> dict[str, int]:
  """The type of --mesh."""
  found = dict(item.partition('=')[::2] for item in text.split(','))
  if not found.keys() <= set(sharding.AXES) or not all(n.isdigit() for n in found.values()):
    raise argparse.ArgumentTypeError(
      f'{text!r} is not understood; write context=8, with axes of {", ".join(sharding.AXES)}.'
    )
  return {axis: int(n) for axis, n in found.items()}


def _overrides(argv: list[str]) -> dict[str, Any]:
  """Command-line flags that replace fields of the saved run's `eval`."""
  parser = cli.parser('pe_research.evaluate', __doc__)
  parser.add_argument('--workdir', type=paths.place, required=True, help='of a trained run')
  parser.add_argument('--step', type=int, help='a checkpoint other than the newest')
  parser.add_argument('--position', default='', metavar='NAME[:argument=value,...]')
  parser.add_argument('--into', type=paths.place, help='where results under --position go')
  parser.add_argument('--label', default='', help='of those in figures')
  parser.add_argument('--done', type=paths.place, metavar='FILE', help='written last')
  listed = {'lengths': int, 'protocols': str, 'controls': str}
  for name, kind in listed.items():
    split = lambda text, kind=kind: [kind(item) for item in text.split(',')]
    parser.add_argument(f'--{name}', type=split, help='separated by commas')
  parser.add_argument(
    '--measurement', action='append', dest='measurements', metavar='PROTOCOL/CONTROL/LENGTH'
  )
  for name in ('reach', 'targets', 'windows', 'stride', 'tokens', 'batch_tokens'):
    parser.add_argument(f'--{name}', type=int)
  parser.add_argument('--implementation', choices=IMPLEMENTATIONS)
  parser.add_argument(
    '--mesh', type=_mesh, default={}, metavar='AXIS=DEVICES,...',
    help='context=8: so many devices share a sequence; default: each has its own',
  )  # fmt: skip
  cluster.add_flags(parser)
  return vars(parser.parse_args(argv))


def main(argv: list[str] | None = None) -> None:
  """Evaluates a saved run at other lengths or by other protocols."""
  given = _overrides(sys.argv[1:] if argv is None else argv)
  workdir, step = given.pop('workdir'), given.pop('step')
  position, into, label = given.pop('position'), given.pop('into'), given.pop('label')
  done, mesh = given.pop('done'), given.pop('mesh')
  how, wait = given.pop('distributed'), given.pop('wait')
  with exits.errors():
    if bool(position) != (into is not None):
      raise ValueError('--position and --into go together: another scheme, and where it is kept.')
    if label and not position:
      raise ValueError(f'--label={label} names what --position makes; give that, or leave it out.')
    saved = run_folder.load_config(workdir)
    changed = {name: value for name, value in given.items() if value is not None}
    if 'lengths' in changed:
      changed.setdefault('reach', None)
    config = configs.anywhere(saved, mesh) | {'eval': saved['eval'] | changed}
    if position:
      config |= {'position': lineage.given(position, saved)}
      config['run'] = config['run'] | {'label': label}
    config, home = configs.resolve(config), into or workdir
    program_store.use()
    cluster.join(how, wait)
    with (
      multiprocess.hold(home, config) as mine,
      heartbeat.Heartbeat(home, config['run']['patience'], mine) as heart,
    ):
      params, step = train_state.load_params(config, workdir, step)
      if position:
        parameters = digest.of_arrays(params)
        multiprocess.by_first(lambda: lineage.derive(config, home, workdir, step, parameters))
      evaluate(config, home, params, step, heart.beat)
      if not multiprocess.first():
        return
      if position:
        files.write_json(home / 'done.json', {'steps': step})
      if done:
        files.write_json(done, {'measurements': config['eval']['measurements'], 'steps': step})
    show(home)


if __name__ == '__main__':
  main()
