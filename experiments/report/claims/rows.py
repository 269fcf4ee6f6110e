"""A claim in one row of a report: its verdict, and the effect that decides it."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from experiments import claims
from experiments.report import numbers
from experiments.studies import ledger, measured, verdicts
from experiments.studies.ledger import Finding
from experiments.studies.plan import Planner
from experiments.studies.scales import Scale
from experiments.studies.terms import Claim, Expect

FIRST = ('C01', 'C02', 'C34', 'C10', 'C18', 'C13')  # ALiBi, RoFormer and YaRN, on top of the table
SYMBOLS = {verdicts.REPRODUCED: '●', verdicts.REFUTED: '✕', verdicts.INCONCLUSIVE: '◆',
           verdicts.MISSING: '–'}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClaimRow:
  """A claim in a report.

  Attributes:
    finding: its rows and outcomes.
    verdicts: verdict of each variant, the published first, after Holm's correction over the report.
    decides: the outcome that decides; None: nothing was estimated.
    among: of each variant, the number of verdicts that the correction is for.
  """

  finding: Finding
  verdicts: Mapping[str, str]
  decides: verdicts.Outcome | None
  among: Mapping[str, int]

  @property
  def claim(self) -> Claim:
    """The claim."""
    return self.finding.claim

  @property
  def verdict(self) -> str:
    """The verdict of the published variant."""
    return self.verdicts[self.claim.variants[0]]

  @property
  def verdict_text(self) -> str:
    """'published: refuted; matched: inconclusive (alone: refuted; 9 seeds would keep it)'."""
    texts = []
    for variant, verdict in self.verdicts.items():
      note = self.uncorrected_note(variant)
      texts.append((f'{variant}: ' if variant else '') + verdict + (f' ({note})' if note else ''))
    return '; '.join(texts)

  def alone(self, variant: str) -> str:
    """A variant's verdict before the correction; '' where it is the same."""
    own, _ = self.finding.verdicts[variant]
    return '' if own == self.verdicts[variant] else own

  def uncorrected_note(self, variant: str) -> str:
    """The verdict without multiplicity correction, and the seeds to keep it; '' if it is the same.

    'alone: refuted; 10 seeds would keep it'.
    """
    outcomes = [o for o in self.finding.outcomes if o.test.variant in ('', variant)]
    alone, whose = self.alone(variant), 'alone'
    inconclusive = self.finding.verdicts[variant][0] == verdicts.INCONCLUSIVE
    if inconclusive and verdicts.any_refuted(outcomes):
      alone, whose = verdicts.REFUTED, 'by one test alone'
    if not alone:
      return ''
    seeds = verdicts.seeds_to_keep(outcomes, alone, self.among[variant])
    return f'{whose}: {alone}; {seeds or "no number of"} seeds would keep it'

  @property
  def effect(self) -> str:
    """The effect that decides; '' without an estimate."""
    return effect_text(self.decides) if self.decides else ''

  @property
  def deciding_test(self) -> str:
    """'RoPE - ALiBi at L', with a remark where its verdict may be misread; '' without estimate."""
    if self.decides is None:
      return ''
    power = self.decides.power
    return self.decides.test.says + (f' ({power})' if power in verdicts.REMARKS else '')

  @property
  def claimed(self) -> str:
    """Where the claim has the effect that decides; '' without an estimate."""
    return claimed_text(self.decides.test) if self.decides else ''

  @property
  def published(self) -> str:
    """The paper's value of the effect that decides, or else the first of its figures."""
    if self.decides and self.decides.test.paper:
      return self.decides.test.paper
    first = self.claim.published[0]
    return f'{first.what}: {first.value}'

  @property
  def cost(self) -> str:
    """Core minutes; '–' where the cost of a job is unknown."""
    costs = self.finding.record.get('costs')
    known = costs and None not in costs.values()
    return f'{sum(costs.values()) / 60:.0f}' if known else '–'


def effect_text(outcome: verdicts.Outcome) -> str:
  """'+0.512 [+0.498, +0.526] nats/token'."""
  estimate = outcome.estimate
  return f'{numbers.estimate(estimate.value, estimate.interval)} {numbers.minus(outcome.test.unit)}'


def claimed_text(test: Expect) -> str:
  """'above 0.5', 'below 0.01' or '0.5 to 0.7'."""
  if test.above is not None and test.below is not None:
    return numbers.minus(f'{test.above:.4g} to {test.below:.4g}')
  bound = f'above {test.above:g}' if test.above is not None else f'below {test.below:g}'
  return numbers.minus(bound)


def judge(findings: Sequence[Finding]) -> list[ClaimRow]:
  """A row for each claim, in their order, verdicts corrected for the number of claims."""
  uncorrected = {f.claim.id: f.verdicts for f in findings}
  corrected, among = verdicts.corrected_by_claim(uncorrected), {}
  for family in verdicts.families(uncorrected):
    run = sum(uncorrected[claim][variant][0] != verdicts.MISSING for claim, variant in family)
    among |= dict.fromkeys(family, run)
  return [
    ClaimRow(f, corrected[f.claim.id], deciding(f), {v: among[f.claim.id, v] for v in f.verdicts})
    for f in findings
  ]


def deciding(finding: Finding) -> verdicts.Outcome | None:
  """The outcome that decides the published variant; None: nothing was estimated.

  A control that fails; else the test of a refuted claim that fails most; else the least certain.
  """
  outcomes = [
    outcome
    for outcome in finding.outcomes
    if outcome.test.variant in ('', finding.claim.variants[0]) and outcome.estimate is not None
  ]
  if not outcomes:
    return None
  failed_controls = verdicts.failed_controls(outcomes)
  tests = [o for o in outcomes if not o.test.control]
  refuting = [o for o in tests if o.verdict == verdicts.REFUTED]
  if failed_controls or not refuting:
    return max(failed_controls or tests, key=lambda o: o.p_holds)
  return min(refuting, key=lambda o: o.p_fails)


def planner(scale: Scale) -> Planner:
  """Plans the runs of a scale; nothing is run."""
  return Planner(scale, pathlib.Path('results/claims') / scale.name)


def load(scale: Scale) -> tuple[list[Finding], list[str]]:
  """The findings of all claims from their committed rows, and notes on files that are damaged."""
  plan = planner(scale)
  findings, notes = [], []
  for claim in in_report_order():
    finding, own_notes = ledger.decide_kept(plan, claim)
    findings.append(finding)
    notes += own_notes
  if not same_programs(findings):
    notes.append(
      'Not all claims were measured by the same programs, or these are not on record: numbers of '
      'one model in two of them may differ, as those of two trainings do. Within a claim they '
      'agree.'
    )
  return findings, notes


def same_programs(findings: Sequence[Finding]) -> bool:
  """Whether all claims measured each model by the same programs, and these are on record."""
  seen: dict[tuple[str, str], set] = {}
  for finding in findings:
    for row in (row for own in finding.rows.values() for row in own.values()):
      if row['value'] is not None:
        programs = tuple(row.get(field) for field in ledger.PROVENANCE)
        seen.setdefault((row['key'], measured.measurement_id(row)), set()).add(programs)
  recorded = all(programs[0] is not None for found in seen.values() for programs in found)
  return recorded and all(len(found) == 1 for found in seen.values())


def in_report_order() -> list[Claim]:
  """All claims, those of FIRST before the others."""
  by_id = claims.CLAIMS
  return [by_id[i] for i in FIRST if i in by_id] + [c for i, c in by_id.items() if i not in FIRST]
