"""Kills commands, damages what they read and fills their disks, at random instants of a seed.

What was killed is run again and must end in the same bits; what was damaged must be refused by
name, or make no difference. Prints each loss and a table of what was tried.
"""

import argparse
import collections
import concurrent.futures
import importlib
import itertools
import multiprocessing
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator

from experiments.faults import forks, trials, works
from pe_research.common import checks
from pe_research.settings import cli

BEFORE = (  # imported before the first fork; the commands import them late
  'experiments.report.writer', 'experiments.studies.runner', 'pe_research.evaluation.evaluate',
  'pe_research.search.run', 'pe_research.training.loop', 'pe_research.training.run_record',
  'pe_research.model.generation', 'pe_research.machines.heartbeat',
)  # fmt: skip
AHEAD = 2  # trials that wait for each core
drawn: trials.Trials  # of a process of the pool


def run(given: argparse.Namespace) -> int:
  """Trials for so many minutes; the exit status is 1 if something was lost."""
  checks.at_least('--minutes', given.minutes, 0)
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = 'true'  # compiles in a third of the time
  for module in BEFORE:
    importlib.import_module(module)
  for work in (*works.WRITERS.values(), *works.READERS.values()):
    forks.entry(work.command[0])
  home = pathlib.Path(tempfile.mkdtemp(prefix='faults-', dir=given.workdir)).absolute()
  cores = sorted(os.sched_getaffinity(0))
  results = []
  # Processes of the pool are forked now, from this process, which computes nothing.
  with concurrent.futures.ProcessPoolExecutor(
    len(cores), multiprocessing.get_context('fork'), _begin, (home, given.seed, cores)
  ) as pool:
    for made in [pool.submit(works.make, home, seed) for seed in (0, 1)]:
      made.result()
    began = time.monotonic()
    for result in _results(pool, given, AHEAD * len(cores)):
      results.append(result)
      if result.lost:
        print(f'lost: trial {result.number}, {result.kind}, {result.command}: {result.lost}\n'
              f'  python -m experiments.bench faults --seed={given.seed} --trial={result.number}'
              f'; {home}/trial{result.number} is kept', flush=True)  # fmt: skip
  minutes = (time.monotonic() - began) / 60
  print('\n'.join(table(results)))
  print(f'{sum(result.faults for result in results)} faults in {minutes:.1f} minutes, '
        f'seed {given.seed}')  # fmt: skip
  lost = any(result.lost for result in results)
  if not lost:
    shutil.rmtree(home)
  return int(lost)


def _results(pool, given: argparse.Namespace, most: int) -> Iterator[trials.Result]:
  """Results as they come, of at most so many trials at once, until the minutes are over."""
  end = time.monotonic() + 60 * given.minutes
  numbers = itertools.count() if given.trial is None else iter([given.trial])
  waiting: set[concurrent.futures.Future] = set()
  while True:
    if time.monotonic() < end or given.trial is not None:
      more = itertools.islice(numbers, most - len(waiting))
      waiting |= {pool.submit(_trial, number) for number in more}
    if not waiting:
      return
    done, waiting = concurrent.futures.wait(waiting, return_when='FIRST_COMPLETED')
    yield from (one.result() for one in done)


def _begin(home: pathlib.Path, seed: int, cores: list[int]) -> None:
  """In a process of the pool: a core of its own, so that all compile the same programs."""
  global drawn
  drawn = trials.Trials(home, seed)
  mine = multiprocessing.current_process()._identity[0] - 1
  os.sched_setaffinity(0, {cores[mine % len(cores)]})


def _trial(number: int) -> trials.Result:
  return drawn.run(number)


def table(results: list[trials.Result]) -> list[str]:
  """Lines: what was tried, survived and lost of each kind of fault and command, and in all."""
  counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
  for result in results:
    for command in (result.command, 'all'):
      counts[result.kind, command][0] += result.faults
      counts[result.kind, command][1] += bool(result.lost)
  rows = [['kind', 'command', 'tried', 'survived', 'lost']]
  for (kind, command), (tried, lost) in sorted(counts.items()):
    rows.append([kind, command, str(tried), str(tried - lost), str(lost)])
  return cli.aligned(rows)
