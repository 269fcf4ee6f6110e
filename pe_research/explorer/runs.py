"""Finished runs for the page: their schemes with what these learned, and views into the models."""

import base64
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pe_research import configs, lineage, positions, records
from pe_research.explorer import page, trained

FAR = 4  # times the training length, where a model is looked at beyond it
STEPS = 8  # points of a curve of losses in which the position doubles


def schemes(workdirs: Sequence[pathlib.Path]) -> dict[str, page.Shown]:
  """The schemes of the runs, by name; of two runs with one scheme the first."""
  found = {}
  for workdir in workdirs:
    position = records.load_config(workdir)['position']
    made = trained.scheme(workdir)
    if made[0][1].sliced:
      raise ValueError(
        f'{workdir} has latent attention, of whose heads a slice carries position; the panels show '
        'whole heads. Name a run of another projection.'
      )
    source = f'of the run {workdir.name}' if page.parameters(made[0][0]) else ''
    layers = [scheme for scheme, _ in made]
    one = page.Shown(position['name'], position, made[0][1], layers, source)
    found.setdefault(position['name'], one)
  return found


def looks(workdirs: Sequence[pathlib.Path], stretches: Sequence[str]) -> list[dict[str, Any]]:
  """A view of each run at its training length and at FAR times that, there also stretched.

  Args:
    workdirs: of finished runs.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.

  Raises:
    ValueError: a run that cannot be looked at, or a stretch that is of no use to any run.
  """
  saved = [records.load_config(workdir) for workdir in workdirs]
  for stretch in stretches:
    own = positions.scheme(stretch.partition(':')[0]).trains_as
    if own not in [config['position']['name'] for config in saved]:
      raise ValueError(
        f'--stretch={stretch} stretches a run of {own or "no other scheme"!r}, and no --workdir is '
        'one; name such a run, or leave the stretch out.'
      )
    for config in saved:
      if config['position']['name'] == own:
        lineage.given(stretch, config)  # says what is wrong before any is looked at
  return [_look(*one, stretches) for one in zip(workdirs, saved, strict=True)]


def _look(workdir: pathlib.Path, config: dict[str, Any], stretches: Sequence[str]):
  length, name = config['length'], config['position']['name']
  limit = configs.scheme(config).max_length or FAR * length
  asked = [(length, None)] + [(FAR * length, None)] * (limit >= FAR * length)
  for stretch in stretches:
    if positions.scheme(stretch.partition(':')[0]).trains_as == name:
      asked.append((FAR * length, stretch))
  views = [_view(workdir, *one) for one in asked]
  layers, heads = views[0].pop('shape')
  for view in views[1:]:
    del view['shape']
  label = f'{positions.scheme(name).label} ({workdir.name})'
  return {'label': label, 'trained': length, 'layers': layers, 'heads': heads, 'views': views}


def _view(workdir: pathlib.Path, length: int, stretch: str | None) -> dict[str, Any]:
  seen = trained.look(workdir, length, stretch)
  curve = trained.loss_by_position(workdir, length, stretch)
  at, loss = thinned(curve.mean)
  return {
    'label': f'{seen.label}, {length:,} tokens', 'length': length, 'maps': packed(seen.maps),
    'shape': seen.maps.shape[:2], 'at': at, 'loss': loss,
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
