"""A run's record, run.json: what was run, on what, and the conditions of a comparison."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from pe_research.common import digest, nested, provenance
from pe_research.data import texts
from pe_research.evaluation import measures
from pe_research.machines import jax_setup
from pe_research.model.functional import FunctionalDecoder, is_position_parameter
from pe_research.proof.programs import Both, keep
from pe_research.runs import conditions, lineage, run_folder
from pe_research.storage import files
from pe_research.training import fixed_inputs, programs, train_state


def adopt(config: Mapping[str, Any], workdir: pathlib.Path) -> train_state.State:
  """The state of a run that trains nothing: the weights of a published model.

  Its folder is like that of any run, without checkpoints: the weights stay where they are.
  """
  jax_setup.prepare(config)
  functional, corpus = FunctionalDecoder(config), texts.load(config)
  measures.plan(corpus, config)
  run_folder.check_data(workdir, corpus.facts)
  params, _ = train_state.load_params(config, workdir)
  weights = digest.of_arrays(params)
  origin, shown = lineage.published(config, weights), programs.of_training(config)
  record = describe(config, functional, corpus, params, origin, shown)
  write(workdir, 'config.json', config)
  write(workdir, 'run.json', record | {'steps': 0, 'batches': '', 'final_parameters': weights})
  keep(workdir, shown.values())
  if jax.process_index() == 0:
    for note in record['notes']:
      print(f'note: {note}')
  return {'params': params}


def describe(
  config,
  functional: FunctionalDecoder,
  corpus: texts.Corpus,
  params,
  start: dict[str, Any] | None,
  shown: Mapping[str, Both],
) -> dict[str, Any]:
  """The run's record: what was run, on what, and the conditions of a comparison.

  Args:
    config: resolved.
    functional: of the config.
    corpus: what it reads.
    params: before the first step.
    start: lineage.source of the parameters; None if they were drawn.
    shown: its programs by name, see programs.of_training.
  """
  shared = {k: v for k, v in params.items() if not is_position_parameter(k)}
  conditions = conditions_of(config, corpus, shown)
  return {
    'scheme': config['position']['name'],
    'seed': config['seed'],
    'train_length': config['length'],
    'fingerprint': digest.of_json(conditions),
    'conditions': conditions,
    'initial_parameters': digest.of_arrays(shared),  # outside the scheme
    'programs': {name: both.own.digest for name, both in shown.items()},  # scheme included
    'provenance': provenance.provenance(),
    'devices': jax.device_count(),
    'changed_on_resume': [],
    'notes': functional.scheme.notes(lineage.original_length(config)),
    'start': start,
  } | functional.sizes()


def conditions_of(
  config: Mapping[str, Any], corpus: texts.Corpus, shown: Mapping[str, Both]
) -> dict[str, Any]:
  """What two runs of a comparison must share whatever their scheme and seed, by dotted name."""
  return (
    {f'program.{name}': both.shared.digest for name, both in shown.items()}
    | {f'data.{name}': value for name, value in corpus.facts.items()}
    | {'batch_order': fixed_inputs.of_batches(config, corpus.tokenizer)}
    | {'attention': config['attention']['implementation']}
    | jax_setup.environment()
  )


def describe_resumed(
  config, functional: FunctionalDecoder, corpus: texts.Corpus, workdir: pathlib.Path, shown
) -> dict[str, Any]:
  """The record of a run that resumes, with the conditions that have changed since it began."""
  before = run_folder.load_record(workdir)
  record = describe(config, functional, corpus, {}, before['start'], shown)
  changed = conditions.changed(before['conditions'], record['conditions'])
  if before.get('programs'):
    old, new = ({'own_program': kept['programs']} for kept in (before, record))
    changed += nested.difference(old, new)
  return record | {
    'initial_parameters': before['initial_parameters'],
    'changed_on_resume': before['changed_on_resume'] + changed,
  }


def finished(workdir: pathlib.Path) -> bool:
  """Whether the record is of a finished run, which nothing may rewrite."""
  return 'batches' in (files.read_json(workdir / 'run.json') or {})


def write(workdir: pathlib.Path, name: str, value: Mapping[str, Any]) -> None:
  """Writes a JSON file of the run, from process 0."""
  if jax.process_index() == 0:
    files.write_json(workdir / name, value)
