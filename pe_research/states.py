"""The training state: parameters, optimizer slots and the step, each array born where it lives."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pe_research import checkpoints, optimizers, records, sharding
from pe_research.blueprint import Blueprint

State = dict[str, Any]  # 'params', 'optimizer', 'step'


def init(blueprint: Blueprint, optimizer, mesh) -> tuple[State, State]:
  """The state before the first step, and its layout."""
  create, layout = _create(blueprint, optimizer), _layout(blueprint, optimizer, mesh)
  return jax.jit(create, out_shardings=layout)(), layout


def abstract(blueprint: Blueprint, optimizer, mesh) -> State:
  """Shapes, types and layout of the state, for restoring."""
  shapes = jax.eval_shape(_create(blueprint, optimizer))
  make = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  return jax.tree.map(make, shapes, sharding.layout(shapes, mesh))


def _create(blueprint: Blueprint, optimizer):
  def create() -> State:
    params = blueprint.init()
    return {'params': params, 'optimizer': optimizer.init(params), 'step': jnp.int32(0)}

  return create


def _layout(blueprint: Blueprint, optimizer, mesh) -> State:
  return sharding.layout(jax.eval_shape(_create(blueprint, optimizer)), mesh)


def load_params(
  config: Mapping[str, Any], workdir: pathlib.Path, step: int | None = None
) -> tuple[dict[str, jax.Array], int]:
  """Parameters of a saved run and the step they are from, the newest unless `step` is given."""
  mesh, blueprint = sharding.mesh(config['run']['mesh']), Blueprint(config)
  like = abstract(blueprint, optimizers.build(config['optimizer'], config['steps']), mesh)
  with checkpoints.Checkpoints(workdir, config['run']['keep']) as saved:
    restored = saved.restore(like, step)
  if restored is None:
    raise records.WorkdirError(
      f'{workdir} has no checkpoint; train it first with python -m pe_research.main.'
    )
  return restored[0]['params'], int(restored[0]['step'])
