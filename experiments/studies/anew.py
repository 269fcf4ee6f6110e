"""What runs have on record, made anew by the code as it is: programs are lowered, nothing is run.

Of a run that is its first state and its training step; of a row the program that scores, the
windows that it reads and the arithmetic behind it.
"""

import functools
from collections.abc import Mapping, Sequence
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


class Unscored(scoring.Scorer):
  """Knows its programs, and runs none: every loss is 0."""

  def _batched(self, kind: str, params, windows: np.ndarray, *static) -> np.ndarray:
    del params
    count, length = len(windows), windows.shape[1] - 1
    if kind == 'hidden':
      return np.zeros((count, length, self.functional.model.width), np.float32)
    return np.zeros((count, static[0]), np.float32 if kind == 'nats' else bool)


class Anew:
  """Remembers what it made, which many runs share."""

  def __init__(self):
    """Nothing is lowered yet."""
    self._corpora: dict[str, texts.Corpus] = {}
    self._training: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    self._scorings: dict[str, tuple] = {}
    self._rows: dict[tuple[str, str], dict[str, Any]] = {}

  def corpus(self, config: Mapping[str, Any]) -> texts.Corpus:
    """What a config reads."""
    key = digest.of_json({k: v for k, v in config['data'].items() if k != 'seed'})
    if key not in self._corpora:
      self._corpora[key] = texts.load(config)
    return self._corpora[key]

  def training(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Conditions of a run of the config, and its programs with the scheme."""
    key = _key(config, ('seed', 'eval'))
    if key not in self._training:
      shown = of_training(config)
      conditions = run_record.conditions_of(config, self.corpus(config), shown)
      self._training[key] = conditions, {name: both.own.digest for name, both in shown.items()}
    return self._training[key]

  def row(self, config: Mapping[str, Any], text: str) -> dict[str, Any]:
    """How a measurement of a config is made, and of what."""
    key = _key(config, ('seed', 'start', 'optimizer', 'steps'))
    if (key, text) not in self._rows:
      if key not in self._scorings:
        functional, corpus = FunctionalDecoder(config), self.corpus(config)
        scorer = Unscored(functional, config, sharding.one_device())
        params = jax.eval_shape(functional.init)
        shown = Scoring(config, params)
        self._scorings[key] = functional, corpus, scorer, params, shown
      functional, corpus, scorer, params, shown = self._scorings[key]
      plan, subject = _plan(corpus, config, text), scoring.Subject(scorer, params)
      measurement = protocols.measurement(text)
      row = measures.measure(subject, functional.scheme, plan, corpus, *measurement)
      used = [shown.of(call) for call in dict.fromkeys(subject.calls)]
      arithmetic = fixed_inputs.of_row(*measurement[:2], config['data']['task'])
      row |= evaluate.evidence(subject, used, arithmetic) if used else {}
      self._rows[key, text] = row
    return self._rows[key, text]


def _plan(corpus: texts.Corpus, config: Mapping[str, Any], text: str) -> measures.Plan:
  protocol, _, length = protocols.measurement(text)
  wanted = config['eval'] | {'protocols': (protocol,)}
  wanted['reach'] = max(wanted['reach'] or length, length)
  return measures.plan(corpus, dict(config) | {'eval': wanted})


def _key(config: Mapping[str, Any], without: Sequence[str]) -> str:
  kept = {k: v for k, v in conditions.experiment(config).items() if k not in without}
  return digest.of_json(kept | {'data': {k: v for k, v in kept['data'].items() if k != 'seed'}})


@functools.cache
def shared() -> Anew:
  """One for all comparisons of this process."""
  return Anew()


def is_as_recorded(run: Run, recorded: Mapping[str, Any]) -> bool:
  """Whether this code makes of a run's config the programs without the scheme that it has.

  Args:
    run: the run.
    recorded: its conditions, or one of its rows.
  """
  plain = configs.without_scheme(run.config)
  if 'protocol' in recorded:
    return shared().row(plain, measured.name(recorded)).get('program') == recorded['program']
  now, _ = shared().training(plain)
  return all(now[name] == recorded.get(name) for name in now if name.startswith('program.'))
