"""Texts of the programs that make a run's weights."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pe_research.attention.spec import Spec
from pe_research.common import sharding
from pe_research.data import batches
from pe_research.model.functional import FunctionalDecoder, is_position_parameter
from pe_research.proof import program_text
from pe_research.proof import programs as proof
from pe_research.settings import configs
from pe_research.training import optimizers, train_state, train_step


def of_training(
  config: Mapping[str, Any], step: jax.stages.Lowered | None = None
) -> dict[str, proof.Both]:
  """The programs of a run's first state and training step, for one device.

  They do not show how a program is split over devices, or how it computes several seeds together.

  Args:
    config: resolved; with no steps there is no training step.
    step: the training step if it is already lowered for one device.
  """
  plain, own = proof.interpreted(configs.without_scheme(config)), proof.interpreted(config)
  draws = not (config['start']['workdir'] or config['start']['pretrained'])
  kind, make = ('drawn', _drawn) if draws else ('given', _given)
  shared = proof.Program(proof.text(kind, plain, make))
  # Without parameters of the scheme the first state is the same.
  differs = any(map(is_position_parameter, FunctionalDecoder(own).paths))
  own_first = proof.Program(proof.text(kind, own, make)) if differs else shared
  texts = {'initial': proof.Both(shared, own_first)}
  if config['steps']:
    reused = step is not None and own == config
    text = _decisive(step) if reused else proof.text('step', own, _step)
    texts['step'] = proof.Both(proof.Program(proof.text('step', plain, _step)), proof.Program(text))
  return texts


def _decisive(step: jax.stages.Lowered) -> str:
  """The part of a training step behind the next state and the loss, without logged norms."""
  return program_text.of(step, lambda path: path.startswith('[0]') or path == "[1]['loss']")


def _step(config: Mapping[str, Any]) -> str:
  mesh, functional = sharding.one_device(), FunctionalDecoder(config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  spec = Spec(**config['attention'], mesh=mesh)
  step = jax.jit(train_step.pure_step(config, functional, optimizer, spec), keep_unused=True)
  like = train_state.abstract(functional, optimizer, mesh)
  batch = batches.shapes(config, functional.scheme.reads_beyond)
  return _decisive(step.lower(like, batch, jax.ShapeDtypeStruct((), np.uint32)))


def _first(config: Mapping[str, Any], params):
  """The first state of these parameters; the parameters alone if nothing is trained."""
  if not config['steps']:
    return params
  return train_state.first(params, optimizers.build(config['optimizer'], config['steps']))


def _drawn(config: Mapping[str, Any]) -> str:
  """The first state of parameters that are drawn on the host, see train_state.begin."""
  functional = FunctionalDecoder(dict(config) | {'seed': 0})
  first = jax.jit(lambda: _first(config, functional.init()))
  return program_text.of(first.trace().lower(lowering_platforms=('cpu',)))


def _given(config: Mapping[str, Any]) -> str:
  """The first state of another run's parameters, or of a published model's."""
  first = jax.jit(lambda params: _first(config, params), keep_unused=True)
  return program_text.of(first.lower(jax.eval_shape(FunctionalDecoder(config).init)))
