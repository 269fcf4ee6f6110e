"""A page, and figures, that show what positional schemes do."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research import positions
from pe_research.runs import lineage, run_folder


def stretched(stretch: str) -> str:
  """The name of the scheme whose weights it takes."""
  return positions.scheme(stretch.partition(':')[0]).trains_as


def check(saved: Mapping[str, Mapping[str, Any]], stretches: Sequence[str]) -> None:
  """Raises ValueError where a run has latent attention, or a stretch is of no use or wrong.

  Args:
    saved: resolved config of each run, by name.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.
  """
  for name, config in saved.items():
    if config['model']['projection'] == 'mla':
      raise ValueError(
        f'{name} has latent attention, where a slice of each head carries position; the '
        'explorer shows whole heads. Name runs of another projection.'
      )
  for stretch in stretches:
    own = stretched(stretch)
    if own not in [config['position']['name'] for config in saved.values()]:
      raise ValueError(
        f'--stretch={stretch} stretches a run of {own or "no other scheme"!r}, and no --workdir is '
        'one; name such a run, or leave the stretch out.'
      )
    for config in saved.values():
      if config['position']['name'] == own:
        lineage.parse_position(stretch, config)  # says what is wrong before any is looked at


def schemes(workdirs: Sequence[pathlib.Path], stretches: Sequence[str] = ()):
  """Every registered scheme as it is shown, by name: those of finished runs with what they learned.

  What stretches a run is shown as that was asked for. The others are built for a model of the first
  run's sizes.

  Raises:
    ValueError: a run that cannot be looked at, or a stretch that is of no use to any run.
  """
  from pe_research.show.explorer import (
    page,
    runs,  # Altair and its compiler take a second
  )

  check({str(workdir): run_folder.load_config(workdir) for workdir in workdirs}, stretches)
  learned = runs.schemes(workdirs, stretches)
  dims = next((one.dims for one in learned.values()), page.DIMS)
  return {name: learned.get(name) or page.shown(name, dims) for name in positions.SCHEMES}


def html(
  workdirs: Sequence[pathlib.Path] = (),
  stretches: Sequence[str] = (),
  first: Sequence[str] = positions.FAMILIES,
) -> str:
  """The page.

  Args:
    workdirs: of finished runs to look into.
    stretches: schemes that take the weights of one of them further: 'yarn:factor=4'.
    first: names of schemes, in the panels as the page opens.

  Raises:
    ValueError: a run that cannot be looked at, or a stretch that is of no use to any run.
  """
  from pe_research.show.explorer import page, runs

  shown = list(schemes(workdirs, stretches).values())
  return page.page(shown, first, runs.looks(workdirs, stretches))
