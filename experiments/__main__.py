"""Tests published claims and runs ablations.

python -m experiments list
python -m experiments plan alibi_extrapolates --scale=cpu
python -m experiments run C01 C02 --seeds=0:5
python -m experiments report
python -m experiments check
python -m experiments sweep --positions=rope,alibi --seeds=0,1

`plan` prints the runs that claims need and their cost, `check` which kept rows still match the
code, and what differs for the others. If `run` is interrupted, the same command resumes it.
"""

import argparse
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Sequence

from experiments import claims
from experiments.studies import scales, study
from experiments.studies.scales import Scale
from experiments.studies.terms import Claim
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.settings import cli

MOST_SEEDS = 100


def parser() -> argparse.ArgumentParser:
  """Flags of every command but sweep, which has its own."""
  parser = cli.parser('experiments', __doc__)
  parser.add_argument('command', choices=('list', 'plan', 'run', 'report', 'check', 'sweep'))
  parser.add_argument('claims', nargs='*', metavar='CLAIM', help='ids or names; none: all')
  parser.add_argument('--scale', default='cpu', choices=scales.SCALES)
  parser.add_argument(
    '--seeds', type=seeds, default=0, metavar='0:N',
    help='0:5, or 5 for the same; default: those of the scale, or more if a claim needs more',
  )  # fmt: skip
  study.add_flags(
    parser, None, 'folder of the runs and of what report writes; default: results/claims/SCALE. '
    'By default, RESULTS.md and claims.png of scale cpu go into experiments',
  )  # fmt: skip
  parser.add_argument(
    '--keep', action=argparse.BooleanOptionalAction, default=False,
    help='with run: write rows and verdicts to experiments/results, to be committed',
  )  # fmt: skip
  return parser


def seeds(text: str) -> int:
  """The type of --seeds, which gives their number: 0:5 or 0,1,2,3,4, or 5 for the same."""
  if not {',', ':'} & {*text}:
    return int(text)
  given = cli.integers(text)
  if given != tuple(range(len(given))):
    raise argparse.ArgumentTypeError(
      f'{text} has other seeds than 0 to N-1, or in another order; write 0:{len(given)}.'
    )
  return len(given)


def main(argv: list[str]) -> int:
  """Runs a command; the exit status is 1 if a run failed or kept rows do not match the code."""
  if argv[:1] == ['sweep']:
    from experiments import sweep

    return sweep.main(argv[1:])
  given = parser().parse_args(argv)
  with exits.errors():
    chosen, scale = claims.find(given.claims), scales.SCALES[given.scale]
    if given.command == 'list':
      print(listed(chosen, scale.name))
      return 0
    checks.at_least('--seeds', given.seeds, 0)
    checks.at_most('--seeds', given.seeds, MOST_SEEDS)
    workdir = given.workdir or pathlib.Path('results/claims') / scale.name
    if given.command == 'report':
      return report(given, scale, workdir)
    if given.command == 'check':
      from experiments.studies import check, plan  # slow to import, as is the next
      from pe_research.proof import program_store

      program_store.use()
      return 0 if check.show(chosen, plan.Planner(scale, workdir)) else 1
    return execute(given, chosen, scale, workdir)
  return 0


def report(given: argparse.Namespace, scale: Scale, workdir: pathlib.Path) -> int:
  """Writes the report of all claims."""
  from experiments.report.claims import writer  # slow to import

  if given.claims:
    raise ValueError(f'report takes no claims ({", ".join(given.claims)}); it is of all of them.')
  committed = scale is scales.CPU and not given.workdir
  for path in writer.write(scale, workdir, pathlib.Path('experiments') if committed else None):
    print(f'wrote {path}')
  return 0


def execute(
  given: argparse.Namespace, chosen: Sequence[Claim], scale: Scale, workdir: pathlib.Path
) -> int:
  """Plans the runs of claims, and runs them unless only the plan was asked for."""
  from experiments.studies import carry_out, cost, runner  # slow to import

  checks.at_least('--workers', given.workers, 0)
  if given.keep and (given.command != 'run' or given.dry_run or given.jobs):
    raise ValueError('--keep is for run, where claims are decided; leave it out.')
  for claim in chosen:
    runner.check(claim, scale, given.seeds, given.keep)
  planner, nodes = runner.prepare(chosen, scale, given.seeds, workdir)
  if carry_out.list_jobs(planner.jobs(), given):
    return 0
  rate = None
  trained = [node.config for node in planner.nodes.values() if node.trains]
  if trained and not all(job.done.exists() for job in planner.jobs()):
    rate = cost.rate(trained[0], workdir)
  print(runner.describe(chosen, planner, nodes, rate), flush=True)
  if given.command == 'plan':
    return 0
  with carry_out.resumable():
    return runner.run(chosen, planner, nodes, given.workers, given.keep)


def listed(chosen: Sequence[Claim], scale: str) -> str:
  """A table with a row for each claim: id and name, its verdict in the report, its title."""
  from experiments.studies import ledger, verdicts  # slow to import

  kept = {claim.id: ledger.read_verdict(scale, claim) for claim in claims.CLAIMS.values()}
  corrected = verdicts.corrected_by_claim({i: k['verdicts'] for i, k in kept.items() if k})
  rows = [['id and name', 'verdict']]
  for claim in chosen:
    verdict = corrected.get(claim.id, {}).get(claim.variants[0], verdicts.MISSING)
    rows.append([f'{claim.id} {claim.name}', verdict])
  heads = cli.aligned(rows)
  indent = max(map(len, heads)) + 2
  wrapped = textwrap.TextWrapper(
    shutil.get_terminal_size((100, 24)).columns, subsequent_indent=' ' * indent
  )
  titles = ['claim', *(claim.title for claim in chosen)]
  pairs = zip(heads, titles, strict=True)
  return '\n'.join(wrapped.fill(head.ljust(indent) + title) for head, title in pairs)


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
