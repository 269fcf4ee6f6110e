"""Sentences of the claims' report: what was run, how it was decided, and what it cost."""

from collections.abc import Sequence

from experiments.report.claims.rows import SYMBOLS, ClaimRow, planner
from experiments.studies.ledger import Finding
from experiments.studies.scales import CPU, Scale

CORES, HOURS = 2, 8  # that all claims together may take at the smallest scale
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


def lead(rows: Sequence[ClaimRow], scale: Scale) -> str:
  """The number of claims with each verdict, the size of the models, the rule, and the cost."""
  verdicts = [row.verdict for row in rows]
  counts = ', '.join(f'{verdicts.count(v)} {v}' for v in SYMBOLS if v in verdicts)
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
    f'{HOLM} {cost(rows, scale)}'.strip()
  )


def cost(rows: Sequence[ClaimRow], scale: Scale) -> str:
  """Core minutes of all claims, a shared job counted once; '' where none was run."""
  run = [row for row in rows if row.finding.record.get('runs')]
  if not run:
    return ''
  seconds: dict[str, float] = {}  # by job
  for row in rows:
    for job, cost_of_job in (row.finding.record.get('costs') or {}).items():
      seconds[job] = max(cost_of_job or 0.0, seconds.get(job, 0.0))
  minutes = sum(seconds.values()) / 60
  unknown = ', '.join(row.claim.id for row in run if row.cost == '–')
  without = f', without all jobs of {unknown}, of which it is not known' if unknown else ''
  hours = f', which is {minutes / 60 / CORES:.1f} hours on {CORES} cores; {HOURS} are allowed'
  return f'All together took {minutes:.0f} core minutes{without}{hours if scale is CPU else ""}.'


def protocol(finding: Finding, scale: Scale) -> str:
  """Sizes, training and scoring that all models of a claim share."""
  claim = finding.claim
  config = planner(scale).node(claim, next(iter(claim.models)), 0).weights.config
  model, optimizer, data, scoring = (config[p] for p in ('model', 'optimizer', 'data', 'eval'))
  if any(model.task for model in claim.models.values()):
    trained = (
      f'Tasks are trained up to size {scale.task_size}, in texts of {config["length"]} tokens.'
    )
    scored = 'Examples are answered by greedy decoding.'
  else:
    trained = f'L = {scale.length} tokens of {data["source"]} ({data["tokenizer"]}).'
    scored = (
      f'{scoring["windows"]} windows of held-out text; the same last {scoring["targets"]} tokens '
      'of each are scored at every length, unless a test says otherwise.'
    )
  seeds = len(finding.seeds)
  return (
    f'{trained} {model["layers"]} layers of width {model["width"]}, '
    f'{model["heads"]} heads of {model["head_dim"]}; {config["steps"]:,} steps of '
    f'{optimizer["batch"]} texts, AdamW, learning rate {optimizer["learning_rate"]:g} '
    f'({optimizer["schedule"]}). {scored} {seeds} seed{"s" * (seeds != 1)}.'
  )


def command(row: ClaimRow) -> str:
  """The command that makes a claim's rows."""
  seeds = f' --seeds={len(row.finding.seeds)}' if row.finding.seeds else ''
  return f'python -m experiments run {row.claim.id} --scale={row.finding.record["scale"]}{seeds}'


def origin(row: ClaimRow) -> str:
  """Commits of the thresholds and of the runs, and the cost; '' where none was run."""
  record = row.finding.record
  if not record.get('runs'):
    return ''
  commits = sorted({run['commit'][:10] for run in record['runs'] if run['commit']})
  registered = record['registered']
  when = 'before the runs'
  if registered['changed_after']:
    these = ', '.join(commit[:10] for commit in registered['changed_after'])
    when = f'after some of the runs were made (by {these})'
  earlier = '; '.join(
    f'{verdict} in {commit[:10]}' for commit, verdict in registered.get('otherwise', {}).items()
  )
  return ' '.join([
    f'What is asked was committed in {(registered["commit"] or "no commit")[:10]}, {when}.',
    *([f'Asked otherwise before, it was: {earlier}.'] if earlier else []),
    f'Runs were made by {", ".join(commits)}.',
    f'{row.cost} core minutes, what it shares with other claims included.',
  ])  # fmt: skip
