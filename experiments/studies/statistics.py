"""How sure a difference is, over seeds and documents; and what decides a claim.

An effect is measured as a table z [S, D]: a row a seed, a column a document, its mean the effect.
Seeds are few and documents many, each document is seen by every seed, so both vary the mean, and
neither alone says by how much.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 2000  # of the bootstrap
CAUTION = 1.25  # found by simulation over 3 to 8 seeds, 40 and 200 documents
MOST_SEEDS = 1000  # beyond which a number of seeds is no advice
POWER = 0.8
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """An effect and how far it may be from the truth.

  Attributes:
    value: the mean of z.
    error: its standard error.
    freedom: degrees of freedom of that.
    interval: 95 %, by t.
    by_seed: 95 %, by t over the means of seeds alone, as if there were no other documents; of one
      seed everything.
    bootstrap: 95 % percentiles, seeds and then documents drawn with replacement; None without
      documents.
    seeds: number.
    documents: number; 0 where a seed gives one number.
    parts: variances of a seed, of a document and of the rest.
    step: the least that `error` may be.
  """

  value: float
  error: float
  freedom: float
  interval: Interval
  by_seed: Interval
  bootstrap: Interval | None
  seeds: int
  documents: int
  parts: tuple[float, float, float]
  step: float = 0.0

  def p_above(self, bound: float) -> float:
    """One-sided: how likely so high a mean, or a higher one, is where the truth is `bound`."""
    if not self.error:
      return 0.0 if self.value > bound else 1.0
    return float(stats.t.sf((self.value - bound) / self.error, self.freedom))

  def p_below(self, bound: float) -> float:
    """One-sided, of so low a mean."""
    if not self.error:
      return 0.0 if self.value < bound else 1.0
    return float(stats.t.cdf((self.value - bound) / self.error, self.freedom))


def contributions(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """z [S, D] of sums [S, D] over documents of `weights` [D] tokens: mean(z) = sums / weights.

  The mean over tokens is a ratio of two sums over documents; z is its linearisation, so that
  documents of unequal length weigh as they should.
  """
  count = weights.sum()
  ratio = sums.sum(-1, keepdims=True) / count
  return ratio + (sums - ratio * weights) * (weights.size / count)


def estimate(z: np.ndarray, step: float = 0.0) -> Estimate:
  """Of z [S, D], or [S] where a seed gives one number.

  Seeds and documents are crossed random effects. The variance of the mean is estimated from the
  three mean squares, its degrees of freedom as Satterthwaite does (Biometrics Bulletin 2, 1946).
  Documents of unequal weight count as fewer than they are, see `effective`. With a few seeds the
  freedom is too much where the mean square of seeds came out small by chance, so it is limited;
  by simulation the interval then covers the truth in 93 to 97 % of sweeps. One seed has an interval
  over documents alone, which knows nothing of others.

  Args:
    z: [S, D], or [S].
    step: the least change that the measurement can show. The standard error is not taken for less:
      where no seed found anything, that is not known to be zero.

  Raises:
    ValueError: there is one number.
  """
  seeds = len(z)
  if z.size < 2:
    raise ValueError('there is 1 number; an interval needs at least 2, of seeds or of documents.')
  if seeds == 1:
    return _of_documents(z[0], step)
  means = z.reshape(seeds, -1).mean(-1)
  value, spread = float(means.mean()), float(means.var(ddof=1) / seeds)
  alone = max(math.sqrt(spread), step)
  by_seed = _interval(value, alone, seeds - 1)
  if z.ndim == 1 or z.shape[1] == 1:
    parts = spread * seeds, 0.0, 0.0
    return Estimate(value, alone, seeds - 1, by_seed, by_seed, None, seeds, 0, parts, step)
  documents = z.shape[1]
  columns = z.mean(0)
  residual = z - means[:, None] - columns[None] + value
  of_seed = documents * ((means - value) ** 2).sum() / (seeds - 1)
  of_document = seeds * ((columns - value) ** 2).sum() / (documents - 1)
  rest = (residual**2).sum() / ((seeds - 1) * (documents - 1))
  squares, count = np.array([of_seed, of_document, rest]), effective(columns - value)
  free = np.array([seeds - 1, count, (seeds - 1) * count])
  total = max(of_seed + of_document - rest, rest)
  freedom, error = seeds - 1.0, max(math.sqrt(total / z.size), step)
  if total:
    freedom = total**2 / (squares**2 / free).sum()
    if of_seed:
      freedom = max(min(freedom, (seeds - 1) * (total / of_seed) ** CAUTION), seeds - 1.0)
  parts = max(of_seed - rest, 0) / documents, max(of_document - rest, 0) / seeds, rest
  return Estimate(
    value,
    error,
    float(freedom),
    _interval(value, error, freedom),
    by_seed,
    bootstrap(z),
    seeds,
    documents,
    tuple(map(float, parts)),
    step,
  )


def _of_documents(z: np.ndarray, step: float) -> Estimate:
  """Of one seed's z [D]."""
  value, spread = float(z.mean()), float(z.var(ddof=1))
  error, freedom = max(math.sqrt(spread / z.size), step), effective(z - value)
  interval, unknown = _interval(value, error, freedom), (-math.inf, math.inf)
  parts = 0.0, spread, 0.0
  return Estimate(
    value, error, freedom, interval, unknown, bootstrap(z[None]), 1, z.size, parts, step
  )


def effective(deviations: np.ndarray) -> float:
  """Degrees of freedom of the sum of squares of `deviations` [D]: 1 to D - 1.

  Satterthwaite's, (sum v)^2 / sum v^2 for variances v, which a long document's is many times that
  of a short one. A normal x has E x^2 = v and E x^4 = 3 v^2, so that the sums of x^2 and x^4 tell
  both: no weights are needed, and documents that differ for other reasons count as well.
  """
  most, second, fourth = len(deviations) - 1.0, (deviations**2).sum(), (deviations**4).sum()
  return min(3 * second**2 / fourth - 2, most) if fourth else most


def _interval(value: float, error: float, freedom: float) -> Interval:
  half = error * float(stats.t.ppf((1 + LEVEL) / 2, freedom)) if error else 0.0
  return value - half, value + half


def bootstrap(z: np.ndarray, draws: int = DRAWS) -> Interval:
  """Percentiles of the mean of z [S, D], seeds and then documents drawn with replacement."""
  rng = np.random.default_rng(0)
  share = lambda n: rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
  means = np.einsum('bs,sd,bd->b', share(z.shape[0]), z, share(z.shape[1]), optimize=True)
  low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
  return float(low), float(high)


def wilson(hits: int, trials: int) -> Interval:
  """95 % interval of a share of hits (Wilson, JASA 22, 1927)."""
  if not 0 <= hits <= trials or not trials:
    raise ValueError(f'{hits} hits of {trials} trials is no share.')
  found = stats.binomtest(hits, trials).proportion_ci(LEVEL, method='wilson')
  return float(found.low), float(found.high)


def holm(p: Sequence[float]) -> list[float]:
  """Holm's adjusted p values: all below 0.05 hold together at that level (Scand. J. Stat. 6)."""
  p = np.asarray(p, float)
  order = np.argsort(p, kind='stable')
  adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
  found = np.empty(len(p))
  found[order] = np.minimum(adjusted, 1.0)
  return found.tolist()


def seeds_needed(found: Estimate, bound: float, level: float = LEVEL) -> int | None:
  """Seeds at which the interval would leave `bound` out with 80 % power, were the effect as found.

  More than there are, since those did not. `level` is of the interval. None where no number would
  do with these documents and this step, or the effect is at the bound itself.
  """
  gap = abs(found.value - bound)
  of_seed, of_document, rest = found.parts
  documents = max(found.documents, 1)
  for seeds in range(max(2, found.seeds + 1), MOST_SEEDS + 1):
    variance = of_seed / seeds + of_document / documents + rest / (seeds * documents)
    freedom = seeds - 1 if of_seed else found.freedom
    t = stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(POWER, freedom)
    if max(math.sqrt(variance), found.step) * t <= gap:
      return seeds
  return None
