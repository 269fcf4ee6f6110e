"""LongRoPE's progressive extension, whole: search, fine-tune, search again, recover short contexts.

  python -m experiments.progressive --workdir=results/progressive

Trains a base model at 128 tokens and takes it to 8,192 (arXiv:2402.13753, sec. 3.3): at each factor
the weights get searched factors, and after each but the last they are fine-tuned with them. A last
search finds factors for texts as short as those of the first training. Every stage is evaluated on
the same targets. If interrupted, the same command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from experiments import finetune, stretch
from launch import local
from launch.job import Job
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli

if TYPE_CHECKING:
  from experiments.studies.measured import Run

BASE = (
  '--config=configs/lm.py:position=rope,length={length}',
  '--config.model.width=128',
  '--config.eval.windows=64',
)
LONG = 2048  # tokens from which on a candidate is too dear for the whole search
CURTAILED = (  # as the paper halves it from 512k on, and stops early (sec. 4.1, fig. 6)
  '--population=32',
  '--mutations=8',
  '--crossovers=8',
  '--parents=16',
  '--iterations=15',
  '--documents=3',
  '--held-out=9',
)


def parse(argv: list[str]) -> argparse.Namespace:
  """Flags."""
  parser = cli.parser('experiments.progressive', __doc__)
  path = {'type': pathlib.Path, 'metavar': 'DIR'}
  parser.add_argument('--run', **path, help='a trained run of RoPE; default: trains one')
  parser.add_argument('--workdir', **path, default=pathlib.Path('results/progressive'))
  parser.add_argument('--length', type=int, help='tokens, to train at; default 128, or that of RUN')
  parser.add_argument('--factors', type=cli.numbers, default=(4.0, 4.0, 2.0, 2.0), help='a,b,...')
  parser.add_argument(
    '--share', type=float, default=10.0, help='of training, a fine-tuning, percent'
  )
  return parser.parse_args(argv)


def check(given: argparse.Namespace) -> None:
  """Settles the length; raises ValueError before any work where flags make no sense."""
  from pe_research.runs import lineage  # slow to import, and --help needs none of it

  trained = run_folder.load_config(given.run) if given.run else None
  if trained:
    lineage.check_plain(trained, given.run)
    if given.length not in (None, trained['length']):
      raise ValueError(
        f'--length is {given.length}, and {given.run} was trained at {trained["length"]} tokens; '
        'leave --length out.'
      )
  if given.length is None:
    given.length = trained['length'] if trained else 128
  checks.at_least('--length', given.length, 8, 'tokens')
  for factor in given.factors:
    if not 1 < factor < float('inf'):
      raise ValueError(f'--factors has {factor:g}; a stage stretches by more than 1.')
  if len(given.factors) < 2:
    raise ValueError(
      f'--factors has {len(given.factors)} stage; the last is not trained, so two are the least.'
    )
  if not 0 < given.share < float('inf'):
    raise ValueError(f'--share is {given.share:g}; it must be a positive number of percent.')


class Pipeline:
  """Jobs one after another; each is skipped where it is done already."""

  def __init__(self, given: argparse.Namespace):
    """Settles the lengths."""
    self.given, self.folder = given, given.workdir
    self.lengths = [given.length]
    for factor in given.factors:
      self.lengths.append(round(self.lengths[-1] * factor))
    self.measured = stretch.lengths(given.length, (self.lengths[-1] / given.length / 2,))
    self.runs: list[pathlib.Path] = []

  def do(self, workdir: pathlib.Path, *command: str, done: str = 'done.json') -> pathlib.Path:
    """Runs `python -m command --workdir=...` and returns the file that it writes last."""
    job = Job(workdir.name, ('-m', *command), workdir / 'log.txt', workdir / done)
    local.finish([job])
    return job.done

  def base(self) -> pathlib.Path:
    """The run to begin with."""
    if self.given.run:
      return self.given.run
    workdir, lengths = self.folder / 'base', f'--config.eval.lengths={tuple(self.measured)}'
    base = [flag.format(length=self.given.length) for flag in BASE]
    self.do(workdir, 'pe_research.main', *base, lengths, f'--workdir={workdir}')
    return workdir

  def search(self, run: pathlib.Path, factor: float, length: int, *flags: str) -> pathlib.Path:
    """The factor file of a search on a run, for texts of `length` tokens."""
    name = f'search_{length}' + ('_short' if flags else '')
    workdir, size = self.folder / name, CURTAILED if length >= LONG else ()
    command = ('pe_research.search', f'--run={run}', f'--factor={factor:g}', *size, *flags)
    return self.do(workdir, *command, f'--workdir={workdir}', done='factors.json')

  def evaluate(self, run: pathlib.Path, position: str, name: str, label: str) -> None:
    """Loss at every length, of a run under a scheme."""
    into, lengths = self.folder / 'runs' / name, ','.join(map(str, self.measured))
    command = ('pe_research.evaluate', f'--workdir={run}', f'--position={position}')
    self.do(into, *command, f'--into={into}', f'--lengths={lengths}', f'--label={label}')
    self.runs.append(into)

  def tune(self, run: pathlib.Path, total: float, length: int, file: pathlib.Path) -> pathlib.Path:
    """The run fine-tuned at `length` tokens with the factors of a file."""
    workdir = self.folder / 'runs' / f'tuned_{length}'
    arguments = f'start={run},recipe=extend,factor={total:g},share={self.given.share:g},file={file}'
    self.do(
      workdir,
      'pe_research.main',
      f'--config=configs/finetune.py:{arguments}',
      f'--config.eval.lengths={tuple(self.measured)}',
      f'--config.run.label=tuned at {length}',
      f'--workdir={workdir}',
    )
    self.runs.append(workdir)
    return workdir


def main(argv: list[str]) -> int:
  """Runs the pipeline and reports."""
  given = parse(argv)
  from experiments.report import writer
  from experiments.studies import comparability

  with exits.errors():
    check(given)
    run_folder.settle(given.workdir / 'progressive.json', stretch.settings(given))
    pipeline = Pipeline(given)
    run = pipeline.base()
    pipeline.evaluate(run, 'rope', 'base', 'base, raw RoPE')
    first = given.length
    for factor, length in zip(given.factors, pipeline.lengths[1:], strict=True):
      file = pipeline.search(run, factor, length)
      label = f'searched for {length}'
      pipeline.evaluate(run, f'longrope:file={file}', f'searched_{length}', label)
      if length != pipeline.lengths[-1]:
        run = pipeline.tune(run, length / first, length, file)
    tuned = pipeline.lengths[-2] / first
    flags = (f'--target-length={first}', f'--short-of={file}')
    short = pipeline.search(run, tuned, first, *flags)
    pipeline.evaluate(run, f'longrope:file={short}', 'recovered', 'short contexts recovered')
    runs = comparability.load(pipeline.runs)
    differing = dict.fromkeys(found.field for found in comparability.differences(runs))
    stages = ('config.optimizer.', *finetune.DIFFER)  # one line of descent, trained in stages
    marks = comparability.check(runs, [field for field in differing if field.startswith(stages)])
    print(goals(runs, first, pipeline.lengths[1], pipeline.lengths[-1]))
    writer.publish(runs, given.workdir, marks)
  return 0


def goals(runs: list[Run], first: int, middle: int, last: int) -> str:
  """What long and short contexts cost in the end, nats/token on the same targets."""
  from experiments.studies import measured

  loss = lambda rows, n: next(row['value'] for row in rows if row['eval_length'] == n)
  base, *_, end = measured.used(runs).rows
  return (
    f'NLL({last}) - NLL({middle}) = {loss(end, last) - loss(end, middle):+.4f} nats/token\n'
    f'NLL({first}) - that of the base = {loss(end, first) - loss(base, first):+.4f} nats/token'
  )


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
