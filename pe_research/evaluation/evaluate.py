"""Measures a trained model: a config's measurements in, rows of results.jsonl out."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from pe_research.attention import ring
from pe_research.common import digest, progress, sharding
from pe_research.data import texts
from pe_research.evaluation import fixed_inputs, measures, programs, scoring
from pe_research.machines import jax_setup, multiprocess
from pe_research.model.functional import FunctionalDecoder
from pe_research.proof.programs import Both, keep
from pe_research.runs import run_folder
from pe_research.settings import cli, protocols
from pe_research.storage import files

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
    step: of the parameters, for the rows.
    beat: is called with what begins.
  """
  jax_setup.prepare(config)
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  corpus = texts.load(config, beat)
  run_folder.check_data(workdir, corpus.facts)
  plan = measures.plan(corpus, config)
  scorer = scoring.Scorer(functional, config, mesh)
  for *_, length in protocols.measurements(config):
    ring.check(scorer.spec, length)
  scoring_programs = programs.Scoring(config, params, scorer)
  record, results = run_folder.load_record(workdir), workdir / 'results.jsonl'
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
  done = {_key(row) for row in run_folder.load_rows(workdir, record)}
  for measurement in protocols.measurements(config):
    row = identity | dict(zip(KEY, measurement, strict=True))
    if _key(row) in done:
      continue
    beat('measuring ' + '/'.join(map(str, measurement)))
    subject = scoring.Subject(scorer, params)
    arithmetic = fixed_inputs.of_row(*measurement[:2], config['data']['task'])
    row |= measures.measure(subject, functional.scheme, plan, corpus, *measurement)
    used = [scoring_programs.of(call) for call in dict.fromkeys(subject.calls)]
    row |= evidence(subject, used, arithmetic) if used else {}
    keep(workdir, used)
    if multiprocess.is_process_0():
      files.append_row(results, row)


def _key(row: Mapping[str, Any]) -> tuple:
  return tuple(row[field] for field in ('step', 'settings', *KEY))


def evidence(subject: scoring.Subject, used: Sequence[Both], arithmetic: str) -> measures.Row:
  """Digests of how a row was made: of its one program, its inputs and the code on the host."""
  (both,) = used
  return {
    'program': both.shared.digest,
    'own_program': both.own.digest,
    'inputs': subject.inputs,
    'arithmetic': arithmetic,
  }


def show(workdir: pathlib.Path, as_json: bool = False) -> None:
  """Prints the rows of a run's results, without long lists: a table, or a line of JSON each."""
  rows = run_folder.load_rows(workdir, run_folder.load_record(workdir))
  if as_json:
    for row in rows:
      print(json.dumps({k: v for k, v in row.items() if k not in ('documents', 'by_position')}))
    return

  def number(value: float | None) -> str:
    return '-' if value is None else f'{value:.4f}'

  table = [['protocol', 'control', 'length', 'value', 'unit', 'bits/byte', 'step']]
  for row in rows:
    cells = [str(row[name]) for name in KEY] + [number(row['value']), row.get('unit') or '-']
    table.append([*cells, number(row.get('bits_per_byte')), str(row['step'])])
  print('\n'.join(cli.aligned(table)))
  for why in dict.fromkeys(row['undefined'] for row in rows if row.get('undefined')):
    print(f'- {why}')
