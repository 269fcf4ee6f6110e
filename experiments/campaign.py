"""Runs the plan of some claims, and decides them."""

import collections
import json
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from experiments import cost, ledger, registered, verdicts
from experiments.claims.terms import Claim
from experiments.plan import Node, Planner
from experiments.scales import Scale
from launch import devices, local, state
from launch.job import Job
from pe_research import cli, records

Nodes = dict[str, dict[str, list[Node]]]


def prepare(
  claims: Sequence[Claim], scale: Scale, seeds: int, workdir: pathlib.Path
) -> tuple[Planner, Nodes]:
  """The plan of the claims, checked: the planner, and claim id -> model -> nodes.

  `seeds` is a number; 0 is what the scale has, or as many as a claim needs or is kept with.
  """
  planner = Planner(scale, workdir)
  count = lambda claim: (
    seeds or max(scale.seeds, claim.fewest_seeds, ledger.kept_seeds(scale.name, claim))
  )
  return planner, {claim.id: planner.add(claim, range(count(claim))) for claim in claims}


def describe(claims: Sequence[Claim], planner: Planner, nodes: Nodes, rate: float | None) -> str:
  """The plan in words: what each claim needs, what is shared, what is done, what it will cost."""
  lines = [['claim', 'trainings', 'models measured', 'of which shared', 'minutes alone']]
  users: dict[str, int] = {}
  for own in nodes.values():
    for key in {node.key for group in own.values() for node in group}:
      users[key] = users.get(key, 0) + 1
  for claim in claims:
    own = {node.key: node for group in nodes[claim.id].values() for node in group}
    seconds = [cost.of(node, planner, rate) for node in own.values()] if rate else []
    lines.append([
      f'{claim.id} {claim.name}',
      str(sum(node.trains for node in own.values())),
      str(sum(bool(node.wanted) for node in own.values())),
      str(sum(users[key] > 1 for key in own)),
      f'{sum(seconds) / 60:.0f}' if rate else '?',
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
  claims: Sequence[Claim],
  scale: Scale,
  seeds: int,
  workdir: pathlib.Path,
  workers: int = 0,
  keep: bool = True,
) -> int:
  """Does what is not done, decides every claim, and keeps rows and verdicts where `keep`.

  Returns:
    state.status of the jobs that are not done; 1 also where they are, and a test has no effect.
  """
  for claim in claims:
    check(claim, scale, seeds, keep)
  planner, nodes = prepare(claims, scale, seeds, workdir)
  jobs, costs, said = planner.jobs(), workdir / 'costs.jsonl', set()
  workdir.mkdir(parents=True, exist_ok=True)
  start = time.monotonic()

  def ended(job: Job, seconds: float) -> None:
    records.append_row(costs, {'job': job.name, 'seconds': round(seconds, 1)})

  def watch() -> None:
    for job in jobs:
      if job.name not in said and job.done.exists():
        said.add(job.name)
        took = time.monotonic() - start
        print(f'{len(said):4}/{len(jobs)}  {took / 60:6.1f} min  {job.name}', flush=True)

  failed = local.run(jobs, watch, workers, ended)
  for job in jobs:
    if job.name in failed:
      print(state.last_words(job, failed[job.name]), file=sys.stderr)
  lacking = False
  for claim in claims:
    finding = decide(claim, planner, nodes[claim.id], costs)
    if keep:
      save(finding, scale.name)
    print(sentence(finding), flush=True)
    lacking |= any(outcome.estimate is None for outcome in finding.outcomes)
  return state.status(failed) or int(lacking)


def check(claim: Claim, scale: Scale, seeds: int, keep: bool) -> None:
  """Raises ValueError where so few seeds decide nothing, or would replace what may be kept."""
  verdicts.fewest(claim, seeds or claim.fewest_seeds)
  if not keep:
    return
  kept = ledger.kept_seeds(scale.name, claim)
  if seeds and seeds < kept:
    raise ValueError(
      f'the kept rows of {claim.id} have {kept} seeds and --seeds={seeds} would replace them; give '
      f'--seeds={kept}, or try it out with --no-keep.'
    )
  if not registered.since(claim)['clean']:
    raise ValueError(
      f'what {claim.id} asks is not committed as it is; thresholds are committed before the runs. '
      'Commit its file (in a clone with git), or try it out with --no-keep.'
    )


def decide(
  claim: Claim, planner: Planner, own: Mapping[str, Sequence[Node]], costs: pathlib.Path
) -> ledger.Finding:
  """A claim's finding from the directories of its runs."""
  differ = ledger.differences(own)
  rows = [] if differ else ledger.collect(claim, planner, own)
  seconds = collections.Counter()  # of a job that was done again, all
  for row in records.read_rows(costs):
    seconds[row['job']] += row['seconds']
  mine = {node.key: node for group in own.values() for node in group}.values()
  took = {n.key: sum(seconds[name] for name in n.job_names()) for n in mine}
  runs = []
  for model, group in own.items():
    for node in group:
      kept = records.read_json(node.workdir / 'run.json') or {}
      made = kept.get('provenance', {})
      runs.append({
        'model': model, 'seed': node.config['seed'], 'key': node.key,
        'commit': made.get('commit'), 'fingerprint': kept.get('fingerprint'),
        'core_seconds': round(took[node.key], 1),
      })  # fmt: skip
  record = {
    'scale': planner.scale.name,
    'registered': registered.since(claim, {run['commit'] for run in runs}, planner.scale.name),
    'runs': runs,
    'core_minutes': round(sum(took.values()) / 60, 1),
    'refused': differ,
  }
  return ledger.settle(claim, planner, rows, record)


def save(finding: ledger.Finding, scale: str) -> None:
  """Keeps rows and verdict, where they are committed from.

  What is kept already is left alone where this finding lacks a test: a run failed, or was refused.
  """
  rows = ledger.path(scale, finding.claim, 'rows.jsonl')
  if rows.exists() and any(outcome.estimate is None for outcome in finding.outcomes):
    print(f'{finding.claim.id}: not all was measured; what {rows} has is left as it is.')
    return
  rows.parent.mkdir(parents=True, exist_ok=True)
  kept = [
    row | {'model': model, 'seed': seed}
    for (model, seed), own in finding.rows.items()
    for row in own.values()
  ]
  records.write_rows(rows, kept)
  verdict = json.dumps(ledger.as_json(finding), indent=1)
  records.write_bytes(ledger.path(scale, finding.claim, 'verdict.json'), verdict.encode())


def sentence(finding: ledger.Finding) -> str:
  """A claim's verdict and its tests, for a terminal."""
  lines = [f'{finding.claim.id} {finding.claim.name}: {finding.verdict}']
  refused = finding.record['refused']
  lines += [f'    refused, since runs differ: {text}' for text in refused]
  lines += ['    run all of them by one version, in another --workdir'] if refused else []
  for outcome in finding.outcomes:
    if outcome.estimate is None:
      lines.append(f'    {outcome.test.says}: {outcome.why}')
      continue
    low, high = outcome.estimate.interval
    found = f'{outcome.estimate.value:+.4f} [{low:+.4f}, {high:+.4f}] {outcome.test.unit}'
    more = ''.join(f'; {text}' for text in (outcome.power, outcome.why) if text)
    lines.append(f'    {outcome.test.says}: {found}, {outcome.verdict}{more}')
  return '\n'.join(lines)
