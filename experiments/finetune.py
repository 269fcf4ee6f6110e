"""Fine-tunes a trained RoPE run to a longer context by every recipe, at equal tokens, and compares.

  python -m experiments.finetune --run=results/demo/runs/rope_seed0 --workdir=results/finetune

Each budget, in percent of the tokens that the run was trained on, gets a report of its own. Two
controls are always there: as many steps more at the old length, nothing changed, and at the new
length with plain RoPE. If interrupted, the same command resumes where it stopped.
"""

import argparse
import pathlib
import sys

from experiments import stretch
from launch import local
from launch.job import Job
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli

NAMES = ('same', 'raw', 'pi', 'abf', 'yarn', 'longrope')
# What recipes differ in by their nature: how long their texts are, hence how many make a batch, and
# stages before the last.
DIFFER = (
  'config.length',
  'config.optimizer.batch',
  'config.optimizer.warmup',
  'config.steps',
  'config.start.step',
  'config.start.workdir',
  'config.data.seed',
)


def parse(argv: list[str]) -> argparse.Namespace:
  """Flags."""
  parser = cli.parser('experiments.finetune', __doc__)
  path = {'type': pathlib.Path, 'metavar': 'DIR'}
  parser.add_argument('--run', **path, required=True, help='of a trained run of RoPE')
  parser.add_argument('--workdir', **path, default=pathlib.Path('results/finetune'))
  parser.add_argument('--factor', type=float, default=8.0, help='target over training length')
  parser.add_argument(
    '--shares', type=cli.numbers, default=(1.0, 5.0, 10.0), help='percent, a,b,...'
  )
  parser.add_argument('--workers', type=int, default=0, help='0: one a core, or one accelerator')
  return parser.parse_args(argv)


def place(folder: pathlib.Path, name: str, stage: int) -> pathlib.Path:
  """The workdir of a stage; the last of a recipe is what the report compares."""
  from configs import finetune  # slow to import, and --help needs none of it

  last = stage == len(finetune.RECIPES[name].stages)
  return folder / 'runs' / name if last else folder / 'stages' / f'{name}_{stage}'


def training(
  given: argparse.Namespace, share: float, name: str, stage: int, searches: pathlib.Path
) -> Job:
  """One stage of a recipe, from the run or from the stage before."""
  from configs import finetune
  from pe_research.positions import longrope

  folder, recipe = given.workdir / f'{share:g}percent', finetune.RECIPES[name]
  start = given.run if stage == 1 else place(folder, name, stage - 1)
  arguments = f'start={start},recipe={name},stage={stage},factor={given.factor:g},share={share:g}'
  part = recipe.stages[stage - 1]
  if part.position == longrope.NAME:
    arguments += f',file={searches}/{part.factor * given.factor:g}x/factors.json'
  workdir = place(folder, name, stage)
  lengths = stretch.lengths(run_folder.load_config(given.run)['length'], (given.factor,))
  command = ('-m', 'pe_research.main', f'--config=configs/finetune.py:{arguments}')
  command += (f'--config.eval.lengths={tuple(lengths)}', f'--workdir={workdir}')
  title = f'{folder.name}/{workdir.name}'
  return Job(title, command, workdir / 'log.txt', workdir / 'done.json')


def main(argv: list[str]) -> int:
  """Searches, trains stage by stage, compares, reports."""
  given = parse(argv)
  from configs import finetune
  from experiments.report import writer
  from experiments.studies import comparability
  from pe_research.positions import longrope
  from pe_research.runs import lineage
  from pe_research.settings import configs

  with exits.errors():
    saved = configs.resolve(configs.anywhere(run_folder.load_config(given.run)))
    lineage.check_plain(saved, given.run)
    checks.at_least('--factor', given.factor, 2)
    for share in given.shares:
      if not 0 < share < float('inf'):
        raise ValueError(f'--shares has {share:g}; a budget is a positive number of percent.')
    run_folder.settle(given.workdir / 'finetune.json', stretch.settings(given))
    searches = given.workdir / 'search'
    stages = [(n, i + 1, s) for n in NAMES for i, s in enumerate(finetune.RECIPES[n].stages)]
    factors = sorted({s.factor * given.factor for _, _, s in stages if s.position == longrope.NAME})
    local.finish(
      [stretch.searching(given.run, s, searches / f'{s:g}x') for s in factors], given.workers
    )
    for wave in sorted({stage for _, stage, _ in stages}):
      jobs = [
        training(given, share, name, stage, searches)
        for share in given.shares
        for name, stage, _ in stages
        if stage == wave
      ]
      local.finish(jobs, given.workers)
    for share in given.shares:
      folder = given.workdir / f'{share:g}percent'
      runs = comparability.load([folder / 'runs' / name for name in NAMES])
      differing = {found.field for found in comparability.differences(runs)}
      marks = comparability.check(runs, [field for field in DIFFER if field in differing])
      print(f'\n{folder.name}')
      writer.publish(runs, folder, marks)
  return 0


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
