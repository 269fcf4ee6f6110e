"""Runs the jobs of claims, and decides them."""

import collections
import pathlib
from collections.abc import Mapping, Sequence

from experiments.studies import carry_out, cost, ledger, preregistration, verdicts
from experiments.studies.plan import Planner
from experiments.studies.planned_models import Node, jobs_of
from experiments.studies.scales import Scale
from experiments.studies.terms import Claim
from launch import devices, job_status
from launch.job_process import COSTS
from pe_research.settings import cli
from pe_research.storage import files

Nodes = dict[str, dict[str, list[Node]]]


def prepare(
  claims: Sequence[Claim], scale: Scale, seeds: int, workdir: pathlib.Path
) -> tuple[Planner, Nodes]:
  """Plans the claims and checks them: the planner, and claim id -> model -> nodes.

  `seeds` is their number; 0: that of the scale, or what the claim needs or was kept with if more.
  """
  planner, nodes = Planner(scale, workdir), {}
  for claim in claims:
    usual = max(scale.seeds, claim.fewest_seeds, ledger.kept_seeds(scale.name, claim))
    nodes[claim.id] = planner.add(claim, range(seeds or usual))
  return planner, nodes


def describe(claims: Sequence[Claim], planner: Planner, nodes: Nodes, rate: float | None) -> str:
  """The plan as a table: the runs of each claim, how many are shared, and the estimated time."""
  lines = [['claim', 'trainings', 'models measured', 'of which shared', 'minutes alone']]
  by_claim = {
    claim: {node.key: node for group in models.values() for node in group}
    for claim, models in nodes.items()
  }
  claims_of = collections.Counter(key for own in by_claim.values() for key in own)
  for claim in claims:
    own = by_claim[claim.id].values()
    lines.append([
      f'{claim.id} {claim.name}',
      str(sum(node.trains for node in own)),
      str(sum(bool(node.wanted) for node in own)),
      str(sum(claims_of[node.key] > 1 for node in own)),
      f'{cost.of(own, planner, rate) / 60:.0f}' if rate else '?',
    ])  # fmt: skip
  jobs = planner.jobs()
  done = sum(job.done.exists() for job in jobs)
  text = '\n'.join(cli.aligned(lines))
  text += f'\n{len(jobs)} jobs, {done} of them done; {len(planner.searches)} searches'
  if rate:
    left = cost.left(planner, rate)
    text += f'; about {left / 3600:.1f} h of work left, {devices.count()} at a time'
  return text


def run(
  claims: Sequence[Claim], planner: Planner, nodes: Nodes, workers: int = 0, keep: bool = True
) -> int:
  """Runs the jobs that are not done, decides every claim, and keeps rows and verdicts if `keep`.

  Returns:
    The exit status, see job_status.status; 1 also if the effect of a test was not estimated.
  """
  remeasure_missing(planner)
  planner.workdir.mkdir(parents=True, exist_ok=True)
  failed = carry_out.run_jobs(planner.jobs(), workers)
  incomplete = False
  for claim in claims:
    finding = decide(claim, planner, nodes[claim.id])
    if keep:
      jobs = jobs_of(nodes[claim.id])
      save(finding, planner.scale.name, sorted(jobs.keys() & failed.keys()))
    print(summary(finding), flush=True)
    incomplete |= not finding.is_complete
  return job_status.status(failed) or int(incomplete)


def remeasure_missing(planner: Planner) -> None:
  """Marks measurements as not done if their rows are missing, and prints which."""
  for node in planner.nodes.values():
    if missing := node.missing_rows():
      print(
        f'{node.workdir / "results.jsonl"} lacks {", ".join(missing)}, though it was measured: the '
        'file was cut off. Its whole rows are used, and the others are measured again.'
      )
      node.measurement_job().done.unlink()


def check(claim: Claim, scale: Scale, seeds: int, keep: bool) -> None:
  """Raises ValueError if there are too few seeds to decide, or the verdict may not be kept."""
  verdicts.check_seeds(claim, seeds or claim.fewest_seeds)
  if not keep:
    return
  kept = ledger.kept_seeds(scale.name, claim)
  if seeds and seeds < kept:
    raise ValueError(
      f'the kept rows of {claim.id} have {kept} seeds and --seeds={seeds} would replace them; give '
      f'--seeds={kept}, or leave --keep out.'
    )
  if not preregistration.since(claim)['clean']:
    raise ValueError(
      f'the code of {claim.id} is not committed; thresholds are committed before the runs. Commit '
      'its file (in a clone with git), or leave --keep out.'
    )


def decide(claim: Claim, planner: Planner, models: Mapping[str, Sequence[Node]]) -> ledger.Finding:
  """A claim's finding from the directories of its runs."""
  differ, notes = ledger.differences(models)
  rows = [] if differ else ledger.collect(claim, planner, models)
  runs, conditions = [], {}
  for model, group in models.items():
    for node in group:
      saved = files.read_json(node.workdir / 'run.json') or {}
      fingerprint = saved.get('fingerprint')
      runs.append({
        'model': model, 'seed': node.config['seed'], 'key': node.key,
        'commit': saved.get('provenance', {}).get('commit'), 'fingerprint': fingerprint,
        'programs': saved.get('programs'),
      } | _searched(node))  # fmt: skip
      conditions |= {fingerprint: saved['conditions']} if fingerprint else {}
  record = {
    'scale': planner.scale.name,
    'registered': preregistration.since(claim, {run['commit'] for run in runs}, planner.scale.name),
    'runs': runs,
    'conditions': conditions,
    'costs': costs(models),
    'refused': differ,
  } | ({'notes': notes} if notes else {})
  return ledger.decide(claim, planner, rows, record)


def _searched(node: Node) -> dict[str, dict]:
  """The searched factors of a node and of its weights, which are not in their plan."""
  searched = {}
  for one in (node, node.weights):
    config = files.read_json(one.workdir / 'config.json') if one.search else None
    if config is not None:
      search = files.read_json(one.search.done)['search']
      searched[one.key] = {
        'position': config['position'],
        'method': search['method'],
        'generator': search.get('generator'),
      }
  return {'searched': searched} if searched else {}


def costs(models: Mapping[str, Sequence[Node]]) -> dict[str, float | None]:
  """Core seconds of each job of these nodes, over all its starts; None if unknown."""
  jobs = jobs_of(models)
  seconds: dict[str, float | None] = dict.fromkeys(sorted(jobs))
  for folder in {job.folder for job in jobs.values()}:
    for row in files.read_rows(folder / COSTS):
      if row['job'] in seconds:
        seconds[row['job']] = round((seconds[row['job']] or 0.0) + row['seconds'], 1)
  return seconds


def save(finding: ledger.Finding, scale: str, failed: Sequence[str] = ()) -> None:
  """Keeps rows and verdict, to be committed.

  What is kept already is left alone if this finding is incomplete or jobs of it, named in `failed`,
  are not done.
  """
  path = ledger.path(scale, finding.claim, 'rows.jsonl')
  if path.exists() and (failed or not finding.is_complete):
    without = f' ({", ".join(failed)} not done)' if failed else ''
    print(f'{finding.claim.id}: not all was measured{without}; what {path} has is left as it is.')
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  rows = [
    row | {'model': model, 'seed': seed}
    for (model, seed), own in finding.rows.items()
    for row in own.values()
  ]
  files.write_rows(path, rows)
  files.write_json(ledger.path(scale, finding.claim, 'verdict.json'), ledger.as_json(finding))


def summary(finding: ledger.Finding) -> str:
  """A claim's verdicts, not corrected for the number of claims, and its tests, for a terminal."""
  by_variant = '; '.join(
    (f'{variant}: ' if variant else '') + verdict
    for variant, (verdict, _) in finding.verdicts.items()
  )
  lines = [f'{finding.claim.id} {finding.claim.name}, alone: {by_variant}']
  refused = finding.record['refused']
  lines += [f'    refused, since runs differ: {text}' for text in refused]
  lines += ['    run all of them with one version, in another --workdir'] if refused else []
  lines += [f'    note: {text}' for text in finding.record.get('notes', ())]
  for outcome in finding.outcomes:
    if outcome.estimate is None:
      lines.append(f'    {outcome.test.says}: {outcome.why}')
      continue
    low, high = outcome.estimate.interval
    effect = f'{outcome.estimate.value:+.4f} [{low:+.4f}, {high:+.4f}] {outcome.test.unit}'
    remarks = ''.join(f'; {text}' for text in (outcome.power, outcome.why) if text)
    lines.append(f'    {outcome.test.says}: {effect}, {outcome.verdict}{remarks}')
  return '\n'.join(lines)
