"""Finished runs for the page: their schemes with what these learned, and views into the models."""

import base64
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pe_research import positions
from pe_research.positions.base import Dims
from pe_research.runs import lineage, run_folder
from pe_research.settings import configs
from pe_research.show.explorer import page, stretched, trained

FAR = 4  # times the training length, where a model is looked at beyond it
STEPS = 8  # points of a curve of losses in which the position doubles


def schemes(
  workdirs: Sequence[pathlib.Path], stretches: Sequence[str] = ()
) -> dict[str, page.Shown]:
  """The schemes of the runs, by name; of two runs with one scheme the first; and of stretches."""
  found: dict[str, page.Shown] = {}
  for workdir in workdirs:
    saved = run_folder.load_config(workdir)
    name = saved['position']['name']
    for asked in (None, *(one for one in stretches if stretched(one) == name)):
      one = _shown(workdir, saved, asked)
      found.setdefault(one.name, one)
  return found


def _shown(workdir: pathlib.Path, saved: Mapping[str, Any], stretch: str | None) -> page.Shown:
  made = trained.scheme(workdir, stretch)
  layers, dims = [scheme for scheme, _ in made], made[0][1]
  position = saved['position'] if stretch is None else lineage.parse_position(stretch, saved)
  position = unsettled(positions.resolve(position, dims), dims)
  learned = bool(page.parameters(layers[0]))
  source = f'learned by the run {workdir.name}' if learned else ''
  return page.Shown(position['name'], position, dims, layers, source, learned)


def unsettled(position: Mapping[str, Any], dims: Dims) -> dict[str, Any]:
  """The arguments of a saved config without what follows from the sizes of the model.

  A config has what became of every argument. Those whose default is None, and that come to the same
  without being said, are None again, so that they follow where a page changes the sizes. Last ones
  first: a target length follows from a factor.
  """
  free = dict(position)
  arguments = positions.arguments(position['name'])
  for field in reversed(arguments):
    if arguments[field].default is not None or free[field] is None:
      continue
    try:
      settled = positions.resolve(free | {field: None}, dims)
    except ValueError:
      continue  # it has to be said
    if settled[field] == position[field]:
      free[field] = None
  return free


def looks(workdirs: Sequence[pathlib.Path], stretches: Sequence[str]) -> list[dict[str, Any]]:
  """A view of each run at its training length and at FAR times that, there also stretched.

  Args:
    workdirs: of finished runs.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.
  """
  return [_look(workdir, run_folder.load_config(workdir), stretches) for workdir in workdirs]


def _look(workdir: pathlib.Path, config: dict[str, Any], stretches: Sequence[str]):
  length, name = config['length'], config['position']['name']
  limit = configs.scheme(config).max_length or FAR * length
  asked = [(length, None)] + [(FAR * length, None)] * (limit >= FAR * length)
  for stretch in stretches:
    if stretched(stretch) == name:
      asked.append((FAR * length, stretch))
  seen = [trained.look(workdir, *one) for one in asked]
  views = [_view(workdir, *one) for one in zip(seen, asked, strict=True)]
  layers, heads = seen[0].maps.shape[:2]
  label = f'{positions.scheme(name).label} ({workdir.name})'
  tokens = max((one.tokens for one in seen), key=len)  # shorter texts are ends of longer ones
  return {
    'label': label, 'trained': length, 'layers': layers, 'heads': heads, 'views': views,
    'tokens': tokens,
  }  # fmt: skip


def _view(
  workdir: pathlib.Path, seen: trained.Look, asked: tuple[int, str | None]
) -> dict[str, Any]:
  length, stretch = asked
  curve = trained.loss_by_position(workdir, length, stretch)
  at, loss = thinned(curve.mean)
  return {
    'label': f'{seen.label}, {length:,} tokens', 'length': length, 'maps': packed(seen.maps),
    'at': at, 'loss': loss,
  }  # fmt: skip


def packed(maps: np.ndarray) -> str:
  """Shares [..., N, N] at and below the diagonal, in 65,535ths, as uint16 in base64."""
  below = maps[..., *np.tril_indices(maps.shape[-1])]
  return base64.b64encode(np.round(below * 65_535).astype('<u2').tobytes()).decode()


def thinned(values: np.ndarray) -> tuple[list[float], list[float]]:
  """Means over stretches of positions 1, 2, .. that grow with them, and where these lie."""
  ends = np.unique(np.round(2 ** np.arange(0, np.log2(len(values)) + 1e-9, 1 / STEPS)).astype(int))
  ends = np.unique([*ends, len(values)])
  parts = np.split(np.arange(len(values)), ends)[:-1]
  middle = [float(np.exp(np.log(part + 1).mean())) for part in parts]
  return middle, [round(float(values[part].mean()), 5) for part in parts]
