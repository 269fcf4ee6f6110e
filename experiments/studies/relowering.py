"""Recomputes what runs recorded with the present code: programs are lowered, nothing is run.

For a run: its initial state and its training step. For a row: the program that scores, the windows
that it reads and the arithmetic of the row.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.studies import measured
from experiments.studies.measured import Run
from pe_research.common import digest, sharding
from pe_research.data import texts
from pe_research.evaluation import evaluate, fixed_inputs, measures, scoring
from pe_research.evaluation.programs import Scoring
from pe_research.model.functional import FunctionalDecoder
from pe_research.runs import conditions
from pe_research.settings import configs, protocols
from pe_research.training import run_record
from pe_research.training.programs import of_training


class DryScorer(scoring.Scorer):
  """Records which programs would score, and runs none of them: every loss is 0."""

  def _batched(self, kind: str, params, windows: np.ndarray, *static) -> np.ndarray:
    del params
    count, length = len(windows), windows.shape[1] - 1
    if kind == 'hidden':
      return np.zeros((count, length, self.functional.model.width), np.float32)
    return np.zeros((count, static[0]), np.float32 if kind == 'nats' else bool)


class Relowering:
  """Recomputed conditions and rows; what several runs share is computed once."""

  def __init__(self):
    """Lowers nothing yet."""
    self._cache: dict[tuple[str, ...], Any] = {}

  def _once(self, key: tuple[str, ...], compute: Callable[[], Any]) -> Any:
    if key not in self._cache:
      self._cache[key] = compute()
    return self._cache[key]

  def corpus(self, config: Mapping[str, Any]) -> texts.Corpus:
    """The corpus of a config."""
    fields = {k: v for k, v in config['data'].items() if k != 'seed'}
    return self._once(('corpus', digest.of_json(fields)), lambda: texts.load(config))

  def training(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Conditions of a run with this config, and the digests of its programs with the scheme."""

    def compute() -> tuple[dict[str, Any], dict[str, str]]:
      programs = of_training(config)
      recorded = run_record.conditions_of(config, self.corpus(config), programs)
      return recorded, {name: both.own.digest for name, both in programs.items()}

    return self._once(('training', _key(config, ('seed', 'eval'))), compute)

  def row(self, config: Mapping[str, Any], text: str) -> dict[str, Any]:
    """The row of the measurement PROTOCOL/CONTROL/LENGTH, with losses of 0."""
    key = _key(config, ('seed', 'start', 'optimizer', 'steps'))

    def compute() -> dict[str, Any]:
      functional, scorer, params, programs = self._once(('scoring', key), lambda: _scoring(config))
      corpus = self.corpus(config)
      plan, subject = _plan(corpus, config, text), scoring.Subject(scorer, params)
      measurement = protocols.measurement(text)
      row = measures.measure(subject, functional.scheme, plan, corpus, *measurement)
      used = [programs.of(call) for call in dict.fromkeys(subject.calls)]
      arithmetic = fixed_inputs.of_row(*measurement[:2], config['data']['task'])
      return row | (evaluate.evidence(subject, used, arithmetic) if used else {})

    return self._once(('row', key, text), compute)


def _scoring(config: Mapping[str, Any]) -> tuple[FunctionalDecoder, DryScorer, dict, Scoring]:
  functional = FunctionalDecoder(config)
  params = jax.eval_shape(functional.init)
  scorer = DryScorer(functional, config, sharding.one_device())
  return functional, scorer, params, Scoring(config, params)


def _plan(corpus: texts.Corpus, config: Mapping[str, Any], text: str) -> measures.Plan:
  protocol, _, length = protocols.measurement(text)
  wanted = config['eval'] | {'protocols': (protocol,)}
  wanted['reach'] = max(wanted['reach'] or length, length)
  return measures.plan(corpus, dict(config) | {'eval': wanted})


def _key(config: Mapping[str, Any], without: Sequence[str]) -> str:
  kept = {k: v for k, v in conditions.experiment(config).items() if k not in without}
  return digest.of_json(kept | {'data': {k: v for k, v in kept['data'].items() if k != 'seed'}})


@functools.cache
def shared() -> Relowering:
  """One for all comparisons of this process."""
  return Relowering()


def matches_record(run: Run, recorded: Mapping[str, Any]) -> bool:
  """Whether the present code gives a run's config the programs on record, without the scheme.

  Args:
    run: the run.
    recorded: its conditions, or one of its rows.
  """
  plain = configs.without_scheme(run.config)
  if 'protocol' in recorded:
    relowered = shared().row(plain, measured.measurement_id(recorded))
    return relowered.get('program') == recorded['program']
  relowered, _ = shared().training(plain)
  return all(
    value == recorded.get(name) for name, value in relowered.items() if name.startswith('program.')
  )
