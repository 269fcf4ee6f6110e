"""Trains and evaluates a grid of schemes and seeds, then compares and reports.

  python -m experiments.sweep --positions=rope,alibi --seeds=0,1 --workdir=results/mine \\
    --config=configs/lm.py:length=128 --config.steps=3000

  python -m experiments sweep --grid position=rope,alibi length=64,128 seed=0:3 \\
    --workdir=results/grid

Without arguments it is the  A grid may vary the arguments of the config's family and any of
its fields. If interrupted, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from experiments.report.run_study import run_study
from experiments.studies import study
from launch.job import Job
from pe_research.common import digest, nested
from pe_research.machines import exits
from pe_research.runs import conditions, run_folder
from pe_research.settings import cli

if TYPE_CHECKING:
  from experiments.studies import progress

# The demo: six decoders that differ in their positional scheme.
CONFIG = 'configs/lm.py'
# Learned positions last: their run is the shortest, since they end at the training length.
POSITIONS = ('nope', 'sinusoidal', 't5', 'rope', 'alibi', 'learned')
SEEDS = (0,)
WORKDIR = 'results/demo'


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """Flags of the sweep, and the --config.x=y overrides of every run."""
  parser = cli.parser('experiments.sweep', __doc__, config=True)
  parser.add_argument(
    '--config', default=CONFIG, metavar='FILE[:name=value,...]', help='default: %(default)s'
  )
  parser.add_argument(
    '--positions', type=cli.words, default=POSITIONS, metavar='A,B', help='schemes to compare'
  )
  parser.add_argument(
    '--seeds',
    type=cli.integers,
    default=SEEDS,
    metavar='0,1',
    help='seeds of each scheme; default: 0',
  )
  parser.add_argument(
    '--grid', nargs='+', type=axis, metavar='NAME=A,B',
    help='all combinations of these values; seed=0:3 is 0,1,2. Replaces the two flags above',
  )  # fmt: skip
  study.add_flags(parser, WORKDIR)
  parser.add_argument(
    '--seeds-together', action='store_true',
    help='train the seeds of a scheme in one program, as pe_research.together does',
  )  # fmt: skip
  parser.add_argument(
    '--explorer', action='store_true', help='also write a page to explore the runs'
  )
  parser.add_argument(
    '--allow-different', action='append', default=[], metavar='FIELD',
    help='compare runs that differ in a field; the report says so first',
  )  # fmt: skip
  return parser.parse_known_args(argv)


def axis(text: str) -> tuple[str, tuple[str, ...]]:
  """The type of one dimension of a grid: 'length=64,128', or 'seed=0:3' for 0, 1 and 2."""
  name, _, values = text.partition('=')
  if re.fullmatch(r'\d+:\d+', values):
    return name, tuple(map(str, cli.integers(values)))
  if not values:
    raise argparse.ArgumentTypeError(f'{text!r} is not understood; write NAME=a,b or seed=0:3.')
  return name, cli.words(values)


def grid(arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
  """The dimensions, seeds first and schemes last; ValueError if one has no values, or one twice."""
  axes = dict(arguments.grid or ())
  if len(axes) < len(arguments.grid or ()):
    raise ValueError('--grid names a dimension twice.')
  seeds = axes.pop('seed', tuple(map(str, arguments.seeds)))
  schemes = axes.pop('position', tuple(arguments.positions))
  flags = {'seed': '--seeds', 'position': '--positions'}
  dimensions = {'seed': seeds, **axes, 'position': schemes}
  for name, values in dimensions.items():
    if len(set(values)) < len(values):
      raise ValueError(f'{flags.get(name, name)} names one twice: {",".join(values)}.')
    if not values:
      raise ValueError(f'{name} has no values.')
  return dimensions


def plan(arguments: argparse.Namespace, overrides: list[str]) -> list[progress.Planned]:
  """A run for each point of the grid, its config resolved and checked.

  Raises:
    ValueError: a config is bad, or two points are one experiment.
  """
  from experiments.studies import progress
  from pe_research import positions
  from pe_research.settings import configs, protocols  # slow to import; --help needs none of it

  dimensions, runs = grid(arguments), []
  for values in itertools.product(*dimensions.values()):
    point = dict(zip(dimensions, values, strict=True))
    fields = {name: value for name, value in point.items() if '.' in name or name == 'steps'}
    family = {name: value for name, value in point.items() if name not in fields}
    joint = ',' if ':' in arguments.config else ':'
    config = arguments.config + joint + ','.join(f'{n}={v}' for n, v in reversed(family.items()))
    flags = [f'--config={config}', *(f'--config.{n}={v}' for n, v in fields.items()), *overrides]
    others = {n: v for n, v in point.items() if n not in ('position', 'seed')}
    if others:
      text = ', '.join(f'{name}={value}' for name, value in others.items())
      flags.append(f'--config.run.label={positions.scheme(point["position"]).label} ({text})')
    parts = [point['position'], *(f'{n}{v}' for n, v in others.items()), f'seed{point["seed"]}']
    name = '_'.join(parts).replace('/', '-')
    workdir = arguments.workdir / 'runs' / name
    resolved = configs.resolve(cli.read_config(flags))
    if not {*resolved['eval']['protocols']} & {*protocols.LOSSES}:
      raise ValueError(
        f'eval.protocols of {name} is {",".join(resolved["eval"]["protocols"])}; a sweep compares '
        f'losses, so name one of {", ".join(protocols.LOSSES)}. Exact answers are compared by '
        'claims (experiments/claims).'
      )
    runs.append(progress.Planned(study.train(name, workdir, flags), workdir, resolved))
  seen: dict[str, str] = {}
  for run in runs:
    other = seen.setdefault(digest.of_json(conditions.experiment(run.config)), run.job.name)
    if other != run.job.name:
      raise ValueError(
        f'runs {other!r} and {run.job.name!r} are one experiment: what the grid varies between '
        'them does not change a result, or is one value written in two ways.'
      )
  return _joined(runs) if arguments.seeds_together else runs


def _joined(runs: Sequence[progress.Planned]) -> list[progress.Planned]:
  """The same runs, with one job for those that differ only in their seed."""
  from pe_research import together  # slow to import, and a config may have been bad

  groups: dict[str, list[progress.Planned]] = {}
  for run in runs:
    name = run.workdir.name.removesuffix(str(run.config['seed']))
    groups.setdefault(name, []).append(run)
  joined = []
  for name, members in groups.items():
    seeds = ','.join(str(run.config['seed']) for run in members)
    flags = [flag for flag in members[0].job.command[2:] if not flag.startswith('--workdir=')]
    workdir = members[0].workdir.with_name(f'{name}{together.SEED}')
    command = ('-m', 'pe_research.together', *flags, f'--seeds={seeds}', f'--workdir={workdir}')
    first, *others = (run.workdir for run in members)
    done = members[-1].workdir / 'done.json'  # seeds end one after another
    job = Job(first.name, command, first / 'log.txt', done, others=tuple(others))
    joined += [dataclasses.replace(run, job=job) for run in members]
  return joined


def varied(runs: Sequence[progress.Planned]) -> tuple[str, ...]:
  """Fields of configs that the grid varies."""
  first: dict[tuple[str, int], dict[str, Any]] = {}
  fields: set[str] = set()
  for config in (run.config for run in runs):
    other = first.setdefault((config['position']['name'], config['seed']), config)
    pair = conditions.conditions(other), conditions.conditions(config)
    fields |= {line.split(': ')[0] for line in nested.difference(*pair)}
  return tuple(sorted(fields))


def prepare(runs: Sequence[progress.Planned]) -> None:
  """Checks before the first run that every run can be evaluated; prepares the data."""
  from pe_research.data import texts
  from pe_research.evaluation import measures  # slow to import, and a config may have been bad

  for run in runs:
    run_folder.check_config(run.workdir, run.config)
  config = runs[0].config
  measures.plan(texts.load(config), config)


@contextlib.contextmanager
def monitored(runs: Sequence[progress.Planned]) -> Iterator[progress.Monitor]:
  """Prepares the runs, then shows their progress."""
  from experiments.studies import progress

  prepare(runs)
  with progress.Monitor(runs) as monitor:
    yield monitor


def as_study(runs: Sequence[progress.Planned], arguments: argparse.Namespace) -> study.Study:
  """The jobs of the runs and their comparison; ValueError if the explorer cannot show them."""
  if arguments.explorer:
    from pe_research.show import explorer  # slow to import, and a config may have been bad

    explorer.check({run.job.name: run.config for run in runs}, [])
  comparison = study.Comparison(
    arguments.workdir,
    tuple(run.workdir for run in runs),
    may_differ=varied(runs),
    allowed=tuple(arguments.allow_different),
    explorer=arguments.explorer,
  )
  jobs = tuple(dict.fromkeys(run.job for run in runs))
  return study.Study(arguments.workdir, jobs, (comparison,))


def main(argv: list[str]) -> int:
  """Runs, compares and reports; returns the exit status."""
  with exits.errors():
    arguments, overrides = parse(argv)
    runs = plan(arguments, overrides)
    return run_study(lambda given: as_study(runs, given), arguments, lambda: monitored(runs))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
