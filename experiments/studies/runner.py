"""Runs the plan of some claims, and decides them."""

import json
import pathlib
from collections.abc import Mapping, Sequence

from experiments.studies import carry_out, cost, ledger, preregistration, verdicts
from experiments.studies.plan import Node, Planner
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
    lines.append([
      f'{claim.id} {claim.name}',
      str(sum(node.trains for node in own.values())),
      str(sum(bool(node.wanted) for node in own.values())),
      str(sum(users[key] > 1 for key in own)),
      f'{cost.of(own.values(), planner, rate) / 60:.0f}' if rate else '?',
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
  """Does what is not done, decides every claim, and keeps rows and verdicts where `keep`.

  Returns:
    The exit status, see job_status.status; 1 also where a test has no effect.
  """
  measure_again(planner)
  planner.workdir.mkdir(parents=True, exist_ok=True)
  failed = carry_out.run_jobs(planner.jobs(), workers)
  lacking = False
  for claim in claims:
    finding = decide(claim, planner, nodes[claim.id])
    if keep:
      lacks = planner.making(nodes[claim.id]).keys() & failed.keys()
      save(finding, planner.scale.name, sorted(lacks))
    print(sentence(finding), flush=True)
    lacking |= any(outcome.estimate is None for outcome in finding.outcomes)
  return job_status.status(failed) or int(lacking)


def measure_again(planner: Planner) -> None:
  """Takes back the marks of measurements whose rows are gone, and says which those are."""
  for node in planner.nodes.values():
    if lost := planner.lost(node):
      print(
        f'{node.workdir / "results.jsonl"} lacks {", ".join(lost)}, though it was measured: the '
        'file was cut. Its whole rows are used, and the others measured again.'
      )
      planner.measuring(node).done.unlink()


def check(claim: Claim, scale: Scale, seeds: int, keep: bool) -> None:
  """Raises ValueError where so few seeds decide nothing, or would replace what may be kept."""
  verdicts.fewest(claim, seeds or claim.fewest_seeds)
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
      f'what {claim.id} asks is not committed as it is; thresholds are committed before the runs. '
      'Commit its file (in a clone with git), or leave --keep out.'
    )


def decide(claim: Claim, planner: Planner, own: Mapping[str, Sequence[Node]]) -> ledger.Finding:
  """A claim's finding from the directories of its runs."""
  differ, notes = ledger.differences(own)
  rows = [] if differ else ledger.collect(claim, planner, own)
  runs, conditions = [], {}
  for model, group in own.items():
    for node in group:
      kept = files.read_json(node.workdir / 'run.json') or {'conditions': {}}
      made, fingerprint = kept.get('provenance', {}), kept.get('fingerprint')
      runs.append({
        'model': model, 'seed': node.config['seed'], 'key': node.key,
        'commit': made.get('commit'), 'fingerprint': fingerprint, 'programs': kept.get('programs'),
      } | _searched(node))  # fmt: skip
      conditions |= {fingerprint: kept['conditions']} if fingerprint else {}
  record = {
    'scale': planner.scale.name,
    'registered': preregistration.since(claim, {run['commit'] for run in runs}, planner.scale.name),
    'runs': runs,
    'conditions': conditions,
    'costs': costs(planner, own),
    'refused': differ,
  } | ({'notes': notes} if notes else {})
  return ledger.settle(claim, planner, rows, record)


def _searched(node: Node) -> dict[str, dict]:
  """What was searched for a node and its weights, which their plan does not have."""
  found = {}
  for one in (node, node.weights):
    config = files.read_json(one.workdir / 'config.json') if one.search else None
    if config is not None:
      made = files.read_json(one.search.done)['search']
      found[one.key] = {'position': config['position'], 'method': made['method']}
      found[one.key]['generator'] = made.get('generator')
  return {'searched': found} if found else {}


def costs(planner: Planner, own: Mapping[str, Sequence[Node]]) -> dict[str, float | None]:
  """Core seconds of each job of these nodes, all its starts together; None: not known."""
  jobs = planner.making(own)
  seconds: dict[str, float | None] = dict.fromkeys(sorted(jobs))
  for folder in {job.folder for job in jobs.values()}:
    for row in files.read_rows(folder / COSTS):
      if row['job'] in seconds:
        seconds[row['job']] = round((seconds[row['job']] or 0.0) + row['seconds'], 1)
  return seconds


def save(finding: ledger.Finding, scale: str, lacks: Sequence[str] = ()) -> None:
  """Keeps rows and verdict, where they are committed from.

  What is kept already is left alone where this finding lacks a test or jobs, named in `lacks`: they
  failed, or their comparison was refused.
  """
  rows = ledger.path(scale, finding.claim, 'rows.jsonl')
  if rows.exists() and (lacks or any(outcome.estimate is None for outcome in finding.outcomes)):
    without = f' ({", ".join(lacks)} not done)' if lacks else ''
    print(f'{finding.claim.id}: not all was measured{without}; what {rows} has is left as it is.')
    return
  rows.parent.mkdir(parents=True, exist_ok=True)
  kept = [
    row | {'model': model, 'seed': seed}
    for (model, seed), own in finding.rows.items()
    for row in own.values()
  ]
  files.write_rows(rows, kept)
  verdict = json.dumps(ledger.as_json(finding), indent=1)
  files.write_bytes(ledger.path(scale, finding.claim, 'verdict.json'), verdict.encode())


def sentence(finding: ledger.Finding) -> str:
  """A claim's verdicts, not corrected for the number of claims, and its tests; for a terminal."""
  found = '; '.join(
    (f'{variant}: ' if variant else '') + verdict
    for variant, (verdict, _) in finding.verdicts.items()
  )
  lines = [f'{finding.claim.id} {finding.claim.name}, alone: {found}']
  refused = finding.record['refused']
  lines += [f'    refused, since runs differ: {text}' for text in refused]
  lines += ['    run all of them by one version, in another --workdir'] if refused else []
  lines += [f'    note: {text}' for text in finding.record.get('notes', ())]
  for outcome in finding.outcomes:
    if outcome.estimate is None:
      lines.append(f'    {outcome.test.says}: {outcome.why}')
      continue
    low, high = outcome.estimate.interval
    found = f'{outcome.estimate.value:+.4f} [{low:+.4f}, {high:+.4f}] {outcome.test.unit}'
    more = ''.join(f'; {text}' for text in (outcome.power, outcome.why) if text)
    lines.append(f'    {outcome.test.says}: {found}, {outcome.verdict}{more}')
  return '\n'.join(lines)
