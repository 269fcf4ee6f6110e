"""Fine-tunes a trained RoPE run to a longer context by every recipe, at equal tokens, and compares.

  python -m experiments.finetune --run=results/demo/runs/rope_seed0 --workdir=results/finetune

Each budget, in percent of the tokens that the run was trained on, gets a report of its own. Two
controls are always included: plain RoPE, with more steps at the old length and at the new one. If
interrupted, the same command resumes where it stopped.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from experiments.report.run_study import run_study
from experiments.studies import study
from pe_research.common import checks
from pe_research.settings import cli

if TYPE_CHECKING:
  from experiments.studies.study import Study
  from launch.job import Job

NAMES = ('same', 'raw', 'pi', 'abf', 'yarn', 'longrope')
# Recipes differ by design in the length of their texts, hence in the batch, and in earlier stages.
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
  study.add_run(parser)
  parser.add_argument(
    '--factor', type=float, default=8.0, metavar='A',
    help='target length over training length; default: 8',
  )  # fmt: skip
  parser.add_argument(
    '--shares', type=cli.numbers, default=(1.0, 5.0, 10.0), metavar='A,B',
    help='percent of the training tokens to fine-tune on, one report each; default: 1,5,10',
  )  # fmt: skip
  study.add_flags(parser, 'results/finetune')
  return parser.parse_args(argv)


def plan(given: argparse.Namespace) -> 'Study':
  """The searches, and all stages of all recipes for each budget; ValueError for a bad flag."""
  from configs import finetune  # slow to import, and --help needs none of it
  from pe_research.positions import longrope

  saved = study.base_config(given.run)
  checks.at_least('--factor', given.factor, 2)
  for share in given.shares:
    if not 0 < share < float('inf'):
      raise ValueError(f'--shares has {share:g}; a budget is a positive number of percent.')
  stages = [stage for name in NAMES for stage in finetune.RECIPES[name].stages]
  factors = sorted({s.factor * given.factor for s in stages if s.position == longrope.NAME})
  searches = {
    f: study.search(f'search_{f:g}x', given.workdir / 'search' / f'{f:g}x', given.run, f)
    for f in factors
  }
  measured = study.doubled_lengths(saved['length'], (given.factor,))
  jobs, comparisons = [*searches.values()], []
  for share in given.shares:
    folder = given.workdir / f'{share:g}percent'
    for name in NAMES:
      jobs += recipe(given, share, name, searches, measured)
    runs = tuple(folder / 'runs' / name for name in NAMES)
    comparisons.append(study.Comparison(folder, runs, may_differ=DIFFER))
  settings = 'finetune.json', study.settings(given)
  return study.Study(given.workdir, tuple(jobs), tuple(comparisons), settings)


def recipe(
  given: argparse.Namespace,
  share: float,
  name: str,
  searches: 'dict[float, Job]',
  measured: tuple[int, ...],
) -> 'list[Job]':
  """The jobs of a recipe, one for each stage; the report compares the last.

  Args:
    given: flags.
    share: percent of the tokens that the run was trained on.
    name: of the recipe.
    searches: by factor.
    measured: evaluation lengths, tokens.
  """
  from configs import finetune
  from pe_research.positions import longrope

  folder, stages = given.workdir / f'{share:g}percent', finetune.RECIPES[name].stages
  jobs, start, after = [], given.run, ()
  for number, stage in enumerate(stages, 1):
    arguments = (
      f'start={start},recipe={name},stage={number},factor={given.factor:g},share={share:g}'
    )
    if stage.position == longrope.NAME:
      search = searches[stage.factor * given.factor]
      arguments += f',file={search.done}'
      after = (*after, search.done)
    is_last = number == len(stages)
    workdir = folder / 'runs' / name if is_last else folder / 'stages' / f'{name}_{number}'
    flags = (f'--config=configs/finetune.py:{arguments}', f'--config.eval.lengths={measured}')
    jobs.append(study.train(f'{folder.name}/{workdir.name}', workdir, flags, after))
    start, after = workdir, (jobs[-1].done,)
  return jobs


def main(argv: list[str]) -> int:
  """Searches, trains stage by stage, compares, reports."""
  return run_study(plan, parse(argv))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
