r"""Trains several seeds of one run in one program; each ends as a run of its own.

  python -m pe_research.together --config=configs/lm.py:position=alibi --seeds=0,1,2 \
    --workdir=results/alibi_seed{seed}

For models too small to keep an accelerator busy. State, batches and metrics get a first axis, the
seeds; each computes what its single run computes, to tolerance. Interrupted, the same command
resumes from the newest checkpoint that all seeds have; so does the single run of each.
"""

import contextlib
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import files, locks, paths

SEED = '{seed}'  # placeholder of the seed in --workdir


def main(argv: Sequence[str]) -> None:
  """Trains all seeds, then evaluates them one by one."""
  parser = cli.parser('pe_research.together', __doc__, config=True)
  parser.add_argument(
    '--seeds', type=cli.integers, required=True, metavar='N,...',
    help='seeds to train: 0,1,2 or the range 0:3, which leaves out 3 (required)',
  )  # fmt: skip
  parser.add_argument(
    '--workdir', required=True, metavar='DIR',
    help=f'folder of each run; {SEED} in it stands for the seed (required)',
  )  # fmt: skip
  flags, config_flags = parser.parse_known_args(argv)
  with exits.errors():
    from pe_research.proof import program_store  # slow to import, and --help needs none of it
    from pe_research.runs import lineage
    from pe_research.settings import configs
    from pe_research.training import loop

    if SEED not in flags.workdir:
      raise ValueError(
        f'--workdir is {flags.workdir!r}; every seed needs its own: write {SEED} where the seed '
        'belongs.'
      )
    if len(set(flags.seeds)) < len(flags.seeds):
      raise ValueError(f'--seeds={",".join(map(str, flags.seeds))} names one twice.')
    runs = {}
    for seed in flags.seeds:
      workdir = paths.place(flags.workdir.replace(SEED, str(seed)))
      runs[workdir] = configs.resolve(cli.read_config([*config_flags, f'--config.seed={seed}']))
    loop.check_same_but_seed([*runs.values()])
    for workdir, config in runs.items():
      lineage.check_new(config, workdir)
    exits.restart_tuned()
    program_store.use()
    run(runs)


def run(runs: Mapping[pathlib.Path, Mapping[str, Any]]) -> None:
  """Trains and evaluates, owning the workdirs; done.json of each is written last."""
  from pe_research.evaluation import evaluate
  from pe_research.machines import heartbeat
  from pe_research.training import loop

  with contextlib.ExitStack() as stack:
    hearts = []
    for workdir, config in runs.items():
      check_owner = stack.enter_context(locks.claim(workdir))
      run_folder.check_config(workdir, config)
      heart = heartbeat.Heartbeat(workdir, config['run']['patience'], check_owner)
      hearts.append(stack.enter_context(heart))

    def beat(doing: str) -> None:
      for heart in hearts:
        heart.beat(doing)

    left = {workdir: c for workdir, c in runs.items() if not (workdir / 'done.json').exists()}
    states = loop.train_all(left, beat) if left else []
    if states is None:
      print('stopped; the same command resumes')
      return
    for (workdir, config), state in zip(left.items(), states, strict=True):
      evaluate.evaluate(config, workdir, state['params'], config['steps'], beat)
      files.write_json(workdir / 'done.json', {'steps': config['steps']})
  for workdir in runs:
    print(workdir if workdir in left else f'{workdir} was finished before')
    evaluate.show(workdir)
  folders = ' '.join(map(str, runs))
  print(f'wrote {folders}; compare: python -m experiments.report {folders} OTHER_RUN')


if __name__ == '__main__':
  main(sys.argv[1:])
