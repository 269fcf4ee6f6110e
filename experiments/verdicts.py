"""The decision rule: reproduced, refuted or inconclusive, for a test and for a claim."""

import dataclasses
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
    seeds: how many would decide, where nothing is decided; None: no number, or not needed.
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


def bounds(test: Expect) -> tuple[float, float]:
  """(a, b): the effect is on the other side of the claim below a, or above b.

  Where the claim leaves zero out, the other side begins at zero: a difference of the right sign
  that is too small decides nothing. Where it has zero in it, the other side is all else.
  """
  low = float('-inf') if test.above is None else test.above
  high = float('inf') if test.below is None else test.below
  return (min(low, 0.0) if low > 0 else low), (max(high, 0.0) if high < 0 else high)


def decide(test: Expect, estimate: statistics.Estimate) -> Outcome:
  """Holds an estimate against a test.

  An interval wholly where the claim has the effect reproduces it, one wholly on the other side
  refutes it (see `bounds`).
  """
  p_low = 0.0 if test.above is None else estimate.p_above(test.above)
  p_high = 0.0 if test.below is None else estimate.p_below(test.below)
  low, high = bounds(test)
  fails = [estimate.p_below(low)] if test.above is not None else []
  fails += [estimate.p_above(high)] if test.below is not None else []
  holds, fails = min(2 * max(p_low, p_high), 1.0), min(2 * min(fails), 1.0)
  seeds = None
  if holds >= ALPHA and fails >= ALPHA:
    inside = (test.above is None or estimate.value > test.above) and (
      test.below is None or estimate.value < test.below
    )
    wanted = [b for b in ((test.above, test.below) if inside else (low, high)) if b is not None]
    wanted = [b for b in wanted if abs(b) != float('inf')]
    wanted = wanted if inside else [min(wanted, key=lambda b: abs(b - estimate.value))]
    numbers = [statistics.seeds_needed(estimate, b) for b in wanted]
    seeds = None if None in numbers else max(numbers)
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
