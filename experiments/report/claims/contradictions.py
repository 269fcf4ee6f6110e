"""Where papers contradict each other or themselves, and the effects that measure it here."""

from collections.abc import Sequence

from experiments.claims import yarn_temperature
from experiments.report.claims.rows import ClaimRow, effect_text, planner
from experiments.studies import ledger
from experiments.studies.scales import Scale
from experiments.studies.terms import EXACT, Effect, Expect, Quantity


def mean(model: str, at: float, control: str = 'none', protocol: str = 'fixed_targets'):
  """The mean of a measurement of the kept rows, at a length in units of L."""
  return Quantity(model, protocol, control, (at,), 'mean')


def at_l(model: str, at: float) -> Effect:
  """Loss of a model at a length in units of L, minus its loss at L."""
  return mean(model, at) - mean(model, 1)


FAR = ('depth:0', 'passkey')  # values hidden at the beginning
# A contradiction, and (claim, test) pairs that measure it on that claim's rows.
CONTRADICTIONS: tuple[tuple[str, tuple[tuple[str, Expect], ...]], ...] = (
  (
    'ALiBi calls the T5 bias relatively flat under a sliding window; its own table 14 has it rise '
    'from 17.92 to 30.77.',
    (('C01', Expect('T5 bias at 4 L - at L', at_l('t5', 4))),
     ('C01', Expect('ALiBi at 4 L - at L', at_l('alibi', 4)))),
  ),
  (
    "ALiBi's headline holds at equal time (8.92 against 9.01), not at equal updates (8.92 against "
    '8.83).',
    (('C03', Expect('ALiBi (L) - sinusoidal (8 L) at 8 L, equal tokens',
                    mean('alibi', 8) - mean('sinusoidal long', 8))),),
  ),
  (
    "YaRN's ramp is linear in rotations in the paper (eq. 18), and linear in the index of the pair "
    'in all code, the published numbers included.',
    tuple(('C11', Expect(f'ramp of the paper - of the code at {s} L, {v}',
                         mean(f'yarn paper, s={s}, {v}', s) - mean(f'yarn, s={s}, {v}', s)))
          for v in ('published', 'matched') for s in (4, 8)),
  ),
  (
    "YaRN's table 1 ends at 10,240 tokens; in the authors' data NTK-aware is ahead at 16,384 (74.4 "
    'against 77.2).',
    tuple(('C18', Expect(f'NTK - YaRN, tuned to 4 L, at 8 L, {v}',
                         mean(f'ntk, {v}', 8) - mean(f'yarn, {v}', 8)))
          for v in ('published', 'matched')),
  ),
  (
    'LongRoPE finds YaRN three times worse than PI on PG-19 without training; PoSE finds it eight '
    'times better on GovReport.',
    tuple(('C11', Expect(f'PI - YaRN, untrained, at {s} L, {v}',
                         mean(f'pi, s={s}, {v}', s) - mean(f'yarn, s={s}, {v}', s)))
          for v in ('published', 'matched') for s in (4, 8)),
  ),
  (
    'DroPE tunes its logit scale at the target length, and none of its baselines.',
    tuple(('C25', Expect(f'found at the beginning of {s} L: fitted scale - none',
                         mean(f'drope {s}, published', s, *FAR)
                         - mean(f'drope plain {s}, published', s, *FAR), unit=EXACT))
          for s in (2, 4)),
  ),
  (
    'DeepSeek-V2 needs 0.0707 ln s + 1 where YaRN has 0.1 ln s + 1 for all models: 1.147 and 1.208 '
    'at s = 8.',
    tuple(('C13', Expect(f'best factor at s = 8, {v}', yarn_temperature.best(f's=8, {v}', 8),
                         amount=True, unit='x queries and keys'))
          for v in ('published', 'matched')),
  ),
)  # fmt: skip


def measured(rows: Sequence[ClaimRow], scale: Scale) -> list[tuple[str, list[tuple[str, str]]]]:
  """Each contradiction that was measured, and its effects as (text, claim)."""
  findings, plan, found = {row.claim.id: row.finding for row in rows}, planner(scale), []
  for contradiction, tests in CONTRADICTIONS:
    effects = []
    for claim, test in tests:
      finding = findings.get(claim)
      if finding and finding.seeds:
        outcome = ledger.outcome(finding.claim, test, plan, finding.rows, finding.seeds)
        if outcome.estimate is not None:
          effects.append((f'{test.says}: {effect_text(outcome)}', claim))
    if effects:
      found.append((contradiction, effects))
  return found
