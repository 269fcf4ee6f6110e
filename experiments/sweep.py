"""Trains and evaluates a grid of schemes and seeds, then compares and reports.

  python -m experiments.sweep --positions=rope,alibi --seeds=0,1 --workdir=results/mine \\
    --config=configs/lm.py:length=128 --config.steps=3000

Without arguments it is the demo. Interrupted, the same command goes on where it was.
"""

import argparse
import pathlib
import signal
import sys

from experiments import compare, demo, progress, report
from launch import local
from pe_research import cli, configs, records


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
  """Flags of the sweep, and the --config.x=y overrides that every run gets."""
  parser = cli.parser('experiments.sweep', __doc__)
  names = lambda text: tuple(text.split(','))
  parser.add_argument('--config', default=demo.CONFIG, help='FILE[:name=value,...]')
  parser.add_argument('--positions', type=names, default=demo.POSITIONS, help='a,b,...')
  parser.add_argument('--seeds', type=cli.integers, default=demo.SEEDS, help='0,1,...')
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path(demo.WORKDIR))
  parser.add_argument('--workers', type=int, default=0, help='0: one a core, or one accelerator')
  parser.add_argument('--allow-different', action='append', default=[], metavar='FIELD')
  return parser.parse_known_args(argv)


def plan(arguments: argparse.Namespace, overrides: list[str]) -> list[progress.Planned]:
  """A run for each scheme and seed, its config resolved and checked."""
  for name, given in (('--positions', arguments.positions), ('--seeds', arguments.seeds)):
    if len(set(given)) < len(given):
      raise ValueError(f'{name} names one twice: {",".join(map(str, given))}.')
  runs = []
  for seed in arguments.seeds:
    for position in arguments.positions:
      joint = ',' if ':' in arguments.config else ':'
      config = f'{arguments.config}{joint}position={position},seed={seed}'
      flags = [f'--config={config}', *overrides]
      workdir = arguments.workdir / 'runs' / f'{position}_seed{seed}'
      resolved = configs.resolve(cli.read_config(flags))
      command = ('-m', 'pe_research.main', *flags, f'--workdir={workdir}')
      job = local.Job(workdir.name, command, workdir / 'log.txt', workdir / 'done.json')
      runs.append(progress.Planned(job, workdir, resolved))
  return runs


def prepare(runs: list[progress.Planned]) -> None:
  """Finds out before the first run whether the last one could be evaluated; prepares the data."""
  from pe_research import data, measures  # slow to import, and a config may have been bad

  for run in runs:
    records.check_config(run.workdir, run.config)
  config = runs[0].config
  measures.plan(data.load(config), config)


def main(argv: list[str]) -> int:
  """Runs, compares, reports; the exit status says whether all of it worked."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: workers save and leave
  with cli.errors():
    arguments, overrides = parse(argv)
    runs = plan(arguments, overrides)
    with records.claim(arguments.workdir):
      prepare(runs)
      try:
        with progress.Monitor(runs) as monitor:
          failed = local.run([run.job for run in runs], monitor, arguments.workers)
      except KeyboardInterrupt:
        print('stopped; the same command goes on from here')
        return 130
      for run in runs:
        if run.job.name in failed:
          print(local.last_words(run.job), file=sys.stderr)
      if failed:
        return 1
      finished = compare.load([run.workdir for run in runs])
      marks = compare.check(finished, arguments.allow_different)
      report.publish(finished, arguments.workdir, marks)
  return 0


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
