"""A study as data: the jobs that make its runs, and the runs that its reports compare.

Sweeps, stretching, fine-tuning and progressive extension are studies, which carry_out.py runs. A
claim adds tests.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from launch.job import Job
from pe_research.runs import run_folder
from pe_research.storage import files, paths


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Runs that one report compares.

  Attributes:
    folder: of the report.
    runs: their workdirs, in the order of the report.
    may_differ: fields in which they differ by design; 'config.optimizer.' is all of its fields.
    allowed: fields in which a flag allows them to differ.
    explorer: whether a page to explore the runs is written too.
  """

  folder: pathlib.Path
  runs: tuple[pathlib.Path, ...]
  may_differ: tuple[str, ...] = ()
  allowed: tuple[str, ...] = ()
  explorer: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
  """Jobs, and the comparisons of their runs.

  Attributes:
    workdir: folder of all files.
    jobs: each with the files that it waits for.
    comparisons: one for each report.
    settings: (file in `workdir`, everything that determines the results), which must be the same
      when the study resumes. None: the configs of its runs determine them.
  """

  workdir: pathlib.Path
  jobs: tuple[Job, ...]
  comparisons: tuple[Comparison, ...] = ()
  settings: tuple[str, Mapping[str, Any]] | None = None


def train(name: str, workdir: pathlib.Path, flags: Sequence[str], after: Sequence = ()) -> Job:
  """Trains a config, given by flags of pe_research.main."""
  command = ('-m', 'pe_research.main', *flags, f'--workdir={workdir}')
  return Job(name, command, workdir / 'log.txt', workdir / 'done.json', tuple(after))


def search(
  name: str,
  workdir: pathlib.Path,
  run: pathlib.Path,
  factor: float,
  flags: Sequence[str] = (),
  after: Sequence = (),
) -> Job:
  """Searches LongRoPE's factors, to extend a run by `factor`."""
  command = ('-m', 'pe_research.search', f'--run={run}', f'--factor={factor:g}')
  command += (f'--workdir={workdir}', *flags)
  return Job(name, command, workdir / 'log.txt', workdir / 'factors.json', tuple(after))


def evaluate(
  name: str, into: pathlib.Path, run: pathlib.Path, flags: Sequence[str], after: Sequence = ()
) -> Job:
  """Evaluates a run under another scheme, given by flags of pe_research.evaluate."""
  command = ('-m', 'pe_research.evaluate', f'--workdir={run}', *flags, f'--into={into}')
  return Job(name, command, into / 'log.txt', into / 'done.json', tuple(after))


def add_flags(
  parser: argparse.ArgumentParser,
  workdir: str | None,
  workdir_help: str = 'folder of the runs and the report; default: %(default)s',
) -> None:
  """Adds the flags of every study; `workdir` is the default of its folder."""
  parser.add_argument(
    '--workdir', type=paths.place, metavar='DIR', help=workdir_help,
    default=workdir and pathlib.Path(workdir),
  )  # fmt: skip
  parser.add_argument(
    '--workers', type=int, default=0, metavar='N',
    help='jobs at a time; 0: one for each core, or for each accelerator',
  )  # fmt: skip
  parser.add_argument('--dry-run', action='store_true', help='print the commands, run nothing')
  parser.add_argument(
    '--jobs', type=paths.place, metavar='FILE',
    help='write the jobs to a file for python -m launch, run nothing',
  )  # fmt: skip


def add_run(parser: argparse.ArgumentParser) -> None:
  """Adds --run, for a study of one run."""
  parser.add_argument(
    '--run', type=paths.place, metavar='DIR', required=True, help='a trained run of RoPE'
  )


def base_config(run: pathlib.Path) -> dict[str, Any]:
  """The resolved config of a trained run; ValueError unless its scheme can be extended."""
  from pe_research.runs import lineage  # slow to import, and --help needs none of it
  from pe_research.settings import configs

  config = configs.resolve(configs.anywhere(run_folder.load_config(run)))
  lineage.check_plain(config, run)
  return config


def doubled_lengths(length: int, factors: Sequence[float]) -> tuple[int, ...]:
  """The training length in tokens, doubled up to twice the longest target."""
  doubled = [length]
  while doubled[-1] * 2 <= 2 * max(factors) * length:
    doubled.append(doubled[-1] * 2)
  return tuple(doubled)


def settings(given: argparse.Namespace) -> dict[str, Any]:
  """What determines the results of a study of one run: its weights and the flags."""
  without = ('workdir', 'workers', 'jobs', 'dry_run')
  flags = {name: value for name, value in vars(given).items() if name not in without}
  record = files.read_json(given.run / 'run.json') if given.run else None
  return flags | {'weights': (record or {}).get('final_parameters')}
