"""The losses of a search, so that a killed one resumes."""

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
  """Every candidate that was evaluated, in the order of a search, in a file that only grows.

  A search is a function of its seed and of losses. Asked for a candidate again, after a kill, the
  ledger answers from the file, so that going on repeats the search without its cost.
  """

  def __init__(self, path: pathlib.Path, measure: Measure):
    """Reads what is there; `measure` is asked for the rest."""
    self.path, self.measure = path, measure
    self.known: dict[Candidate, float] = {}
    for row in files.read_rows(path):
      for values, start, loss in row['candidates']:
        self.known[Candidate(tuple(values), start)] = loss
    self.measured = 0

  def losses(self, candidates: Sequence[Candidate]) -> list[float]:
    """Nats/token of each; new ones are written down together."""
    new = [c for c in candidates if c not in self.known]
    if new:
      found = self.measure(new)
      self.measured += len(new)
      rows = [[c.factors, c.start_tokens, loss] for c, loss in zip(new, found, strict=True)]
      if multiprocess.first():
        files.append_row(self.path, {'candidates': rows})
      self.known |= dict(zip(new, found, strict=True))
    return [self.known[c] for c in candidates]


@dataclasses.dataclass(frozen=True)
class Progress:
  """Where a search stands.

  Attributes:
    evaluations: candidates so far.
    best: the best of them.
    loss: nats/token of that on the search documents.
    seconds: since the start of this process's part.
  """

  evaluations: int
  best: Candidate
  loss: float
  seconds: float


def progress(
  method: str, space: Space, settings: methods.Settings, ledger: Ledger
) -> Iterator[Progress]:
  """Runs the search; one item a generation, the last of which has the result."""
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
