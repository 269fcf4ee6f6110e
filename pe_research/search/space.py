"""The search space: factors that never fall from pair to pair, and first tokens left alone."""

import dataclasses
import itertools
import math

import numpy as np

from pe_research.positions import by_parts

STEP = 0.01  # of the grid that factors are drawn from (arXiv:2402.13753, table 4)
STARTS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)  # table 4


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A point of the space.

  Attributes:
    factors: lambda of each rotated pair, fastest first.
    start_tokens: n-hat, first positions whose angles are not stretched.
  """

  factors: tuple[float, ...]
  start_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Space:
  """The allowed candidates, and the seeds among them.

  Attributes:
    base: of the rotary frequencies.
    rotated: R, channels of a head that rotate; R / 2 pairs.
    train_length: tokens, of training before any stretching; YaRN's seed does not stretch pairs that
      turned often within it.
    factor: s, by which the seeds stretch.
    most: largest factor; 1.25 s in the paper, 1 + s in the authors' code.
    starts: values that n-hat may take; only 0 in the authors' code.
    further: more seeds, by name.
  """

  base: float
  rotated: int
  train_length: int
  factor: float
  most: float
  starts: tuple[int, ...] = STARTS
  further: dict[str, Candidate] = dataclasses.field(default_factory=dict)

  @property
  def pairs(self) -> int:
    """R / 2."""
    return self.rotated // 2

  def holds(self, candidate: Candidate) -> bool:
    """Whether factors lie in [1, most] and never fall, and n-hat is one of `starts`."""
    row = (1.0, *candidate.factors, self.most)
    rising = all(one <= other for one, other in itertools.pairwise(row))
    return rising and len(row) == self.pairs + 2 and candidate.start_tokens in self.starts

  def draw(self, rng: np.random.Generator, low: float, high: float) -> float | None:
    """A value of the grid in [low, high], uniformly; None where it holds none."""
    first, last = math.ceil(low / STEP - 1e-9), math.floor(high / STEP + 1e-9)
    return round(int(rng.integers(first, last + 1)) * STEP, 2) if first <= last else None

  @property
  def seeds(self) -> dict[str, Candidate]:
    """PI, NTK-aware and YaRN as factors, the paper's three first individuals (sec. 3.2).

    YaRN mixes frequencies, by the ramp of its code at the published betas: a harmonic mix of
    factors.
    """
    pair = np.arange(self.pairs)
    gamma = self.gamma(32.0, 1.0)
    seeds = {
      'PI': np.full(self.pairs, self.factor),
      'NTK-aware': self.factor ** (2 * pair / max(self.rotated - 2, 1)),
      'YaRN': 1 / (gamma + (1 - gamma) / self.factor),
    }
    return {name: self.candidate(factors) for name, factors in seeds.items()} | self.further

  @property
  def released_seed(self) -> Candidate:
    """The authors' only seed: factors, not frequencies, mixed by YaRN's ramp."""
    gamma = self.gamma(32.0, 1.0)
    return self.candidate(gamma + (1 - gamma) * self.factor)

  def gamma(self, fast: float, slow: float) -> np.ndarray:
    """YaRN's ramp between the pairs that turn `fast` and `slow` times in training: [pairs]."""
    sizes = self.train_length, self.base, self.rotated
    low, high = by_parts.bounds(*sizes, slow, fast, rounded=True)
    return by_parts.by_pairs(self.pairs, low, high)

  def candidate(self, factors: np.ndarray, start_tokens: int = 0) -> Candidate:
    """A candidate of these factors, corrected where rounding lets them fall or leave [1, most]."""
    clipped = np.clip(np.maximum.accumulate(factors), 1.0, self.most)
    return Candidate(tuple(float(f) for f in clipped), start_tokens)

  def nearest(self, candidate: Candidate) -> Candidate:
    """The allowed candidate next to `candidate`."""
    start = min(self.starts, key=lambda n: abs(n - candidate.start_tokens))
    return self.candidate(np.asarray(candidate.factors), start)
