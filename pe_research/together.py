r"""Trains several seeds of one run in one program; each ends as a run of its own.

  python -m pe_research.together --config=configs/lm.py:position=alibi --seeds=0,1,2 \
    --workdir=results/alibi_seed{seed}

For models too small to keep an accelerator busy. A seed computes what its single run computes, to
tolerance, along a new first axis of everything. Interrupted, the same command resumes from the
newest checkpoint that all seeds have; so does the single run of each.
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

SEED = '{seed}'  # what stands for the seed in --workdir


def main(argv: Sequence[str]) -> None:
  """Trains all seeds, then evaluates them one by one."""
  parser = cli.parser('pe_research.together', __doc__, config=True)
  parser.add_argument('--seeds', type=cli.integers, required=True, help='0,1,...')
  parser.add_argument('--workdir', required=True, help=f'of each seed; {SEED} stands for it')
  arguments, rest = parser.parse_known_args(argv)
  with exits.errors():
    from pe_research.proof import program_store  # slow to import, and --help needs none of it
    from pe_research.runs import lineage
    from pe_research.settings import configs
    from pe_research.training import loop

    if SEED not in arguments.workdir:
      raise ValueError(
        f'--workdir is {arguments.workdir}; every seed needs its own: write {SEED} '
        'where the seed belongs.'
      )
    if len(set(arguments.seeds)) < len(arguments.seeds):
      raise ValueError(f'--seeds={",".join(map(str, arguments.seeds))} names one twice.')
    given = {
      paths.place(arguments.workdir.replace(SEED, str(seed))): configs.resolve(
        cli.read_config([*rest, f'--config.seed={seed}'])
      )
      for seed in arguments.seeds
    }
    loop.check_together([*given.values()])
    for workdir, config in given.items():
      lineage.check_new(config, workdir)
    exits.restart_tuned()
    program_store.use()
    with contextlib.ExitStack() as stack:
      run(given, stack)


def run(given: Mapping[pathlib.Path, Mapping[str, Any]], stack: contextlib.ExitStack) -> None:
  """Trains and evaluates, holding the workdirs; done.json of each is written last."""
  from pe_research.evaluation import evaluate
  from pe_research.machines import heartbeat
  from pe_research.training import loop

  hearts = []
  for workdir, config in given.items():
    mine = stack.enter_context(locks.claim(workdir))
    run_folder.check_config(workdir, config)
    heart = heartbeat.Heartbeat(workdir, config['run']['patience'], mine)
    hearts.append(stack.enter_context(heart))

  def beat(doing: str) -> None:
    for heart in hearts:
      heart.beat(doing)

  left = {workdir: c for workdir, c in given.items() if not (workdir / 'done.json').exists()}
  states = loop.train_all(left, beat) if left else []
  if states is None:
    print('stopped; the same command resumes')
    return
  for (workdir, config), state in zip(left.items(), states, strict=True):
    evaluate.evaluate(config, workdir, state['params'], config['steps'], beat)
    files.write_json(workdir / 'done.json', {'steps': config['steps']})


if __name__ == '__main__':
  main(sys.argv[1:])
