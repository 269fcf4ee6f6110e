"""Extends a trained RoPE run by every scheme, without training: loss against length.

  python -m experiments.stretch --run=results/demo/runs/rope_seed0 --workdir=results/stretch

For each factor, LongRoPE's factors are searched, all schemes are evaluated on the same targets, and
a report is written. If interrupted, the same command resumes where it stopped.
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

# NAME: position; {s} is the factor, {file} the factors found by the search.
VARIANTS = {
  'rope': 'rope',
  'pi': 'pi:factor={s}',
  'ntk': 'ntk:factor={s}',
  'dynamic_ntk': 'dynamic_ntk',
  'ntk_by_parts': 'ntk_by_parts:factor={s}',
  'yarn_pairs': 'yarn:factor={s}',
  'yarn_rotations': 'yarn:factor={s},ramp=rotations',
  'longrope': 'longrope:file={file}',
}


def parse(argv: list[str]) -> argparse.Namespace:
  """Flags."""
  parser = cli.parser('experiments.stretch', __doc__)
  study.add_run(parser)
  parser.add_argument(
    '--factors', type=cli.numbers, metavar='A,B', default=(4.0, 8.0),
    help='target length over training length, one report each; default: 4,8',
  )  # fmt: skip
  study.add_flags(parser, 'results/stretch')
  return parser.parse_args(argv)


def plan(given: argparse.Namespace) -> 'Study':
  """A search and an evaluation of each variant, for each factor; ValueError for a bad flag."""
  saved = study.base_config(given.run)
  for factor in given.factors:
    checks.at_least('--factors', factor, 1)
  measured = ','.join(map(str, study.doubled_lengths(saved['length'], given.factors)))
  jobs, comparisons = [], []
  for factor in given.factors:
    folder = given.workdir / f'{factor:g}x'
    name = f'search_{factor:g}x'
    search = study.search(name, folder / name, given.run, factor)
    jobs.append(search)
    for name, position in VARIANTS.items():
      filled = position.format(s=f'{factor:g}', file=search.done)
      flags = (f'--position={filled}', f'--lengths={measured}')
      after = (search.done,) if '{file}' in position else ()
      into = folder / 'runs' / name
      jobs.append(study.evaluate(f'{folder.name}/{name}', into, given.run, flags, after))
    runs = tuple(folder / 'runs' / name for name in VARIANTS)
    comparisons.append(study.Comparison(folder, runs))
  settings = 'stretch.json', study.settings(given)
  return study.Study(given.workdir, tuple(jobs), tuple(comparisons), settings)


def main(argv: list[str]) -> int:
  """Searches, evaluates, compares, reports."""
  return run_study(plan, parse(argv))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
