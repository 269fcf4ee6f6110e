"""A record of the losses of a search, so that a killed search resumes."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pe_research.machines import multiprocess
from pe_research.search import methods
from pe_research.search.space import Candidate, Space
from pe_research.storage import files

Measure = Callable[[Sequence[Candidate]], list[float]]  # nats/token on the search documents


class Ledger:
  """Losses of candidates, in a file that only grows.

  A search is a function of its seed and of losses. After a kill the search is repeated, and the
  losses that were measured before are read from the file.
  """

  def __init__(self, path: pathlib.Path, measure: Measure, search: str = ''):
    """Reads the file; `measure` is called for other candidates, `search` identifies the search.

    Raises:
      WorkdirError: the file has losses of another search.
    """
    self.path, self.measure, self.search = path, measure, search
    self.recorded: dict[Candidate, float] = {}
    for row in files.read_rows(path):
      if row.get('search', search) != search:
        raise files.WorkdirError(
          f'{path} has losses of another search than {path.with_name("search.json")}; restore it '
          'from a copy, or remove it to measure again.'
        )
      for factors, start_tokens, loss in row['candidates']:
        self.recorded[Candidate(tuple(factors), start_tokens)] = loss
    self.measured = 0

  def losses(self, candidates: Sequence[Candidate]) -> list[float]:
    """Nats/token of each; new ones are recorded together."""
    new = [c for c in candidates if c not in self.recorded]
    if new:
      losses = self.measure(new)
      self.measured += len(new)
      rows = [[c.factors, c.start_tokens, loss] for c, loss in zip(new, losses, strict=True)]
      if multiprocess.is_process_0():
        files.append_row(self.path, {'search': self.search, 'candidates': rows})
      self.recorded |= dict(zip(new, losses, strict=True))
    return [self.recorded[c] for c in candidates]


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a search stands.

  Attributes:
    evaluations: candidates so far.
    best: the best of them.
    loss: nats/token of that on the search documents.
    seconds: since this process began.
  """

  evaluations: int
  best: Candidate
  loss: float
  seconds: float


def progress(
  method: str, space: Space, settings: methods.Settings, ledger: Ledger
) -> Iterator[Progress]:
  """Runs the search; yields after each generation, at last the result."""
  search = methods.METHODS[method](space, settings, np.random.default_rng(settings.seed))
  began, evaluations, best = time.monotonic(), 0, None
  batch = next(search)
  while True:
    losses = ledger.losses(batch)
    evaluations += len(batch)
    for loss, candidate in zip(losses, batch, strict=True):
      if best is None or loss < best[0]:
        best = loss, candidate
    yield Progress(evaluations, best[1], best[0], time.monotonic() - began)
    try:
      batch = search.send(losses)
    except StopIteration:
      return
