"""Carries a search out, from its plan to the file of factors."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pe_research.common import digest, progress, provenance
from pe_research.data import texts
from pe_research.machines import jax_setup, multiprocess
from pe_research.runs import lineage, run_folder
from pe_research.search import ledger, methods, objective
from pe_research.search import plan as plans
from pe_research.search.space import Candidate
from pe_research.storage import files
from pe_research.training import train_state


def search(
  plan: plans.Plan,
  run: plans.Run,
  origin: pathlib.Path,
  step: int | None,
  workdir: pathlib.Path,
  batch_tokens: int,
  beat: Callable[[str], None] = progress.unheard,
) -> dict[str, Any]:
  """Searches or resumes; writes search.json, evaluations.jsonl and factors.json.

  Args:
    plan: what to search.
    run: whose weights are searched.
    origin: folder of the run.
    step: of the checkpoint; None: the newest.
    workdir: folder of the search, which the caller owns.
    batch_tokens: tokens evaluated at once.
    beat: is called with what begins.

  Returns:
    The contents of factors.json.
  """
  config = run.config
  jax_setup.prepare(config)
  corpus = texts.load(config, beat)
  run_folder.check_data(origin, corpus.facts)
  seed = plan.settings.seed
  train = texts.long_documents(corpus, plan.documents, plan.target_length, seed)
  chosen = objective.windows(train, plan.target_length, plan.documents, seed, 'training')
  held_out = objective.windows(
    corpus.validation, plan.target_length, plan.held_out, seed, 'validation'
  )
  params, step = train_state.load_params(config, origin, step)
  wanted = dataclasses.asdict(plan) | {
    'weights_of': lineage.source(origin, step, digest.of_arrays(params)),
    'searched_on': chosen.digest,
    'held_out_on': held_out.digest,
    'batch_tokens': batch_tokens,  # losses differ by it in their last bits
  }
  multiprocess.on_process_0(lambda: files.write_once(workdir / 'search.json', wanted))
  measure = objective.Objective(
    config,
    params,
    (plan.documents, plan.target_length),
    plans.attention_factor(plan, run),
    batch_tokens,
    absolute=plan.short_of is not None,
  )
  references = plans.references(plan, run, measure.stretched)
  space = plans.make_space(plan, run, references)
  identity = digest.of_json(files.read_json(workdir / 'search.json'))
  path = workdir / 'evaluations.jsonl'
  losses = ledger.Ledger(path, lambda c: measure(c, chosen), identity)
  for now in ledger.progress(plan.method, space, plan.settings, losses):
    beat(f'evaluating candidates after {now.evaluations}')
    if multiprocess.is_process_0():
      print(
        f'{workdir.name}  {now.evaluations:5}/{plan.settings.evaluations} candidates  '
        f'best {now.loss:.4f} nats/token  {now.seconds:.0f} s',
        flush=True,
      )
  compared = space.seeds | references | {'best': now.best}
  contents = plans.factor_file(plan, run, measure.total(now.best), now.best.start_tokens)
  contents |= {
    'losses': compare(measure, compared, chosen, held_out),
    'search': wanted
    | {'evaluations': now.evaluations, 'made_by': provenance.provenance()}
    | {'generator': methods.fixed_inputs(plan.method)},
  }
  if multiprocess.is_process_0():
    files.write_json(workdir / 'factors.json', contents)
  return contents


def compare(
  measure: objective.Objective,
  candidates: Mapping[str, Candidate],
  chosen: objective.Windows,
  held_out: objective.Windows,
) -> dict[str, dict[str, float]]:
  """Nats/token of each candidate on the documents of the search and on the held-out ones."""
  count = len(chosen.tokens)
  groups = [
    dataclasses.replace(held_out, tokens=held_out.tokens[i : i + count])
    for i in range(0, len(held_out.tokens), count)
  ]
  found = {}
  for name, candidate in candidates.items():
    means = [measure([candidate], group)[0] for group in groups]
    found[name] = {'search': measure([candidate], chosen)[0], 'held_out': float(np.mean(means))}
  return found
