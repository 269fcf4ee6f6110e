"""Stretches a trained RoPE run in every published way, without training: loss against length.

  python -m experiments.stretch --run=results/demo/runs/rope_seed0 --workdir=results/stretch

For each factor LongRoPE's factors are searched, all schemes are evaluated on the same targets, and
a report is written. If interrupted, the same command resumes where it stopped.
"""

import argparse
import pathlib
import sys

from launch import local
from launch.job import Job
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli
from pe_research.storage import files

# NAME: position, in which {s} is the factor and {file} what the search found.
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
  path = {'type': pathlib.Path, 'metavar': 'DIR'}
  parser.add_argument('--run', **path, required=True, help='of a trained run of RoPE')
  parser.add_argument('--workdir', **path, default=pathlib.Path('results/stretch'))
  parser.add_argument('--factors', type=cli.numbers, default=(4.0, 8.0), help='a,b,...')
  parser.add_argument('--workers', type=int, default=0, help='0: one a core, or one accelerator')
  return parser.parse_args(argv)


def settings(given: argparse.Namespace) -> dict[str, object]:
  """The flags that decide the results; a directory that is resumed must have the same."""
  flags = {k: v for k, v in vars(given).items() if k not in ('workdir', 'workers')}
  record = files.read_json(given.run / 'run.json') if given.run else None
  return flags | {'weights': (record or {}).get('final_parameters')}


def searching(run: pathlib.Path, factor: float, folder: pathlib.Path) -> Job:
  """The search for one factor, with the published settings."""
  command = ('-m', 'pe_research.search', f'--run={run}', f'--factor={factor:g}')
  return Job(
    folder.name, (*command, f'--workdir={folder}'), folder / 'log.txt', folder / 'factors.json'
  )


def evaluating(run: pathlib.Path, position: str, into: pathlib.Path, lengths: list[int]) -> Job:
  """The evaluation of one scheme."""
  command = ('-m', 'pe_research.evaluate', f'--workdir={run}', f'--position={position}')
  command += (f'--into={into}', f'--lengths={",".join(map(str, lengths))}')
  return Job(f'{into.parts[-3]}/{into.name}', command, into / 'log.txt', into / 'done.json')


def lengths(length: int, factors: tuple[float, ...]) -> list[int]:
  """The training length, doubled up to twice the longest target."""
  longest, found = 2 * max(factors) * length, [length]
  while found[-1] * 2 <= longest:
    found.append(found[-1] * 2)
  return found


def main(argv: list[str]) -> int:
  """Searches, evaluates, compares, reports."""
  given = parse(argv)
  from experiments.report import writer
  from experiments.studies import comparability  # slow to import, and --help needs none of it
  from pe_research.runs import lineage
  from pe_research.settings import configs

  with exits.errors():
    saved = configs.resolve(configs.anywhere(run_folder.load_config(given.run)))
    lineage.check_plain(saved, given.run)
    for factor in given.factors:
      checks.at_least('--factors', factor, 1)
    run_folder.settle(given.workdir / 'stretch.json', settings(given))
    folders = {factor: given.workdir / f'{factor:g}x' for factor in given.factors}
    searches = [searching(given.run, s, f / f'search_{s:g}x') for s, f in folders.items()]
    local.finish(searches, given.workers)
    jobs = []
    for (factor, folder), search in zip(folders.items(), searches, strict=True):
      for name, position in VARIANTS.items():
        filled = position.format(s=f'{factor:g}', file=search.done)
        into = folder / 'runs' / name
        jobs.append(evaluating(given.run, filled, into, lengths(saved['length'], given.factors)))
    local.finish(jobs, given.workers)
    for folder in folders.values():
      runs = comparability.load([folder / 'runs' / name for name in VARIANTS])
      marks = comparability.check(runs)
      print(f'\n{folder.name}')
      writer.publish(runs, folder, marks)
  return 0


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
