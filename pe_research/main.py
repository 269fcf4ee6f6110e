r"""Trains one run and evaluates it.

  python -m pe_research.main --config=configs/lm.py:position=alibi,length=128 --workdir=DIR \
    --config.steps=3000

If interrupted, the same command resumes where it stopped.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from pe_research.machines import cluster, exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import files, paths


def main(argv: list[str]) -> None:
  """Checks the config, then trains and evaluates."""
  parser = cli.parser('pe_research.main', __doc__, config=True)
  parser.add_argument(
    '--workdir', type=paths.place, required=True, metavar='DIR',
    help='folder of the run, for checkpoints, losses and results; or gs://BUCKET/DIR (required)',
  )  # fmt: skip
  cluster.add_flags(parser)
  flags, config_flags = parser.parse_known_args(argv)
  with exits.errors():
    from pe_research.runs import lineage  # slow to import, and --help needs none of it
    from pe_research.settings import configs

    config = configs.resolve(cli.read_config(config_flags))
    lineage.check_new(config, flags.workdir)
    exits.restart_tuned()
    cluster.join(flags.distributed, flags.wait)
    run(config, flags.workdir)


def run(config: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """Trains and evaluates; process 0 owns the workdir, and done.json is written last."""
  from pe_research.machines import heartbeat, multiprocess

  def check_config() -> None:
    run_folder.check_config(workdir, config)

  with multiprocess.hold(workdir, config, check_config) as check_owner:
    from pe_research.evaluation import evaluate  # slow to import, and all this may have failed
    from pe_research.proof import program_store
    from pe_research.training import loop, run_record

    program_store.use()
    if (workdir / 'done.json').exists() and multiprocess.is_process_0():
      print(f'{workdir} is finished; only measurements that are missing are made')
    with heartbeat.Heartbeat(workdir, config['run']['patience'], check_owner) as heart:
      if config['steps']:
        state = loop.train(config, workdir, heart.beat)
      else:
        state = run_record.adopt(config, workdir)
      if state is None:
        print(f'stopped; the same command resumes from {workdir}')
        return
      evaluate.evaluate(config, workdir, state['params'], config['steps'], heart.beat)
    if multiprocess.is_process_0():
      files.write_json(workdir / 'done.json', {'steps': config['steps']})
      evaluate.show(workdir)
      print(f'wrote {workdir}; compare: python -m experiments.report {workdir} OTHER_RUN')


if __name__ == '__main__':
  main(sys.argv[1:])
