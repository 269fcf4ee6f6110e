"""Searches LongRoPE factors for a trained run.

  python -m pe_research.search --run=results/demo/runs/rope_seed0 --factor=4 --workdir=results/s4

If interrupted, the same command resumes where it stopped and ends in the same result,
DIR/factors.json, which a config names: --config.position.file=DIR/factors.json. Candidates are
selected on training documents and reported on validation documents as well. Those of a generation
are shared by all devices, also of several processes.
"""

import dataclasses
import sys

from pe_research.common import checks
from pe_research.machines import cluster, exits
from pe_research.runs import run_folder
from pe_research.search import sizes
from pe_research.settings import cli
from pe_research.storage import paths


def parser():
  """Flags; those of sizes.Settings have its names and defaults."""
  made = cli.parser('pe_research.search', __doc__)
  add = made.add_argument
  add('--run', type=paths.place, required=True, metavar='DIR', help='of the trained run')
  add('--step', type=int, help='a checkpoint other than the newest')
  add('--workdir', type=paths.place, required=True, metavar='DIR', help='of this search')
  add('--factor', type=float, required=True, help='s, times the length that the run was trained at')
  add('--target-length', type=int, help='tokens of the texts; default: factor times that length')
  add('--short-of', metavar='FILE', help='keep the long factors of FILE, search short ones')
  add('--method', choices=sizes.METHODS, default='paper')
  add('--most', type=float, help='largest factor; default 1.25 s, of released 1 + s')
  add('--temperature', help="'none', 'su' or 'yarn'; default none, of released su")
  add('--documents', type=int, default=sizes.DOCUMENTS, help='training documents to select on')
  add('--held-out', type=int, default=20, help='validation documents to report on')
  add(
    '--batch-tokens', type=int, default=sizes.BATCH_TOKENS,
    help='evaluated at once: what a CPU keeps in its cache; an accelerator wants more',
  )  # fmt: skip
  for field in dataclasses.fields(sizes.Settings):
    means = f'{sizes.MEANS[field.name]} (%(default)s)'
    add(f'--{field.name}', type=type(field.default), default=field.default, help=means)
  cluster.add_flags(made)
  return made


def main(argv: list[str]) -> None:
  """Checks the flags, searches, prints what the seeds and the best are worth."""
  given = vars(parser().parse_args(argv))
  origin, workdir, step = (given.pop(name) for name in ('run', 'workdir', 'step'))
  batch_tokens, short_of = given.pop('batch_tokens'), given.pop('short_of')
  how, wait = given.pop('distributed'), given.pop('wait')
  names = [field.name for field in dataclasses.fields(sizes.Settings)]
  with exits.errors():
    from pe_research.machines import heartbeat, multiprocess  # slow to import, as are the next
    from pe_research.search import plan
    from pe_research.settings import configs

    checks.at_least('--batch-tokens', batch_tokens, 1)
    settings = sizes.Settings(**{name: given.pop(name) for name in names})
    config = configs.resolve(configs.anywhere(run_folder.load_config(origin)))
    short_of = plan.long_factors(short_of, config) if short_of else None
    wanted = plan.make(config, settings=settings, short_of=short_of, **given)
    exits.restart_tuned()
    cluster.join(how, wait)
    everything = {'run': config, 'search': dataclasses.asdict(wanted)}
    with (
      multiprocess.hold(workdir, everything) as mine,
      heartbeat.Heartbeat(workdir, config['run']['patience'], mine) as heart,
    ):
      from pe_research.search import run  # slow to import, and all this may have failed

      found = run.search(wanted, config, origin, step, workdir, batch_tokens, heart.beat)
  if not multiprocess.first():
    return
  print(f'{"nats/token":12}  searched on  held out')
  for name, loss in found['losses'].items():
    print(f'{name:12}  {loss["search"]:11.4f}  {loss["held_out"]:8.4f}')
  print(f'wrote {workdir / "factors.json"}')


if __name__ == '__main__':
  main(sys.argv[1:])
