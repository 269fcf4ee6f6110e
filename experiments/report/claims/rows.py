"""What a report says of each claim in one row: its verdict, and the effect that decides it."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from experiments import claims
from experiments.studies import ledger, measured, verdicts
from experiments.studies.ledger import Finding
from experiments.studies.plan import Planner
from experiments.studies.scales import CPU, Scale
from experiments.studies.terms import Claim, Expect

FIRST = ('C01', 'C02', 'C34', 'C10', 'C18', 'C13')  # ALiBi, RoFormer and YaRN, on top of the table
CORES, HOURS = 2, 8  # what all claims may take at the smallest scale
MARKS = {verdicts.REPRODUCED: '●', verdicts.REFUTED: '✕', verdicts.INCONCLUSIVE: '◆',
         verdicts.MISSING: '–'}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Row:
  """A claim in a report.

  Attributes:
    finding: what was found.
    verdicts: of each variant, the published first, after Holm's correction over the report.
    decides: the outcome that decides; None: nothing was estimated.
    among: of each variant, how many verdicts the correction is for.
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
    """Of the published variant."""
    return self.verdicts[self.claim.variants[0]]

  def alone(self, variant: str) -> str:
    """What a variant's verdict would be without the others; '' where it is the same."""
    own, _ = self.finding.verdicts[variant]
    return '' if own == self.verdicts[variant] else own

  def aside(self, variant: str) -> str:
    """What falls only by the number of tests or of claims, and the seeds that would keep it; or ''.

    'alone: refuted; 10 seeds would keep it'.
    """
    own = [o for o in self.finding.outcomes if o.test.variant in ('', variant)]
    alone, whose = self.alone(variant), 'alone'
    if self.finding.verdicts[variant][0] == verdicts.INCONCLUSIVE and verdicts.one_refutes(own):
      alone, whose = verdicts.REFUTED, 'by one test alone'
    if not alone:
      return ''
    seeds = verdicts.seeds_to_stand(own, alone, self.among[variant])
    return f'{whose}: {alone}; {seeds or "no number of"} seeds would keep it'

  @property
  def published(self) -> str:
    """What the paper has of the effect that decides, or else the first of its figures."""
    if self.decides and self.decides.test.paper:
      return self.decides.test.paper
    first = self.claim.published[0]
    return f'{first.what}: {first.value}'

  @property
  def cost(self) -> str:
    """Core minutes; '–' where it is not known of every job."""
    costs = self.finding.record.get('costs')
    known = costs and None not in costs.values()
    return f'{sum(costs.values()) / 60:.0f}' if known else '–'


def judge(findings: Sequence[Finding]) -> list[Row]:
  """A row a claim, in their order, its verdicts corrected for the number of claims."""
  own = {f.claim.id: f.verdicts for f in findings}
  held, among = verdicts.hold(own), {}
  for family in verdicts.families(own):
    run = sum(own[claim][variant][0] != verdicts.MISSING for claim, variant in family)
    among |= dict.fromkeys(family, run)
  return [
    Row(f, held[f.claim.id], strongest(f), {v: among[f.claim.id, v] for v in f.verdicts})
    for f in findings
  ]


RULE = (
  'A claim is reproduced where the 95 % interval of every effect, over seeds and documents, lies '
  'where the claim has it. It is refuted where the interval of one, made wider for their number, '
  'lies wholly outside on the wrong side: beyond zero, or beyond the far end of a claimed range '
  'even though the sign is the claimed one; of an amount, and where the range has zero in it, '
  'anywhere outside. All else is inconclusive, as is a claim whose control fails.'
)
HOLM = (
  'Verdicts are those that stand after Holm’s correction, over the published (or only) variants '
  'of all claims and, apart from these, over the matched ones; what one is alone is beside it.'
)


def lead(rows: Sequence[Row], scale: Scale) -> str:
  """How many claims came to what, at what size, how that is decided, and what it took."""
  first = [row.verdict for row in rows]
  counts = ', '.join(f'{first.count(v)} {v}' for v in MARKS if v in first)
  changed = [
    r.claim.id for r in rows if (r.finding.record['registered'] or {}).get('changed_after')
  ]
  but = f', except where {", ".join(changed)} say otherwise' if changed else ''
  claim = rows[0].claim
  config = planner(scale).node(claim, next(iter(claim.models)), 0).weights.config
  unit = 'bytes' if config['data']['tokenizer'] == 'bytes' else 'tokens'
  return (
    f'{counts}. These are verdicts at a small scale, {config["model"]["layers"]} layers of width '
    f'{config["model"]["width"]} trained on {scale.length} {unit}: they say what survives there, '
    f'not that a paper is wrong at 7B. {RULE} Thresholds were committed before the runs{but}. '
    f'{HOLM} {spent(rows, scale)}'.strip()
  )


def spent(rows: Sequence[Row], scale: Scale) -> str:
  """What all claims cost together, what they share once; '' where none was run."""
  once: dict[str, float] = {}
  for row in rows:
    for job, seconds in (row.finding.record.get('costs') or {}).items():
      once[job] = max(seconds or 0.0, once.get(job, 0.0))
  minutes = sum(once.values()) / 60
  run = [row for row in rows if row.finding.record.get('runs')]
  if not run:
    return ''
  unknown = ', '.join(row.claim.id for row in run if row.cost == '–')
  without = f', without all jobs of {unknown}, of which it is not known' if unknown else ''
  hours = f', which is {minutes / 60 / CORES:.1f} hours on {CORES} cores; {HOURS} are allowed'
  return f'All together took {minutes:.0f} core minutes{without}{hours if scale is CPU else ""}.'


def planner(scale: Scale) -> Planner:
  """Of the runs of a scale, where nothing is run."""
  return Planner(scale, pathlib.Path('results/claims') / scale.name)


def load(scale: Scale) -> tuple[list[Finding], list[str]]:
  """The findings of all claims from their kept rows, and what was wrong with the files."""
  plan = planner(scale)
  found, notes = [], []
  for claim in ordered():
    finding, told = ledger.again(plan, claim)
    found.append(finding)
    notes += told
  if not alike(found):
    notes.append(
      'Not all claims were measured by the same programs, or these are not on record: numbers of '
      'one model in two of them may differ, as those of two trainings do. Within a claim they '
      'agree.'
    )
  return found, notes


def alike(findings: Sequence[Finding]) -> bool:
  """Whether what several claims measured of one model was made in one way, and programs known."""
  made: dict[tuple[str, str], set] = {}
  for finding in findings:
    for row in (row for own in finding.rows.values() for row in own.values()):
      if row['value'] is not None:
        how = tuple(row.get(field) for field in ledger.SHOWN)
        made.setdefault((row['key'], measured.name(row)), set()).add(how)
  known = all(way[0] is not None for ways in made.values() for way in ways)
  return known and all(len(ways) == 1 for ways in made.values())


def ordered() -> list[Claim]:
  """All claims, those of FIRST before the others."""
  own = claims.CLAIMS
  return [own[i] for i in FIRST if i in own] + [c for i, c in own.items() if i not in FIRST]


def strongest(finding: Finding) -> verdicts.Outcome | None:
  """The test that decides.

  A control that fails; else of a refuted claim the test that fails most; else the one least sure.
  """
  own = [o for o in finding.outcomes if o.test.variant in ('', finding.claim.variants[0])]
  own = [o for o in own if o.estimate is not None]
  if not own:
    return None
  lost = verdicts.lost(own)
  own = [o for o in own if not o.test.control]
  failed = [o for o in own if o.verdict == verdicts.REFUTED]
  if lost or not failed:
    return max(lost or own, key=lambda o: o.p_holds)
  return min(failed, key=lambda o: o.p_fails)


def effect_text(outcome: verdicts.Outcome) -> str:
  """'+0.512 [+0.498, +0.526] nats/token'."""
  span = outcome.estimate.interval
  found = f'{outcome.estimate.value:+.{_places(span)}f} {span_text(span)}'
  return f'{found} {outcome.test.unit}'.replace('-', '−')


def decided_text(outcome: verdicts.Outcome) -> str:
  """'RoPE - ALiBi at L', and what keeps its verdict from being misread, if anything."""
  remark = f' ({outcome.power})' if outcome.power in verdicts.REMARKS else ''
  return f'{outcome.test.says}{remark}'


def span_text(span: tuple[float, float]) -> str:
  """'[+0.498, +0.526]', with as many places as show how wide it is."""
  places = _places(span)
  return f'[{span[0]:+.{places}f}, {span[1]:+.{places}f}]'.replace('-', '−')


def _places(span: tuple[float, float]) -> int:
  wide = span[1] - span[0]
  return min(max(3, 1 + math.ceil(-math.log10(wide))), 6) if 0 < wide < math.inf else 3


def verdict_text(row: Row) -> str:
  """'published: refuted; matched: inconclusive (alone: refuted; 9 seeds would keep it)'."""
  texts = []
  for variant, found in row.verdicts.items():
    aside = row.aside(variant)
    texts.append((f'{variant}: ' if variant else '') + found + (f' ({aside})' if aside else ''))
  return '; '.join(texts)


def wanted_text(test: Expect) -> str:
  """'above 0.5' and the like."""
  if test.above is not None and test.below is not None:
    return f'{test.above:.4g} to {test.below:.4g}'.replace('-', '−')
  bound = f'above {test.above:g}' if test.above is not None else f'below {test.below:g}'
  return bound.replace('-', '−')
