"""The decision rule: reproduced, refuted or inconclusive, for a test and for a claim."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from experiments.studies import statistics
from experiments.studies.terms import EQUAL, EXACT, Claim, Expect

REPRODUCED, REFUTED, INCONCLUSIVE, MISSING = 'reproduced', 'refuted', 'inconclusive', 'not run'
ALPHA = 1 - statistics.LEVEL
NO_NUMBER = f'no number of seeds up to {statistics.MOST_SEEDS:,} would decide with these documents'
TOO_SMALL = 'of the claimed sign and too small: no number of seeds would decide'
NO_EFFECT = 'no effect either way: no number of seeds would decide'
EXCLUDED = 'the claimed range is excluded'
BEYOND = 'beyond the claimed range, of the claimed sign'
REMARKS = (EXCLUDED, BEYOND)  # shown with a verdict that may be misread without them


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The outcome of a test.

  Attributes:
    test: the test.
    estimate: of its effect; None if it could not be estimated, see `why`.
    p_holds: twice the one-sided p value against the effect lying outside the claimed range; small
      if it lies inside.
    p_fails: the same for the other side, see `refuted_outside`.
    seeds: of an undecided test, the number that would decide if the effect is as estimated; None:
      no number would, or none is needed.
    power: `seeds` in words, or why no number would decide; of a decided test BEYOND or ''.
    why: why nothing was estimated, or what was left out.
  """

  test: Expect
  estimate: statistics.Estimate | None
  p_holds: float = 1.0
  p_fails: float = 1.0
  seeds: int | None = None
  power: str = ''
  why: str = ''

  @property
  def verdict(self) -> str:
    """By its interval, without any correction."""
    if self.estimate is None:
      return MISSING
    if self.p_holds < ALPHA:
      return REPRODUCED
    return REFUTED if self.p_fails < ALPHA else INCONCLUSIVE


def claimed_range(test: Expect) -> tuple[float, float]:
  """(a, b): by the claim the effect lies between a and b."""
  low = -math.inf if test.above is None else test.above
  high = math.inf if test.below is None else test.below
  return low, high


def refuted_outside(test: Expect) -> tuple[float, float]:
  """(a, b): an effect below a, or above b, refutes the claim.

  If the claimed range excludes zero, these are effects of the opposite sign: a difference of the
  right sign that is too small decides nothing. If it includes zero, or the effect is an amount,
  these are all effects outside the range.
  """
  low, high = claimed_range(test)
  return (low, high) if test.amount else (min(low, 0.0), max(high, 0.0))


def decide(test: Expect, estimate: statistics.Estimate, why: str = '') -> Outcome:
  """The outcome of a test with this estimate of its effect.

  An interval wholly within the claimed range reproduces the claim; one wholly on the other side
  refutes it (see `refuted_outside`). Intervals of shares, and of their differences, are clipped to
  the values that they can have.
  """
  if test.unit == EXACT:
    ends = np.clip(estimate.interval, 0.0 if test.amount else -1.0, 1.0)
    estimate = dataclasses.replace(estimate, interval=tuple(map(float, ends)))
  (lower, upper), (low, high) = claimed_range(test), refuted_outside(test)
  holds = min(2 * max(estimate.p_above(lower), estimate.p_below(upper)), 1.0)
  fails = min(2 * min(estimate.p_below(low), estimate.p_above(high)), 1.0)
  if min(holds, fails) < ALPHA:
    past = estimate.value > upper if lower >= 0 else upper <= 0 and estimate.value < lower
    power = BEYOND if past and not test.amount else ''
    return Outcome(test, estimate, holds, fails, power=power, why=why)
  first, last = estimate.interval
  if last < lower or upper < first:
    return Outcome(test, estimate, holds, fails, power=EXCLUDED, why=why)
  seeds = seeds_to_decide(test, estimate)
  if _deciding_bounds(test, estimate):
    power = f'{seeds} seeds would decide' if seeds else NO_NUMBER
  else:
    power = NO_EFFECT if abs(estimate.value) < EQUAL else TOO_SMALL
  return Outcome(test, estimate, holds, fails, seeds, power, why)


def _deciding_bounds(test: Expect, estimate: statistics.Estimate) -> list[float]:
  """What an interval around the estimate must exclude to decide; empty if no interval would."""
  (lower, upper), (low, high) = claimed_range(test), refuted_outside(test)
  if lower < estimate.value < upper:
    return [bound for bound in (lower, upper) if math.isfinite(bound)]
  if not low <= estimate.value <= high:
    return [low if estimate.value < low else high]
  return []


def seeds_to_decide(
  test: Expect, estimate: statistics.Estimate, level: float = statistics.LEVEL
) -> int | None:
  """Seeds that would decide at a level if the effect is as estimated; None: no number would."""
  bounds = _deciding_bounds(test, estimate)
  numbers = [statistics.seeds_needed(estimate, bound, level) for bound in bounds]
  return None if not numbers or None in numbers else max(numbers)


def failed_controls(outcomes: Sequence[Outcome]) -> list[Outcome]:
  """The controls that are not reproduced."""
  return [o for o in outcomes if o.test.control and o.verdict != REPRODUCED]


def of_claim(outcomes: Sequence[Outcome]) -> tuple[str, float]:
  """The verdict over all tests of a claim, and its p value.

  All tests must hold, so the p value of a reproduced claim is their largest. One failed test is
  enough to refute; its p value is multiplied by the number of tests that it was chosen from. If a
  control fails, the claim is inconclusive.
  """
  if any(outcome.estimate is None for outcome in outcomes):
    return MISSING, 1.0
  if failed_controls(outcomes):
    return INCONCLUSIVE, 1.0
  own = [outcome for outcome in outcomes if not outcome.test.control]
  holds = max(outcome.p_holds for outcome in own)
  fails = min(1.0, len(own) * min(outcome.p_fails for outcome in own))
  if holds < ALPHA:
    return REPRODUCED, holds
  return (REFUTED, fails) if fails < ALPHA else (INCONCLUSIVE, min(holds, fails))


def any_refuted(outcomes: Sequence[Outcome]) -> bool:
  """Whether a test alone is refuted, given that all were estimated and the controls hold."""
  if failed_controls(outcomes) or any(o.estimate is None for o in outcomes):
    return False
  return any(o.verdict == REFUTED for o in outcomes if not o.test.control)


def seeds_to_keep(outcomes: Sequence[Outcome], verdict: str, claims: int) -> int | None:
  """Seeds with which a claim keeps its verdict after Holm's correction over this many claims.

  In the worst case of the correction; None: no number would do.
  """
  own = [o for o in outcomes if not o.test.control]
  if verdict == REPRODUCED:
    numbers = [seeds_to_decide(o.test, o.estimate, 1 - ALPHA / claims) for o in own]
    return None if None in numbers else max(numbers)
  level = 1 - ALPHA / claims / len(own)
  failed = [o for o in own if o.verdict == REFUTED]
  numbers = [seeds_to_decide(o.test, o.estimate, level) for o in failed]
  return min((n for n in numbers if n is not None), default=None)


def corrected(found: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
  """(verdict, p) after Holm's correction over these; what is not significant is inconclusive."""
  run = [i for i, (verdict, _) in enumerate(found) if verdict != MISSING]
  adjusted = statistics.holm([found[i][1] for i in run])
  out = list(found)
  for i, p in zip(run, adjusted, strict=True):
    verdict = found[i][0]
    out[i] = (verdict if p < ALPHA else INCONCLUSIVE), p
  return out


def corrected_by_claim(
  found: Mapping[str, Mapping[str, tuple[str, float]]],
) -> dict[str, dict[str, str]]:
  """Claim -> variant -> verdict after Holm's correction over each of `families`.

  `found` has (verdict, p) before the correction.
  """
  after: dict[str, dict[str, str]] = {claim: {} for claim in found}
  for family in families(found):
    before = [tuple(found[claim][variant]) for claim, variant in family]
    for (claim, variant), (verdict, _) in zip(family, corrected(before), strict=True):
      after[claim][variant] = verdict
  return after


def families(found: Mapping[str, Iterable[str]]) -> list[list[tuple[str, str]]]:
  """(claim, variant) of all first variants, and of all others, which repeat claims."""
  parts = slice(0, 1), slice(1, None)
  return [[(claim, v) for claim, own in found.items() for v in [*own][part]] for part in parts]


def check_seeds(claim: Claim, seeds: int) -> None:
  """Raises ValueError if there are fewer seeds than a verdict needs."""
  if seeds < claim.fewest_seeds:
    raise ValueError(
      f'{claim.id} needs at least {claim.fewest_seeds} seeds for a verdict; there are {seeds}. '
      f'Give --seeds={claim.fewest_seeds}.'
    )
