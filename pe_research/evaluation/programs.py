"""The programs that score windows."""

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
    """Nothing is lowered yet.

    Args:
      config: resolved.
      params: arrays or shapes.
      scorer: that the weights are scored by; None where they are not.
    """
    plain, own = proof.interpreted(configs.without_scheme(config)), proof.interpreted(config)
    self.shared = _OneDevice(plain, params)
    self.own = _OneDevice(own, params)
    alone = scorer is not None and scorer.mesh.size == 1 and own == config
    self.reused = (scorer, params) if alone else None
    self.known: dict[scoring.Call, proof.Both] = {}

  def of(self, call: scoring.Call) -> proof.Both:
    """The program of a call, for one device; compiled for one already, it is not lowered again."""
    if call not in self.known:
      if self.reused:
        scorer, params = self.reused
        own = program_text.of(scorer.lower(params, call))
      else:
        own = self.own.text(call)
      self.known[call] = proof.Both(proof.Program(self.shared.text(call)), proof.Program(own))
    return self.known[call]


class _OneDevice:
  """A config's scorer for one device, made when it is needed."""

  def __init__(self, config: Mapping[str, Any], params):
    self.config, self.types = config, {name: x.dtype for name, x in params.items()}

  @functools.cached_property
  def scorer(self) -> scoring.Scorer:
    return scoring.Scorer(FunctionalDecoder(self.config), self.config, sharding.one_device())

  def text(self, call: scoring.Call) -> str:
    given = [*call], {name: str(kind) for name, kind in sorted(self.types.items())}
    return proof.text(repr(given), self.config, lambda config: self._lowered(call))

  def _lowered(self, call: scoring.Call) -> str:
    shapes = jax.eval_shape(self.scorer.functional.init)
    typed = lambda name, x: jax.ShapeDtypeStruct(x.shape, self.types.get(name, x.dtype))
    params = {name: typed(name, x) for name, x in shapes.items()}
    return program_text.of(self.scorer.lower(params, call))
