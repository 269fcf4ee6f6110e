"""The decision rule: reproduced, refuted or inconclusive, for a test and for a claim."""

import dataclasses
import math
from collections.abc import Sequence

from experiments import statistics
from experiments.claims.terms import Claim, Expect

REPRODUCED, REFUTED, INCONCLUSIVE, MISSING = 'reproduced', 'refuted', 'inconclusive', 'not run'
ALPHA = 1 - statistics.LEVEL


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a test came to.

  Attributes:
    test: the test.
    estimate: of its effect; None where it could not be made, and then `why` says why.
    p_holds: of the interval's one-sided tests that the effect lies where the claim has it,
      doubled; small where it does.
    p_fails: the same, that it lies on the other side.
    seeds: how many would decide if the effect is what it seems, where nothing is decided; None: no
      number would, or none is needed.
    why: nothing was estimated.
  """

  test: Expect
  estimate: statistics.Estimate | None
  p_holds: float = 1.0
  p_fails: float = 1.0
  seeds: int | None = None
  why: str = ''

  @property
  def verdict(self) -> str:
    """By its interval alone."""
    if self.estimate is None:
      return MISSING
    if self.p_holds < ALPHA:
      return REPRODUCED
    return REFUTED if self.p_fails < ALPHA else INCONCLUSIVE


def claimed(test: Expect) -> tuple[float, float]:
  """(a, b): where the claim has the effect, between a and b."""
  low = -math.inf if test.above is None else test.above
  high = math.inf if test.below is None else test.below
  return low, high


def beyond(test: Expect) -> tuple[float, float]:
  """(a, b): the effect is on the other side of the claim below a, or above b.

  Where the claim leaves zero out, the other side begins at zero: a difference of the right sign
  that is too small decides nothing. Where it has zero in it, or is of an amount, the other side is
  all else.
  """
  low, high = claimed(test)
  return (low, high) if test.amount else (min(low, 0.0), max(high, 0.0))


def decide(test: Expect, estimate: statistics.Estimate) -> Outcome:
  """Holds an estimate against a test.

  An interval wholly where the claim has the effect reproduces it, one wholly on the other side
  refutes it (see `beyond`).
  """
  (lower, upper), (low, high) = claimed(test), beyond(test)
  holds = min(2 * max(estimate.p_above(lower), estimate.p_below(upper)), 1.0)
  fails = min(2 * min(estimate.p_below(low), estimate.p_above(high)), 1.0)
  seeds = None
  if min(holds, fails) >= ALPHA:
    limits: list[float] = []
    if lower < estimate.value < upper:
      limits = [bound for bound in (lower, upper) if math.isfinite(bound)]
    elif not low <= estimate.value <= high:
      limits = [low if estimate.value < low else high]
    numbers = [statistics.seeds_needed(estimate, bound) for bound in limits]
    seeds = None if not numbers or None in numbers else max(numbers)
  return Outcome(test, estimate, holds, fails, seeds)


def of_claim(outcomes: Sequence[Outcome]) -> tuple[str, float]:
  """The verdict over all tests of a claim, and its p value.

  All must hold, so the largest p of them is that of the whole; one that fails is enough to refute,
  and its p is paid for by the number of tests it was chosen from.
  """
  if any(outcome.estimate is None for outcome in outcomes):
    return MISSING, 1.0
  holds = max(outcome.p_holds for outcome in outcomes)
  fails = min(1.0, len(outcomes) * min(outcome.p_fails for outcome in outcomes))
  if holds < ALPHA:
    return REPRODUCED, holds
  return (REFUTED, fails) if fails < ALPHA else (INCONCLUSIVE, min(holds, fails))


def corrected(found: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
  """Verdicts after Holm's correction over all claims of a report: those that do not hold, fall."""
  run = [i for i, (verdict, _) in enumerate(found) if verdict != MISSING]
  adjusted = statistics.holm([found[i][1] for i in run])
  out = list(found)
  for i, p in zip(run, adjusted, strict=True):
    verdict = found[i][0]
    out[i] = (verdict if p < ALPHA else INCONCLUSIVE), p
  return out


def fewest(claim: Claim, seeds: int) -> None:
  """Raises ValueError where there are fewer seeds than the rule decides by."""
  if seeds < claim.fewest_seeds:
    raise ValueError(
      f'{claim.id} needs at least {claim.fewest_seeds} seeds for a verdict; there are {seeds}. '
      f'Give --seeds={claim.fewest_seeds}.'
    )
