"""A page, and figures, that show what positional schemes do."""

import pathlib
from collections.abc import Sequence

from pe_research import positions


def schemes(workdirs: Sequence[pathlib.Path], stretches: Sequence[str] = ()):
  """Every registered scheme as it is shown, by name: those of finished runs with what they learned.

  What stretches a run is shown as that was asked for. The others are built for a model of the first
  run's sizes.

  Raises:
    ValueError: a run that cannot be looked at, or a stretch that is of no use to any run.
  """
  from pe_research.explorer import page, runs  # Altair and its compiler take a second

  runs.check(workdirs, stretches)
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
  from pe_research.explorer import page, runs

  looks = runs.looks(workdirs, stretches)
  return page.page(list(schemes(workdirs, stretches).values()), first, looks)
