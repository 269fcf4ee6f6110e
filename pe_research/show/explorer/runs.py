"""Finished runs for the page: the schemes as trained, and attention and losses of the models."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pe_research import positions
from pe_research.positions.base import Dims
from pe_research.runs import lineage
from pe_research.show.explorer import page, stretched, trained

FAR = 4  # times the training length, the longer length that a model is read at
STEPS = 8  # points of a loss curve per doubling of the position


def schemes(runs: Sequence[trained.Run], stretches: Sequence[str] = ()) -> dict[str, page.Shown]:
  """The schemes of the runs and of their stretches, by name; the first if several have one name."""
  found: dict[str, page.Shown] = {}
  for run in runs:
    for position in (None, *_stretches_of(run, stretches)):
      shown = _shown(run, position)
      found.setdefault(shown.name, shown)
  return found


def _stretches_of(run: trained.Run, stretches: Sequence[str]) -> list[str]:
  return [one for one in stretches if stretched(one) == run.saved['position']['name']]


def _shown(run: trained.Run, stretch: str | None) -> page.Shown:
  built = run.scheme(stretch)
  layers, dims = [scheme for scheme, _ in built], built[0][1]
  position = (
    run.saved['position'] if stretch is None else lineage.parse_position(stretch, run.saved)
  )
  position = without_derived(positions.resolve(position, dims), dims)
  learned = bool(page.parameters(layers[0]))
  source = f'learned by the run {run.workdir.name}' if learned else ''
  return page.Shown(position['name'], position, dims, layers, source, learned)


def without_derived(position: Mapping[str, Any], dims: Dims) -> dict[str, Any]:
  """The arguments of a resolved config, with those that follow from the model's sizes set to None.

  On the page they then follow when the sizes are changed. An argument is derived if its default is
  None and leaving it out resolves to the same value. The last arguments are tried first: a target
  length follows from a factor.
  """
  free = dict(position)
  arguments = positions.arguments(position['name'])
  for field in reversed(arguments):
    if arguments[field].default is not None or free[field] is None:
      continue
    try:
      resolved = positions.resolve(free | {field: None}, dims)
    except ValueError:
      continue  # a required argument
    if resolved[field] == position[field]:
      free[field] = None
  return free


def looks(runs: Sequence[trained.Run], stretches: Sequence[str]) -> list[dict[str, Any]]:
  """Views of each run at its training length and at FAR times that, there also stretched.

  Args:
    runs: finished runs.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.
  """
  return [_look(run, stretches) for run in runs]


def _look(run: trained.Run, stretches: Sequence[str]) -> dict[str, Any]:
  length, name = run.saved['length'], run.saved['position']['name']
  far = FAR * length
  limit = run.functional().scheme.max_length or far
  wanted = [(length, None)] + [(far, None)] * (limit >= far)
  wanted += [(far, stretch) for stretch in _stretches_of(run, stretches)]
  seen = [run.look(*one) for one in wanted]
  layers, heads = seen[0].maps.shape[:2]
  return {
    'label': f'{positions.scheme(name).label} ({run.workdir.name})', 'trained': length,
    'layers': layers, 'heads': heads,
    'views': [_view(run, look, stretch) for look, (_, stretch) in zip(seen, wanted, strict=True)],
    'tokens': max((look.tokens for look in seen), key=len),  # shorter texts are suffixes of longer
  }  # fmt: skip


def _view(run: trained.Run, look: trained.Look, stretch: str | None) -> dict[str, Any]:
  at, loss = averaged(run.loss_by_position(look.length, stretch).mean)
  return {
    'label': f'{look.label}, {look.length:,} tokens', 'length': look.length,
    'maps': packed(look.maps), 'at': at, 'loss': loss,
  }  # fmt: skip


def packed(maps: np.ndarray) -> str:
  """Attention [..., N, N] at and below the diagonal, in 65,535ths, as uint16 in base64."""
  below = maps[..., *np.tril_indices(maps.shape[-1])]
  return base64.b64encode(np.round(below * 65_535).astype('<u2').tobytes()).decode()


def averaged(values: np.ndarray) -> tuple[list[float], list[float]]:
  """Geometric centres of intervals of positions 1, 2, ... on a log scale, and means over these."""
  ends = np.unique(np.round(2 ** np.arange(0, np.log2(len(values)) + 1e-9, 1 / STEPS)).astype(int))
  ends = np.unique([*ends, len(values)])
  parts = np.split(np.arange(len(values)), ends)[:-1]
  middle = [float(np.exp(np.log(part + 1).mean())) for part in parts]
  return middle, [round(float(values[part].mean()), 5) for part in parts]
