"""The training state: parameters, optimizer slots and the step, laid out over the mesh."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pe_research.common import digest, sharding
from pe_research.huggingface import importing
from pe_research.model.functional import FunctionalDecoder
from pe_research.runs import checkpoints, lineage, run_folder
from pe_research.storage import files, paths
from pe_research.training import optimizers

State = dict[str, Any]  # 'params', 'optimizer', 'step'


def layout(like: State) -> State:
  """The sharding of each array of the state, from `abstract`."""
  return jax.tree.map(lambda x: x.sharding, like)


def begin(
  config: Mapping[str, Any], functional: FunctionalDecoder, optimizer, like: State
) -> tuple[State, dict[str, Any] | None]:
  """The state before the first step, and the record of where its parameters come from.

  They are those of the run or published model that config['start'] names; else they are drawn, and
  the record is None. They are drawn on the host and then laid out: compiled for another layout, the
  same draw can differ in its last bit, and runs on different devices would not begin alike.
  """
  start, origin = config['start'], None
  if start['pretrained']:
    params = importing.load(pathlib.Path(start['pretrained']), config)
    origin = lineage.published(config, digest.of_arrays(params))
  elif start['workdir']:
    workdir = paths.place(start['workdir'])
    saved = run_folder.load_config(workdir) | {'run': config['run']}
    params, step = load_params(saved, workdir, start['step'])
    origin = lineage.source(workdir, step, digest.of_arrays(params))
  else:
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      drawn = jax.device_get(jax.jit(functional.init)())
    params = jax.tree.map(sharding.place, drawn, layout(like)['params'])
  return jax.jit(lambda p: first(p, optimizer), out_shardings=layout(like))(params), origin


def abstract(functional: FunctionalDecoder, optimizer, mesh) -> State:
  """Shapes, types and shardings of the state, for restoring."""
  shapes = jax.eval_shape(lambda: first(functional.init(), optimizer))
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    shapes,
    sharding.layout(shapes, mesh),
  )


def first(params, optimizer) -> State:
  """The state of these parameters before the first step."""
  # A published model's parameters may be narrow.
  params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  return {'params': params, 'optimizer': optimizer.init(params), 'step': jnp.int32(0)}


def load_params(
  config: Mapping[str, Any], workdir: pathlib.Path, step: int | None = None
) -> tuple[dict[str, jax.Array], int]:
  """Parameters of a saved run and their step, the newest unless `step` is given.

  A run that trains nothing has the weights of the published model that it names, in their own type.
  """
  if not config['steps']:
    if step:
      raise files.WorkdirError(f'{workdir} trained nothing, so it has no step {step}.')
    params = importing.load(pathlib.Path(config['start']['pretrained']), config)
    check_final(workdir, config['start']['pretrained'], params, 0)
    return params, 0
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  like = abstract(functional, optimizers.build(config['optimizer'], config['steps']), mesh)
  with checkpoints.Checkpoints(workdir, config['run']['keep'], read_only=True) as saved:
    restored = saved.restore(like, step)
  if restored is None:
    raise files.WorkdirError(
      f'{workdir} has no checkpoint; train it first with python -m pe_research.main.'
    )
  params, step = restored[0]['params'], int(restored[0]['step'])
  check_final(workdir, workdir / 'checkpoints', params, step)
  return params, step


def check_final(workdir: pathlib.Path, where: pathlib.Path | str, params, step: int) -> None:
  """Raises WorkdirError unless the last parameters of a finished run are those on record."""
  record = files.read_json(workdir / 'run.json') or {}
  known = record.get('final_parameters') if record.get('steps') == step else None
  if known not in (None, digest.of_arrays(params)):
    raise files.WorkdirError(
      f'the weights in {where} are not those of {workdir / "run.json"}; restore both from a copy, '
      'or begin again in another --workdir.'
    )
