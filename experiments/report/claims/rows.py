"""What a report says of each claim in one row: its verdict, and the effect that decides it."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from experiments import claims, ledger, verdicts
from experiments.claims.terms import Claim, Expect, Published
from experiments.ledger import Finding
from experiments.plan import Planner
from experiments.scales import Scale
from pe_research import records

FIRST = ('C01', 'C10', 'C11', 'C18', 'C13')  # ALiBi, RoFormer and YaRN, on top of the table
MARKS = {verdicts.REPRODUCED: '●', verdicts.REFUTED: '✕', verdicts.INCONCLUSIVE: '◆',
         verdicts.MISSING: '–'}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
  """A claim in a report.

  Attributes:
    finding: what was found.
    verdicts: of each variant, the published first, after Holm's correction over the report.
    decides: the outcome that decides; None: nothing was estimated.
  """

  finding: Finding
  verdicts: Mapping[str, str]
  decides: verdicts.Outcome | None

  @property
  def claim(self) -> Claim:
    """The claim."""
    return self.finding.claim

  @property
  def verdict(self) -> str:
    """Of the published variant."""
    return self.verdicts[self.claim.variants[0]]

  @property
  def alone(self) -> str:
    """What the verdict would be if this were the only claim; '' where it is the same."""
    own = self.finding.verdict
    return '' if own == self.verdict else own

  @property
  def published(self) -> Published:
    """The figure of the paper that stands beside ours."""
    return self.claim.published[0]

  @property
  def cost(self) -> str:
    """Core minutes."""
    minutes = self.finding.record.get('core_minutes')
    return '–' if minutes is None else f'{minutes:.0f}'


def judge(findings: Sequence[Finding]) -> list[Row]:
  """A row a claim, in their order.

  Verdicts are corrected for the number of claims; the other variants, which are no claims of their
  own, among themselves.
  """
  held: dict[tuple[str, str], str] = {}
  for part in (slice(0, 1), slice(1, None)):
    keys = [(f.claim.id, variant) for f in findings for variant in f.claim.variants[part]]
    plain = [f.verdicts[variant] for f in findings for variant in f.claim.variants[part]]
    corrected = verdicts.corrected(plain)
    held |= {key: verdict for key, (verdict, _) in zip(keys, corrected, strict=True)}
  own = lambda f: {variant: held[f.claim.id, variant] for variant in f.claim.variants}
  return [Row(f, own(f), strongest(f)) for f in findings]


def lead(rows: Sequence[Row]) -> str:
  """How many claims came to what, and how that is decided."""
  first = [row.verdict for row in rows]
  counts = ', '.join(f'{first.count(v)} {v}' for v in MARKS if v in first)
  return (
    f'{counts}. A claim holds where the 95 % interval of every effect, over seeds and documents, '
    'lies where the claim has it; thresholds were committed before the runs. Verdicts are those '
    'that stand after Holm’s correction over all claims; what a claim comes to alone is beside it.'
  )


def load(scale: Scale) -> tuple[list[Finding], list[str]]:
  """The findings of all claims from their kept rows, and what was wrong with the files."""
  found, notes = [], []
  for claim in ordered():
    rows, note = ledger.read_rows(ledger.path(scale.name, claim, 'rows.jsonl'))
    notes += [note] if note else []
    kept = records.read_json(ledger.path(scale.name, claim, 'verdict.json')) or {}
    planner = Planner(scale, pathlib.Path('results/claims') / scale.name)
    fields = ('scale', 'registered', 'runs', 'core_minutes', 'refused')
    found.append(ledger.settle(claim, planner, rows, {k: kept.get(k) for k in fields}))
  return found, notes


def ordered() -> list[Claim]:
  """All claims, those of FIRST before the others."""
  own = claims.CLAIMS
  return [own[i] for i in FIRST if i in own] + [c for i, c in own.items() if i not in FIRST]


def strongest(finding: Finding) -> verdicts.Outcome | None:
  """The test that decides: of a refuted claim the one that fails most, else the one least sure."""
  own = [o for o in finding.outcomes if o.test.variant in ('', finding.claim.variants[0])]
  own = [o for o in own if o.estimate is not None]
  if not own:
    return None
  failed = [o for o in own if o.verdict == verdicts.REFUTED]
  return min(failed, key=lambda o: o.p_fails) if failed else max(own, key=lambda o: o.p_holds)


def effect_text(outcome: verdicts.Outcome) -> str:
  """'+0.512 [+0.498, +0.526] nats/token'."""
  low, high = outcome.estimate.interval
  text = f'{outcome.estimate.value:+.3f} [{low:+.3f}, {high:+.3f}] {outcome.test.unit}'
  return text.replace('-', '−')


def verdict_text(row: Row) -> str:
  """'published: refuted; matched: inconclusive', and what it would be alone."""
  text = '; '.join((f'{v}: ' if v else '') + found for v, found in row.verdicts.items())
  return text + (f' (alone: {row.alone})' if row.alone else '')


def wanted_text(test: Expect) -> str:
  """'above 0.5' and the like."""
  if test.above is not None and test.below is not None:
    return f'{test.above:.4g} to {test.below:.4g}'.replace('-', '−')
  bound = f'above {test.above:g}' if test.above is not None else f'below {test.below:g}'
  return bound.replace('-', '−')
