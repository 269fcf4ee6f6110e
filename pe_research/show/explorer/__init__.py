"""A page, and figures, that show what positional schemes do."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pe_research import positions
from pe_research.runs import lineage

if TYPE_CHECKING:
  from pe_research.show.explorer import page, trained


def stretched(stretch: str) -> str:
  """The name of the scheme that a stretch such as 'yarn:factor=4' takes weights of."""
  return positions.scheme(stretch.partition(':')[0]).trains_as


def check(saved: Mapping[str, Mapping[str, Any]], stretches: Sequence[str]) -> None:
  """Raises ValueError if a run has latent attention, or a stretch is invalid or fits no run.

  Args:
    saved: run name -> its resolved config.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.
  """
  for name, config in saved.items():
    if config['model']['projection'] == 'mla':
      raise ValueError(
        f'{name} has latent attention, where a slice of each head carries position; the '
        'explorer shows whole heads. Name runs of another projection.'
      )
  for stretch in stretches:
    name = stretched(stretch)
    fitting = [config for config in saved.values() if config['position']['name'] == name]
    if not fitting:
      raise ValueError(
        f'--stretch={stretch} stretches a run of {name or "no other scheme"!r}, and no --workdir '
        'is one; name such a run, or leave the stretch out.'
      )
    for config in fitting:
      lineage.parse_position(stretch, config)  # raises if the stretch is invalid


def schemes(
  workdirs: Sequence[pathlib.Path], stretches: Sequence[str] = ()
) -> 'dict[str, page.Shown]':
  """Every registered scheme by name, with the parameters that the runs have trained.

  Stretches are shown with their arguments; schemes without a run are built for the sizes of the
  first run.

  Raises:
    ValueError: a run that cannot be shown, or a stretch that fits no run.
  """
  return _schemes(_opened(workdirs, stretches), stretches)


def html(
  workdirs: Sequence[pathlib.Path] = (),
  stretches: Sequence[str] = (),
  first: Sequence[str] = positions.FAMILIES,
) -> str:
  """The page.

  Args:
    workdirs: finished runs to show.
    stretches: schemes that can use the weights of at least one run: 'yarn:factor=4'.
    first: names of the schemes in the panels when the page opens.

  Raises:
    ValueError: a run that cannot be shown, or a stretch that fits no run.
  """
  from pe_research.show.explorer import page, runs

  opened = _opened(workdirs, stretches)
  shown = list(_schemes(opened, stretches).values())
  return page.page(shown, first, runs.looks(opened, stretches))


def _opened(workdirs: Sequence[pathlib.Path], stretches: Sequence[str]) -> 'list[trained.Run]':
  from pe_research.show.explorer import trained  # JAX and the rest are slow to import

  opened = [trained.Run(workdir) for workdir in workdirs]
  check({str(run.workdir): run.saved for run in opened}, stretches)
  return opened


def _schemes(opened: 'list[trained.Run]', stretches: Sequence[str]) -> 'dict[str, page.Shown]':
  from pe_research.show.explorer import page, runs  # Altair and its compiler take a second

  learned = runs.schemes(opened, stretches)
  dims = next((one.dims for one in learned.values()), page.DIMS)
  return {name: learned.get(name) or page.shown(name, dims) for name in positions.SCHEMES}
