"""Claims and ablations: what there is, what it would take, run it, report it.

python -m experiments list
python -m experiments plan alibi_extrapolates --scale=cpu
python -m experiments run C01 C02 --seeds=5
python -m experiments report
python -m experiments check
python -m experiments sweep --positions=rope,alibi --seeds=0,1

`check` says which kept rows still describe the code as it is, and what differs of the others.
The same command resumes a run that was interrupted; finished work is never done again.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments import claims
from experiments.studies import scales
from experiments.studies.terms import Claim
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files, paths


def parser():
  """Flags of every command but sweep, which has its own."""
  made = cli.parser('experiments', __doc__)
  made.add_argument('command', choices=('list', 'plan', 'run', 'report', 'check', 'sweep'))
  made.add_argument('claims', nargs='*', metavar='CLAIM', help='ids or names; none: all')
  made.add_argument('--scale', default='cpu', choices=scales.SCALES)
  made.add_argument('--seeds', type=int, default=0, help='how many; 0: as many as the scale has')
  made.add_argument(
    '--workdir',
    type=paths.place,
    help='of the runs, and of what report writes: results/claims/SCALE; RESULTS.md and claims.png '
    'of scale cpu go into experiments',
  )
  made.add_argument('--workers', type=int, default=0, help='0: one a core, or one an accelerator')
  made.add_argument('--dry-run', action='store_true', help='print the commands, run nothing')
  made.add_argument('--jobs', type=paths.place, metavar='FILE', help='write the jobs, run none')
  made.add_argument(
    '--keep', action=argparse.BooleanOptionalAction, default=False,
    help='with run: rows and verdicts go into experiments/results, to be committed',
  )  # fmt: skip
  return made


def main(argv: list[str]) -> int:
  """Does what the command says; the exit status is 1 where a run failed."""
  if argv[:1] == ['sweep']:
    from experiments import sweep

    return sweep.main(argv[1:])
  given = parser().parse_args(argv)
  with exits.errors():
    chosen, scale = claims.find(given.claims), scales.SCALES[given.scale]
    if given.command == 'list':
      print('\n'.join(cli.aligned(listed(chosen, scale.name))))
      return 0
    checks.at_least('--seeds', given.seeds, 0)
    workdir = given.workdir or pathlib.Path('results/claims') / scale.name
    if given.command == 'report':
      if given.claims:
        raise ValueError(
          f'report takes no claims ({", ".join(given.claims)}); it is of all of them.'
        )
      from experiments.report.claims import writer as pages

      committed = scale is scales.CPU and not given.workdir
      kept = pathlib.Path('experiments') if committed else None
      for path in pages.write(scale, workdir, kept):
        print(f'wrote {path}')
      return 0
    if given.command == 'check':
      from experiments.studies import check, plan  # slow to import, as is the next
      from pe_research.proof import program_store

      program_store.use()
      return 0 if check.show(chosen, plan.Planner(scale, workdir)) else 1
    return execute(given, chosen, scale, workdir)
  return 0


def execute(given, chosen, scale, workdir: pathlib.Path) -> int:
  """Plans, and runs unless that is all."""
  from experiments.studies import carry_out, cost, runner  # slow to import

  checks.at_least('--workers', given.workers, 0)
  if given.keep and (given.command != 'run' or given.dry_run or given.jobs):
    raise ValueError('--keep is for run, where claims are decided; leave it out.')
  keep = given.keep
  for claim in chosen:
    runner.check(claim, scale, given.seeds, keep)
  planner, nodes = runner.prepare(chosen, scale, given.seeds, workdir)
  if carry_out.only_shown(planner.jobs(), given):
    return 0
  # The machine's speed is measured where there is something left to do.
  left = any(not one.done.exists() for one in planner.jobs())
  first = next((n.config for n in planner.nodes.values() if n.trains and left), None)
  rate = cost.rate(first, workdir) if first else None
  print(runner.describe(chosen, planner, nodes, rate), flush=True)
  if given.command == 'plan':
    return 0
  with carry_out.resumable():
    return runner.run(chosen, planner, nodes, given.workers, keep)


def listed(chosen: Sequence[Claim], scale: str) -> list[list[str]]:
  """A line a claim: id, name, verdict at a scale as a report of all has it, title."""
  from experiments.studies import ledger, verdicts  # slow to import

  kept = {
    c.id: files.read_json(ledger.path(scale, c, 'verdict.json')) for c in claims.CLAIMS.values()
  }
  held = verdicts.hold({name: own['verdicts'] for name, own in kept.items() if own})
  rows = [['id and name', 'verdict', 'claim']]
  for claim in chosen:
    verdict = held.get(claim.id, {}).get(claim.variants[0], verdicts.MISSING)
    rows.append([f'{claim.id} {claim.name}', verdict, claim.title])
  return rows


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
