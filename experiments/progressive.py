"""LongRoPE's progressive extension: search, fine-tune, search again, recover short contexts.

  python -m experiments.progressive --workdir=results/progressive

Trains a base model at 128 tokens and extends it to 8,192 (arXiv:2402.13753, sec. 3.3). Each stage
searches factors and, but for the last, fine-tunes with them. A final search finds factors for texts
of the first training length. Every stage is evaluated on the same targets. If interrupted, the same
command resumes where it stopped.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import TYPE_CHECKING

from experiments import finetune
from experiments.report.run_study import run_study
from experiments.studies import study
from pe_research.common import checks
from pe_research.settings import cli

if TYPE_CHECKING:
  from experiments.studies.measured import Run
  from experiments.studies.study import Study
  from launch.job import Job

BASE = (
  '--config=configs/lm.py:position=rope,length={length}',
  '--config.model.width=128',
  '--config.eval.windows=64',
)
LONG = 2048  # tokens from which a full search costs too much
SMALL_SEARCH = (  # the paper halves its search from 512k on, and stops early (sec. 4.1, fig. 6)
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
  parser.add_argument(
    '--run', type=pathlib.Path, metavar='DIR', help='a trained run of RoPE; default: trains one'
  )
  parser.add_argument(
    '--length', type=int, metavar='N',
    help='training length of the base, tokens; default: 128, or that of RUN',
  )  # fmt: skip
  parser.add_argument(
    '--factors', type=cli.numbers, default=(4.0, 4.0, 2.0, 2.0), metavar='A,B',
    help='length of each stage over that of the stage before; default: 4,4,2,2',
  )  # fmt: skip
  parser.add_argument(
    '--share', type=float, default=10.0, metavar='A',
    help='percent of the training tokens that each stage is fine-tuned on; default: 10',
  )  # fmt: skip
  study.add_flags(parser, 'results/progressive')
  return parser.parse_args(argv)


def check(given: argparse.Namespace) -> None:
  """Fills in the length; ValueError for a bad flag."""
  trained = study.base_config(given.run) if given.run else None
  if trained and given.length not in (None, trained['length']):
    raise ValueError(
      f'--length is {given.length}, and {given.run} was trained at {trained["length"]} tokens; '
      'leave --length out.'
    )
  if given.length is None:
    given.length = trained['length'] if trained else 128
  checks.at_least('--length', given.length, 8, 'tokens')
  for factor in given.factors:
    if not 1 < factor < float('inf'):
      raise ValueError(f'--factors has {factor:g}; a stage extends by more than 1.')
  if len(given.factors) < 2:
    raise ValueError(
      f'--factors has {len(given.factors)} stage; the last is not trained, so give at least two.'
    )
  if not 0 < given.share < float('inf'):
    raise ValueError(f'--share is {given.share:g}; it must be a positive number of percent.')


class Stages:
  """The jobs of the extension, each after the one before."""

  def __init__(self, given: argparse.Namespace):
    """Computes the lengths; there are no jobs yet."""
    self.given, self.folder = given, given.workdir
    self.lengths = [given.length]
    for factor in given.factors:
      self.lengths.append(round(self.lengths[-1] * factor))
    self.measured = study.doubled_lengths(given.length, (self.lengths[-1] / given.length / 2,))
    self.jobs: list[Job] = []
    self.runs: list[pathlib.Path] = []

  def _add(self, job: Job) -> pathlib.Path:
    self.jobs.append(job)
    return job.done

  def _after(self) -> tuple[pathlib.Path, ...]:
    return (self.jobs[-1].done,) if self.jobs else ()

  def base(self) -> pathlib.Path:
    """The run to start from, trained first unless the flags name one."""
    if self.given.run:
      return self.given.run
    flags = [flag.format(length=self.given.length) for flag in BASE]
    flags.append(f'--config.eval.lengths={self.measured}')
    return self._add(study.train('base', self.folder / 'base', flags)).parent

  def search(self, run: pathlib.Path, factor: float, length: int, *flags: str) -> pathlib.Path:
    """The file of factors that a search finds for a run and texts of `length` tokens."""
    name = f'search_{length}' + ('_short' if flags else '')
    flags = (*(SMALL_SEARCH if length >= LONG else ()), *flags)
    return self._add(study.search(name, self.folder / name, run, factor, flags, self._after()))

  def evaluate(self, run: pathlib.Path, position: str, name: str, label: str) -> None:
    """Evaluates a run under a scheme at every length."""
    into, lengths = self.folder / 'runs' / name, ','.join(map(str, self.measured))
    flags = (f'--position={position}', f'--lengths={lengths}', f'--label={label}')
    self._add(study.evaluate(f'evaluate_{name}', into, run, flags, self._after()))
    self.runs.append(into)

  def tune(self, run: pathlib.Path, total: float, length: int, file: pathlib.Path) -> pathlib.Path:
    """The run that is fine-tuned at `length` tokens with the factors of a file."""
    workdir = self.folder / 'runs' / f'tuned_{length}'
    arguments = f'start={run},recipe=extend,factor={total:g},share={self.given.share:g},file={file}'
    flags = (
      f'--config=configs/finetune.py:{arguments}',
      f'--config.eval.lengths={self.measured}',
      f'--config.run.label=tuned at {length}',
    )
    self._add(study.train(workdir.name, workdir, flags, self._after()))
    self.runs.append(workdir)
    return workdir


def plan(given: argparse.Namespace) -> Study:
  """All stages, each after the one before it; ValueError for a bad flag."""
  check(given)
  stages = Stages(given)
  run = stages.base()
  stages.evaluate(run, 'rope', 'base', 'base, raw RoPE')
  for factor, length in zip(given.factors, stages.lengths[1:], strict=True):
    file = stages.search(run, factor, length)
    stages.evaluate(run, f'longrope:file={file}', f'searched_{length}', f'searched for {length}')
    if length != stages.lengths[-1]:
      run = stages.tune(run, length / given.length, length, file)
  flags = (f'--target-length={given.length}', f'--short-of={file}')
  short = stages.search(run, stages.lengths[-2] / given.length, given.length, *flags)
  stages.evaluate(run, f'longrope:file={short}', 'recovered', 'short contexts recovered')
  differ = ('config.optimizer.', *finetune.DIFFER)  # stages of one model
  comparison = study.Comparison(given.workdir, tuple(stages.runs), differ)
  settings = 'progressive.json', study.settings(given)
  return study.Study(given.workdir, tuple(stages.jobs), (comparison,), settings)


def main(argv: list[str]) -> int:
  """Runs the stages, reports, and prints what the extension costs."""
  given = parse(argv)

  def finish(planned: Study) -> None:
    from experiments.studies import comparability

    runs, lengths = comparability.load(planned.comparisons[0].runs), Stages(given).lengths
    print(loss_increase(runs, *lengths[:2], lengths[-1]))

  return run_study(plan, given, finish=finish)


def loss_increase(runs: list[Run], first: int, middle: int, last: int) -> str:
  """The increase in loss on long and short contexts by the extension, nats/token."""
  from experiments.studies import measured

  base, *_, end = measured.select(runs).rows
  return (
    f'NLL({last}) - NLL({middle}) = {_loss(end, last) - _loss(end, middle):+.4f} nats/token\n'
    f'NLL({first}) - that of the base = {_loss(end, first) - _loss(base, first):+.4f} nats/token'
  )


def _loss(rows: list[dict], length: int) -> float:
  return next(row['value'] for row in rows if row['eval_length'] == length)


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
