"""Searches LongRoPE factors for a trained run.

  python -m pe_research.search --run=results/demo/runs/rope_seed0 --factor=4 --workdir=results/s4

If interrupted, the same command resumes where it stopped and ends in the same result,
DIR/factors.json, which a config names: --config.position.file=DIR/factors.json. Candidates are
selected on training documents and reported on validation documents as well. The candidates of a
generation are spread over all devices, also of several processes.
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
  cli.add_checkpoint(made, '--run')
  add(
    '--workdir', type=paths.place, required=True, metavar='DIR',
    help='folder of this search; factors.json is written there (required)',
  )  # fmt: skip
  add(
    '--factor', type=float, required=True, metavar='S',
    help='how many times longer than its training length the run is stretched (required)',
  )  # fmt: skip
  add(
    '--target-length', type=int, metavar='N',
    help='tokens of the texts that candidates are tried on (default: S times the training length)',
  )  # fmt: skip
  add(
    '--short-of', metavar='FILE',
    help='a factors.json: keep its long factors and search factors for short texts',
  )  # fmt: skip
  add(
    '--method', choices=sizes.METHODS, default='paper',
    help="the paper's evolution, that of the authors' released code, or a control with as many "
    'evaluations (default: %(default)s)',
  )  # fmt: skip
  add(
    '--most', type=float, metavar='LAMBDA',
    help='largest factor of a pair (default: 1.25 S; with --method=released 1 + S)',
  )  # fmt: skip
  add(
    '--temperature',
    help='scale of the logits: none, su or yarn (default: none; with --method=released su)',
  )
  add(
    '--documents', type=int, default=sizes.DOCUMENTS, metavar='N',
    help='training documents that candidates are selected on (default: %(default)s)',
  )  # fmt: skip
  add(
    '--held-out', type=int, default=20, metavar='N',
    help='validation documents that losses are reported on as well (default: %(default)s)',
  )  # fmt: skip
  add(
    '--batch-tokens', type=int, default=sizes.BATCH_TOKENS, metavar='N',
    help='tokens evaluated at once: as many as fit the cache of a CPU; more on an accelerator '
    '(default: %(default)s)',
  )  # fmt: skip
  for field in dataclasses.fields(sizes.Settings):
    add(
      f'--{field.name}', type=type(field.default), default=field.default,
      metavar='P' if field.name == 'probability' else 'N',
      help=f'{field.metadata["help"]} (default: %(default)s)',
    )  # fmt: skip
  cluster.add_flags(made)
  return made


def main(argv: list[str]) -> None:
  """Checks the flags, searches, prints the losses of the seeds and of the best candidate."""
  given = parser().parse_args(argv)
  with exits.errors():
    from pe_research.machines import heartbeat, multiprocess  # slow to import, as are the next
    from pe_research.search import plan
    from pe_research.settings import configs

    checks.at_least('--batch-tokens', given.batch_tokens, 1)
    names = [field.name for field in dataclasses.fields(sizes.Settings)]
    settings = sizes.Settings(**{name: getattr(given, name) for name in names})
    config = configs.resolve(configs.anywhere(run_folder.load_config(given.run)))
    searched = plan.Run(config)
    wanted = plan.make(
      searched,
      method=given.method,
      factor=given.factor,
      most=given.most,
      target_length=given.target_length,
      temperature=given.temperature,
      documents=given.documents,
      held_out=given.held_out,
      settings=settings,
      short_of=plan.long_factors(given.short_of, config) if given.short_of else None,
    )
    exits.restart_tuned()
    cluster.join(given.distributed, given.wait)
    everything = {'run': config, 'search': dataclasses.asdict(wanted)}
    with (
      multiprocess.hold(given.workdir, everything) as check_owner,
      heartbeat.Heartbeat(given.workdir, config['run']['patience'], check_owner) as heart,
    ):
      from pe_research.search import run  # slow to import, and all this may have failed

      found = run.search(
        wanted, searched, given.run, given.step, given.workdir, given.batch_tokens,
        heart.beat,
      )  # fmt: skip
  if not multiprocess.is_process_0():
    return
  print(f'{"nats/token":12}  searched on  held out')
  for name, loss in found['losses'].items():
    print(f'{name:12}  {loss["search"]:11.4f}  {loss["held_out"]:8.4f}')
  print(f'wrote {given.workdir / "factors.json"}')


if __name__ == '__main__':
  main(sys.argv[1:])
