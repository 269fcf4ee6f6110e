"""Texts of the programs that score windows."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from pe_research.common import sharding
from pe_research.evaluation import scoring
from pe_research.model.functional import FunctionalDecoder
from pe_research.proof import program_text
from pe_research.proof import programs as proof
from pe_research.settings import configs


class Scoring:
  """The programs that score windows, of one set of weights."""

  def __init__(self, config: Mapping[str, Any], params, scorer: scoring.Scorer | None = None):
    """Lowers nothing yet.

    Args:
      config: resolved.
      params: arrays or shapes.
      scorer: scores the weights; its programs are reused where they show the same. Or None.
    """
    plain, own = proof.interpreted(configs.without_scheme(config)), proof.interpreted(config)
    self.shared = _OneDevice(plain, params)
    self.own = _OneDevice(own, params)
    alone = scorer is not None and scorer.mesh.size == 1 and own == config
    self.reused = (scorer, params) if alone else None
    self.programs: dict[scoring.Call, proof.Both] = {}

  def of(self, call: scoring.Call) -> proof.Both:
    """The program of a call, for one device."""
    if call not in self.programs:
      if self.reused:
        scorer, params = self.reused
        own = program_text.of(scorer.lower(params, call))
      else:
        own = self.own.text(call)
      self.programs[call] = proof.Both(proof.Program(self.shared.text(call)), proof.Program(own))
    return self.programs[call]


class _OneDevice:
  """A config's scorer for one device, built on first use."""

  def __init__(self, config: Mapping[str, Any], params):
    self.config, self.types = config, {name: x.dtype for name, x in params.items()}

  @functools.cached_property
  def scorer(self) -> scoring.Scorer:
    return scoring.Scorer(FunctionalDecoder(self.config), self.config, sharding.one_device())

  def text(self, call: scoring.Call) -> str:
    key = [*call], {name: str(kind) for name, kind in sorted(self.types.items())}
    return proof.text(repr(key), self.config, lambda config: self._lowered(call))

  def _lowered(self, call: scoring.Call) -> str:
    params = {
      name: jax.ShapeDtypeStruct(x.shape, self.types.get(name, x.dtype))
      for name, x in jax.eval_shape(self.scorer.functional.init).items()
    }
    return program_text.of(self.scorer.lower(params, call))
