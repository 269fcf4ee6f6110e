"""Intervals and p values of effects, over seeds and documents.

An effect is a table z [S, D], a row for each seed and a column for each document; its mean is
estimated. Both vary the mean, and every seed sees every document, so that neither the few seeds nor
the many documents alone give its error.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

LEVEL = 0.95
DRAWS = 2000  # of the bootstrap
CAUTION = 1.25  # from a simulation with 3 to 8 seeds, 40 and 200 documents
MOST_SEEDS = 1000  # the most that are worth proposing
POWER = 0.8
Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """An effect and its error.

  Attributes:
    value: the mean of z.
    error: its standard error.
    freedom: degrees of freedom of the standard error.
    interval: 95 % t interval.
    by_seed: 95 % t interval over the means of seeds, as if the documents were fixed; unbounded for
      one seed.
    bootstrap: 95 % percentiles, seeds and then documents drawn with replacement; None without
      documents.
    seeds: number.
    documents: number; 0 if a seed gives one number.
    parts: variance components of seeds, of documents and of the rest.
    step: lower limit of `error`.
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
    """One-sided p value: probability of a mean this high or higher if the truth is `bound`."""
    if not self.error:
      return 0.0 if self.value > bound else 1.0
    return float(stats.t.sf((self.value - bound) / self.error, self.freedom))

  def p_below(self, bound: float) -> float:
    """One-sided p value: probability of a mean this low or lower if the truth is `bound`."""
    if not self.error:
      return 0.0 if self.value < bound else 1.0
    return float(stats.t.cdf((self.value - bound) / self.error, self.freedom))


def contributions(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """z [S, D] of sums [S, D] over documents of `weights` [D] tokens: mean(z) = sums / weights.

  The mean over tokens is a ratio of two sums over documents; z is its linearisation, which weights
  documents by their length.
  """
  count = weights.sum()
  ratio = sums.sum(-1, keepdims=True) / count
  return ratio + (sums - ratio * weights) * (weights.size / count)


def estimate(z: np.ndarray, step: float = 0.0) -> Estimate:
  """The estimate from z [S, D], or [S] if a seed gives one number.

  Seeds and documents are crossed random effects. The variance of the mean is estimated from the
  three mean squares, and its degrees of freedom by Satterthwaite (Biometrics Bulletin 2, 1946).
  Documents of unequal weight count as fewer than they are, see `effective`. With few seeds, a mean
  square of seeds that is small by chance gives too many degrees of freedom, so they are limited; by
  simulation the interval then covers the truth in 93 to 97 % of sweeps. With one seed the interval
  is over documents alone, and says nothing of other seeds.

  Args:
    z: [S, D], or [S].
    step: the least change that the measurement can show, and the least standard error: that no
      seed found anything does not show that there is nothing.

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
  """The estimate from one seed's z [D]."""
  value, spread = float(z.mean()), float(z.var(ddof=1))
  error, freedom = max(math.sqrt(spread / z.size), step), effective(z - value)
  interval, unknown = _interval(value, error, freedom), (-math.inf, math.inf)
  parts = 0.0, spread, 0.0
  return Estimate(
    value, error, freedom, interval, unknown, bootstrap(z[None]), 1, z.size, parts, step
  )


def effective(deviations: np.ndarray) -> float:
  """Degrees of freedom of the sum of squares of `deviations` [D]: 1 to D - 1.

  Satterthwaite's, (sum v)^2 / sum v^2 for variances v, which are many times larger for a long
  document than for a short one. A normal x has E x^2 = v and E x^4 = 3 v^2, so that both sums are
  estimated from those of x^2 and x^4, without weights and whatever makes documents differ.
  """
  most, second, fourth = len(deviations) - 1.0, (deviations**2).sum(), (deviations**4).sum()
  return min(3 * second**2 / fourth - 2, most) if fourth else most


def _interval(value: float, error: float, freedom: float) -> Interval:
  half = error * float(stats.t.ppf((1 + LEVEL) / 2, freedom)) if error else 0.0
  return value - half, value + half


def bootstrap(z: np.ndarray, draws: int = DRAWS) -> Interval:
  """Percentiles of the mean of z [S, D], seeds and then documents drawn with replacement."""
  rng = np.random.default_rng(0)
  of_seeds, of_documents = (rng.multinomial(n, np.full(n, 1 / n), size=draws) / n for n in z.shape)
  means = np.einsum('bs,sd,bd->b', of_seeds, z, of_documents, optimize=True)
  low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
  return float(low), float(high)


def wilson(hits: int, trials: int) -> Interval:
  """95 % interval of a share of hits (Wilson, JASA 22, 1927)."""
  if not 0 <= hits <= trials or not trials:
    raise ValueError(f'{hits} hits of {trials} trials is no share.')
  low, high = stats.binomtest(hits, trials).proportion_ci(LEVEL, method='wilson')
  return float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
  """Holm's adjusted p values: those below 0.05 hold jointly at that level (Scand. J. Stat. 6)."""
  p = np.asarray(p, float)
  order = np.argsort(p, kind='stable')
  adjusted = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
  result = np.empty(len(p))
  result[order] = np.minimum(adjusted, 1.0)
  return result.tolist()


def seeds_needed(pilot: Estimate, bound: float, level: float = LEVEL) -> int | None:
  """Seeds at which the interval excludes `bound` with 80 % power, if the effect is as estimated.

  More than those of the estimate. `level` is that of the interval. None if no number is enough with
  these documents and this step, or the effect is at the bound itself.
  """
  gap = abs(pilot.value - bound)
  of_seed, of_document, rest = pilot.parts
  documents = max(pilot.documents, 1)
  for seeds in range(max(2, pilot.seeds + 1), MOST_SEEDS + 1):
    variance = of_seed / seeds + of_document / documents + rest / (seeds * documents)
    freedom = seeds - 1 if of_seed else pilot.freedom
    t = stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(POWER, freedom)
    if max(math.sqrt(variance), pilot.step) * t <= gap:
      return seeds
  return None
