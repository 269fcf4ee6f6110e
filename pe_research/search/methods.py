"""Methods that propose candidates: evolution, and controls with as many evaluations.

A method is a generator: it yields lists of candidates, none of them twice, and is sent their
losses. It does not depend on models, and its draws depend on the seed and those losses alone.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Generator

import numpy as np

from pe_research.common import digest
from pe_research.search import sizes
from pe_research.search.sizes import Settings
from pe_research.search.space import STEP, Candidate, Space

Search = Generator[list[Candidate], list[float], None]
TRIES = 20  # crossovers of two parents before one of them is mutated instead (authors' code)
LIMIT = 100_000  # mutations of one candidate before the space counts as exhausted


def check_population(settings: Settings, seeds: int) -> None:
  """Raises ValueError if the first generation is smaller than the number of seeds."""
  if settings.population < seeds:
    raise ValueError(
      f'--population is {settings.population}; the search begins from {seeds} seeds, so it must be '
      f'at least {seeds}.'
    )


def exhausted(seen: set[Candidate]) -> ValueError:
  """The error of a search that finds no new candidate."""
  return ValueError(
    f'nothing new is left to try after {len(seen)} candidates; lower --iterations or '
    '--population, or raise --factor.'
  )


class Paper:
  """Operators as the paper describes them, and our choices where it leaves them open.

  Mutation redraws each factor with probability p between its neighbours, and n-hat with the same
  probability. Of crossover the paper only says that factors must not fall; here it takes a range of
  neighbouring pairs from the second parent, and n-hat from one of the two.
  """

  def __init__(self, space: Space, settings: Settings, rng: np.random.Generator):
    self.space, self.settings, self.rng = space, settings, rng
    self.seeds = list(dict.fromkeys(space.seeds.values()))

  def mutate(self, parent: Candidate, seen: set[Candidate]) -> Candidate:
    """A candidate that is not in `seen`."""
    space, rng, chance = self.space, self.rng, self.settings.probability
    child = parent
    for attempt in range(1, LIMIT):
      # The neighbourhood may be exhausted: after many tries mutate the last child instead.
      factors = list((child if attempt % 100 == 0 else parent).factors)
      for i in range(space.pairs):
        if rng.random() < chance:
          low = factors[i - 1] if i else 1.0
          high = factors[i + 1] if i + 1 < space.pairs else space.most
          drawn = space.draw(rng, low, high)
          factors[i] = factors[i] if drawn is None else drawn
      start = parent.start_tokens
      if rng.random() < chance:
        start = int(rng.choice(space.starts))
      child = Candidate(tuple(factors), start)
      if child not in seen and space.holds(child):
        return child
    raise exhausted(seen)

  def cross(self, first: Candidate, second: Candidate, seen: set[Candidate]) -> Candidate | None:
    """A candidate that is not in `seen`, or None after TRIES."""
    for _ in range(TRIES):
      begin, end = sorted(self.rng.choice(self.space.pairs + 1, 2, replace=False))
      factors = first.factors[:begin] + second.factors[begin:end] + first.factors[end:]
      start = (first, second)[self.rng.integers(2)].start_tokens
      child = Candidate(factors, start)
      if child not in seen and self.space.holds(child):
        return child
    return None


class Released(Paper):
  """Operators as in the authors' released code, dim_mono.

  One seed, a mix of factors by YaRN's ramp; no n-hat. A mutation sweeps over the pairs until the
  result is new and does not fall. Its grid starts at the left neighbour and may overshoot the right
  one by a step; the next sweep begins from such a failed one, so that most of the factors change
  where they are flat. A crossover copies single entries of the worse parent and takes the first
  child that is new, which mostly differs in one entry.
  """

  def __init__(self, space: Space, settings: Settings, rng: np.random.Generator):
    super().__init__(space, settings, rng)
    self.seeds = [space.released_seed]

  def mutate(self, parent: Candidate, seen: set[Candidate]) -> Candidate:
    """A candidate that is not in `seen`."""
    space, rng = self.space, self.rng
    factors, last = list(parent.factors), space.pairs - 1
    for _ in range(LIMIT):
      for i in range(space.pairs):
        if rng.random() < self.settings.probability:
          low = factors[i - 1] if i else 1.0
          high = factors[i + 1] if i < last else space.most
          # In floating point this may end one step too high, as theirs does; then it sweeps again.
          grid = np.arange(low, high + (STEP if i else 0.0), STEP)
          if grid.size:
            factors[i] = float(rng.choice(grid))
      child = Candidate(tuple(factors))
      if child not in seen and space.holds(child):
        return child
    raise ValueError(
      f'{LIMIT:,} sweeps of the released method ended in no new factors that rise, over '
      f'{space.pairs} pairs up to {space.most:g}; raise --factor, or take --method=paper.'
    )

  def cross(self, first: Candidate, second: Candidate, seen: set[Candidate]) -> Candidate | None:
    """A candidate that is not in `seen`, or None after TRIES."""
    if first == second:
      return None
    factors = list(first.factors)
    for _ in range(TRIES):
      for i in range(self.space.pairs):
        if self.rng.random() < self.settings.probability and self.rng.random() < 0.5:
          factors[i] = second.factors[i]
          child = Candidate(tuple(factors))
          if child not in seen and self.space.holds(child):
            return child
    return None


def _evolve(
  kind: type[Paper], space: Space, settings: Settings, rng: np.random.Generator
) -> Search:
  """Algorithm 1: the best `parents` so far breed each generation; none is measured twice."""
  operators = kind(space, settings, rng)
  seen: set[Candidate] = set()

  def add(child: Candidate) -> Candidate:
    seen.add(child)
    return child

  roots = len(operators.seeds)
  check_population(settings, roots)
  first = [add(seed) for seed in operators.seeds]
  while len(first) < settings.population:
    first.append(add(operators.mutate(first[len(first) % roots], seen)))
  ranked = list(zip((yield first), first, strict=True))
  for _ in range(settings.iterations):
    ranked = sorted(ranked, key=lambda pair: pair[0])[: settings.parents]
    best = [candidate for _, candidate in ranked]
    children = [
      add(operators.mutate(best[rng.integers(len(best))], seen)) for _ in range(settings.mutations)
    ]
    for _ in range(settings.crossovers):
      pair = sorted(rng.choice(len(best), 2, replace=False)) if len(best) > 1 else [0, 0]
      one, other = best[pair[0]], best[pair[1]]
      child = operators.cross(one, other, seen) or operators.mutate(one, seen)
      children.append(add(child))
    if children:
      ranked += zip((yield children), children, strict=True)


def random(space: Space, settings: Settings, rng: np.random.Generator) -> Search:
  """Control: sorted uniform draws."""
  seen: set[Candidate] = set()
  while len(seen) < settings.evaluations:
    batch: list[Candidate] = []
    wanted = min(settings.population, settings.evaluations - len(seen))
    for _ in range(LIMIT):
      if len(batch) == wanted:
        break
      drawn = sorted(space.draw(rng, 1.0, space.most) for _ in range(space.pairs))
      candidate = Candidate(tuple(drawn), int(rng.choice(space.starts)))
      if candidate not in seen and candidate not in batch:
        batch.append(candidate)
    seen.update(batch)
    if len(batch) < wanted:
      raise exhausted(seen)
    yield batch


def coordinate(space: Space, settings: Settings, rng: np.random.Generator) -> Search:
  """Control: coordinate descent from the best seed.

  A step tries `mutations` values of a factor between its neighbours, or all values of n-hat.
  """
  seeds = list(dict.fromkeys(space.seeds.values()))[: settings.evaluations]
  losses = yield seeds
  loss, best = min(zip(losses, seeds, strict=True), key=lambda pair: pair[0])
  seen = set(seeds)
  for turn in itertools.count():
    i = turn % (space.pairs + 1)
    if i < space.pairs:
      low = best.factors[i - 1] if i else 1.0
      high = best.factors[i + 1] if i + 1 < space.pairs else space.most
      drawn = {space.draw(rng, low, high) for _ in range(settings.mutations)} - {None}
      before, after = best.factors[:i], best.factors[i + 1 :]
      tried = [Candidate((*before, v, *after), best.start_tokens) for v in sorted(drawn)]
    else:
      tried = [Candidate(best.factors, start) for start in space.starts]
    left = settings.evaluations - len(seen)
    tried = [c for c in tried if c not in seen and space.holds(c)][:left]
    if not left:
      return
    if tried:
      seen.update(tried)
      found = min(zip((yield tried), tried, strict=True), key=lambda pair: pair[0])
      loss, best = min((loss, best), found, key=lambda pair: pair[0])
    elif turn % 1000 == 999:  # all neighbours were tried: restart from a mutation
      best = Paper(space, settings, rng).mutate(best, seen)


def yarn_grid(space: Space, settings: Settings, rng: np.random.Generator) -> Search:
  """Control: YaRN's ramp between all pairs of ends on a grid, in place of its two betas."""
  del rng
  size = 2
  while size * (size - 1) // 2 < settings.evaluations:
    size += 1
  ends = np.linspace(-1, space.pairs, size)

  def between(low: float, high: float) -> Candidate:
    ramp = np.clip((np.arange(space.pairs) - low) / (high - low), 0, 1)
    return space.candidate(1 / (1 - ramp + ramp / space.factor))

  candidates = (between(low, high) for low, high in itertools.combinations(ends, 2))
  distinct = list(dict.fromkeys(candidates))[: settings.evaluations]
  for start in range(0, len(distinct), settings.population):
    yield distinct[start : start + settings.population]


_evolutions = (functools.partial(_evolve, operators) for operators in (Paper, Released))
METHODS: dict[str, Callable[[Space, Settings, np.random.Generator], Search]] = dict(
  zip(sizes.METHODS, (*_evolutions, random, coordinate, yarn_grid), strict=True)
)


def fixed_inputs(method: str) -> str:
  """A hash of a method's candidates on a small space with made-up losses."""
  space = Space(base=10_000.0, rotated=8, train_length=64, factor=4.0, most=5.0)
  settings = Settings(population=8, mutations=3, crossovers=3, iterations=3, parents=4)
  search = METHODS[method](space, settings, np.random.default_rng(settings.seed))
  tried: list[list] = []
  losses = None
  with contextlib.suppress(StopIteration):
    while True:
      batch = search.send(losses)
      tried.append([[c.factors, c.start_tokens] for c in batch])
      losses = [abs(sum(c.factors) - 9) + c.start_tokens % 3 / 7 for c in batch]
  return digest.of_json(tried)
