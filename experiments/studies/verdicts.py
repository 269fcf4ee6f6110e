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
REMARKS = (EXCLUDED, BEYOND)  # without which a verdict may be misread


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
    power: that in words, or why no number would; where it is decided, BEYOND or ''.
    why: nothing was estimated, or what was left out.
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


def decide(test: Expect, estimate: statistics.Estimate, why: str = '') -> Outcome:
  """Holds an estimate against a test.

  An interval wholly where the claim has the effect reproduces it, one wholly on the other side
  refutes it (see `beyond`). A share ends at 0 and 1, and so does its interval.
  """
  if test.unit == EXACT:
    ends = np.clip(estimate.interval, 0.0 if test.amount else -1.0, 1.0)
    estimate = dataclasses.replace(estimate, interval=tuple(map(float, ends)))
  (lower, upper), (low, high) = claimed(test), beyond(test)
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
  if bounds(test, estimate):
    power = f'{seeds} seeds would decide' if seeds else NO_NUMBER
  else:
    power = NO_EFFECT if abs(estimate.value) < EQUAL else TOO_SMALL
  return Outcome(test, estimate, holds, fails, seeds, power, why)


def bounds(test: Expect, estimate: statistics.Estimate) -> list[float]:
  """What an interval around the estimate must leave out to decide: none where none would."""
  (lower, upper), (low, high) = claimed(test), beyond(test)
  if lower < estimate.value < upper:
    return [bound for bound in (lower, upper) if math.isfinite(bound)]
  if not low <= estimate.value <= high:
    return [low if estimate.value < low else high]
  return []


def seeds_to_decide(
  test: Expect, estimate: statistics.Estimate, level: float = statistics.LEVEL
) -> int | None:
  """How many would decide at a level, were the effect as found; None: no number."""
  numbers = [statistics.seeds_needed(estimate, b, level) for b in bounds(test, estimate)]
  return None if not numbers or None in numbers else max(numbers)


def lost(outcomes: Sequence[Outcome]) -> list[Outcome]:
  """The controls that do not hold."""
  return [o for o in outcomes if o.test.control and o.verdict != REPRODUCED]


def of_claim(outcomes: Sequence[Outcome]) -> tuple[str, float]:
  """The verdict over all tests of a claim, and its p value.

  All must hold, so the largest p of them is that of the whole; one that fails is enough to refute,
  and its p is paid for by the number of tests it was chosen from. Without its controls nothing is
  decided.
  """
  if any(outcome.estimate is None for outcome in outcomes):
    return MISSING, 1.0
  if lost(outcomes):
    return INCONCLUSIVE, 1.0
  own = [outcome for outcome in outcomes if not outcome.test.control]
  holds = max(outcome.p_holds for outcome in own)
  fails = min(1.0, len(own) * min(outcome.p_fails for outcome in own))
  if holds < ALPHA:
    return REPRODUCED, holds
  return (REFUTED, fails) if fails < ALPHA else (INCONCLUSIVE, min(holds, fails))


def one_refutes(outcomes: Sequence[Outcome]) -> bool:
  """Whether a test fails by itself, where all tests were made and the controls hold."""
  if lost(outcomes) or any(o.estimate is None for o in outcomes):
    return False
  return any(o.verdict == REFUTED for o in outcomes if not o.test.control)


def seeds_to_stand(outcomes: Sequence[Outcome], verdict: str, claims: int) -> int | None:
  """Seeds at which a claim's verdict alone would stand among so many, in the worst case of Holm's.

  None: no number would.
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
  """Verdicts after Holm's correction over all claims of a report: those that do not hold, fall."""
  run = [i for i, (verdict, _) in enumerate(found) if verdict != MISSING]
  adjusted = statistics.holm([found[i][1] for i in run])
  out = list(found)
  for i, p in zip(run, adjusted, strict=True):
    verdict = found[i][0]
    out[i] = (verdict if p < ALPHA else INCONCLUSIVE), p
  return out


def hold(found: Mapping[str, Mapping[str, tuple[str, float]]]) -> dict[str, dict[str, str]]:
  """Claim -> variant -> what stands of these verdicts.

  Each of `families` is corrected for itself.
  """
  held: dict[str, dict[str, str]] = {claim: {} for claim in found}
  for keys in families(found):
    plain = [tuple(found[claim][variant]) for claim, variant in keys]
    for (claim, variant), (verdict, _) in zip(keys, corrected(plain), strict=True):
      held[claim][variant] = verdict
  return held


def families(found: Mapping[str, Iterable[str]]) -> list[list[tuple[str, str]]]:
  """(claim, variant) of all first variants, and of all others, which are no claims of their own."""
  parts = slice(0, 1), slice(1, None)
  return [[(claim, v) for claim, own in found.items() for v in [*own][part]] for part in parts]


def fewest(claim: Claim, seeds: int) -> None:
  """Raises ValueError where there are fewer seeds than the rule decides by."""
  if seeds < claim.fewest_seeds:
    raise ValueError(
      f'{claim.id} needs at least {claim.fewest_seeds} seeds for a verdict; there are {seeds}. '
      f'Give --seeds={claim.fewest_seeds}.'
    )
