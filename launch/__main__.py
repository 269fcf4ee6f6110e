"""Carries out a file of jobs, which `--jobs=FILE` of a sweep or of claims writes.

  python -m launch run jobs.json                          here, a worker a core or an accelerator
  python -m launch submit gs://mine/jobs.json --on=v5e.toml --dry-run
  python -m launch status jobs.json
  python -m launch retry jobs.json                        what failed, stopped or hangs; or --on
  python -m launch collect jobs.json --into=results/home  configs, records and rows, no checkpoints

A job is done when its mark is there, and then never runs again, whoever asks.
"""

import argparse
import pathlib
import signal
import sys
from collections.abc import Iterable, Sequence
from concurrent import futures

from launch import devices, job, job_status, local, submit
from launch.engines import base
from launch.job import Job
from pe_research.common import checks
from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import paths

ROWS = ('*.json', '*.jsonl')  # what `collect` brings home of a run
BAD = (job_status.FAILED, job_status.STALLED, job_status.STOPPED)  # what `retry` is for
THREADS = 16  # that ask after jobs at once, each of which may lie in a bucket


def parser() -> argparse.ArgumentParser:
  """The commands with the flags of each."""
  made = cli.parser('launch', __doc__)
  commands = made.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, does in COMMANDS.items():
    one = commands.add_parser(name, help=does.__doc__.partition('\n')[0], allow_abbrev=False)
    one.add_argument('jobs', help='file of jobs')
    for flag in FLAGS[name]:
      one.add_argument(flag, **OPTIONS[flag], required=(name, flag) in NEEDED)
  return made


def share(text: str) -> tuple[int, int]:
  """The type of --share: '3/8' is the fourth of eight."""
  part, _, whole = text.partition('/')
  if not (part.isdigit() and whole.isdigit() and int(part) < int(whole)):
    raise argparse.ArgumentTypeError(f'{text!r} is not understood; write 3/8 for the fourth of 8.')
  return int(part), int(whole)


HERE = {  # of jobs on this machine
  '--share': {'type': share, 'metavar': 'I/N', 'help': 'of the jobs; default: all'},
  '--all-chips': {'action': 'store_const', 'const': True, 'help': 'one job at a time has all'},
  '--hosts': {'type': int, 'help': 'machines that run this same command; default: 1'},
  '--workers': {'type': int, 'help': 'default: one a core, or one an accelerator'},
  '--tries': {'type': int, 'help': 'times in a row that a job may stop where it stopped before; '
              f'default: {job_status.TRIES}'},
}  # fmt: skip
OPTIONS = HERE | {
  '--on': {'type': pathlib.Path, 'metavar': 'FILE.toml', 'help': 'engine, see launch/README.md'},
  '--again': {'action': 'store_true', 'help': 'with --on, also what was submitted since'},
  '--patience': {
    'type': float,
    'default': job_status.PATIENCE,
    'help': 'seconds of silence: stalled',
  },
  '--into': {'type': pathlib.Path, 'metavar': 'DIR', 'help': 'of this machine'},
  '--dry-run': {'action': 'store_true', 'help': 'print what would be done'},
}
FLAGS = {
  'run': (*HERE, '--dry-run'),
  'submit': ('--on', '--dry-run'),
  'status': ('--patience',),
  'retry': (*HERE, '--on', '--again', '--patience', '--dry-run'),
  'collect': ('--into', '--dry-run'),
}
NEEDED = {('submit', '--on'), ('collect', '--into')}


def run(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Does the jobs of a share here, says what is not done, and returns state.status of that."""
  tries = job_status.TRIES if given.tries is None else given.tries
  hosts, workers = given.hosts if given.hosts is not None else 1, given.workers
  checks.at_least('--tries', tries, 1)
  checks.at_least('--hosts', hosts, 1)
  checks.at_least('--workers', 1 if workers is None else workers, 1)
  base.check_hosts(given.jobs, hosts, bool(given.all_chips))
  index, count = given.share or (0, 1)
  rank, shares = devices.rank(hosts), job.shares(jobs, count)
  own = shares[index] if index < len(shares) else []
  if given.dry_run:
    print(local.show(own, workers or 0, bool(given.all_chips)))
    return 0
  signal.signal(signal.SIGTERM, _leave)
  try:
    if given.all_chips:
      left = local.on_all_chips(own, rank, tries)
    else:
      left = local.run(own, lambda: None, workers or 0, tries=tries)
  except KeyboardInterrupt:
    print('stopped; the same command resumes')
    return exits.STOPPED
  for one in own:
    if one.name in left:
      print(job_status.last_words(one, left[one.name]), file=sys.stderr)
  print(f'{sum(one.done.exists() for one in own)} of {len(own)} jobs done')
  ended = job_status.status(left)
  if ended == exits.STOPPED:
    print('some have not finished; the same command resumes them')
  return ended


def _leave(number: int, _) -> None:
  """As Ctrl-C, once: who stops a whole tree of processes may reach this one twice."""
  signal.signal(number, signal.SIG_IGN)
  raise KeyboardInterrupt


def hand_in(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Submits the jobs that are not done to an engine, or prints what it would submit."""
  wanted = [one for one in jobs if not one.done.exists()]
  if not wanted:
    print('all jobs are done')
    return 0
  return submit.hand_in(given.jobs, given.on, jobs, wanted, given.dry_run)


def states(jobs: Sequence[Job], patience: float) -> list[job_status.State]:
  """Of each."""
  checks.at_least('--patience', patience, 1, 'seconds')
  with futures.ThreadPoolExecutor(THREADS) as pool:
    return list(pool.map(lambda one: job_status.of(one, patience), jobs))


def status(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Prints a line a job; 0 where all are done."""
  found = states(jobs, given.patience)
  print(job_status.table(jobs, found))
  return 0 if all(one.name == job_status.DONE for one in found) else 1


def retry(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Runs, or submits, what failed, stopped or stalled; here also what waited for it."""
  found = states(jobs, given.patience)
  again = [one for one, known in zip(jobs, found, strict=True) if known.name in BAD]
  if not given.on:
    left = sum(known.name != job_status.DONE for known in found)
    _say(given, f'{left} of {len(jobs)} jobs are not done; again: {_listed(again)}')
    return run(given, jobs)
  here = [flag for flag in HERE if vars(given)[flag[2:].replace('-', '_')] is not None]
  if here:
    raise ValueError(
      f'{here[0]} is for jobs that run here; with --on the file of the engine says how they run '
      'there.'
    )
  if not given.again:
    waiting = submit.queued(given.jobs, given.on, jobs, again)
    again = [one for one in again if one not in waiting]
    if waiting:
      left = 'submitted since, and left in the queue (--again submits it once more)'
      _say(given, f'{left}: {_listed(waiting)}')
  _say(given, f'{len(again)} of {len(jobs)} jobs to run again: {_listed(again)}')
  return submit.hand_in(given.jobs, given.on, jobs, again, given.dry_run) if again else 0


def _listed(jobs: Sequence[Job]) -> str:
  return ', '.join(one.name for one in jobs) or 'none'


def _say(given: argparse.Namespace, text: str) -> None:
  """Prints it; of a dry run, what it prints is for a shell."""
  print(f'# {text}' if given.dry_run else text, flush=True)


def collect(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Copies configs, records and rows of all runs into a folder of this machine."""
  copies = list(_copies(jobs, paths.place(given.jobs).parent, given.into))
  for path, target in copies:
    if given.dry_run:
      print(f'{path} -> {target}')
      continue
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
  if not given.dry_run:
    print(f'wrote {len({path.parent for path, _ in copies})} runs into {given.into}')
  return 0


def _copies(
  jobs: Sequence[Job], root: pathlib.Path, into: pathlib.Path
) -> Iterable[tuple[pathlib.Path, pathlib.Path]]:
  """What `collect` copies, and where to: as it lies beside the file of jobs.

  Raises:
    ValueError: a folder lies elsewhere.
  """
  # Jobs of one folder share what is in it.
  for folder in dict.fromkeys(path for one in jobs for path in (one.folder, *one.others)):
    if not folder.is_relative_to(root):
      raise ValueError(
        f'{folder} is not below {root}, where the file of jobs is; move that file to where the '
        'folders of its jobs are.'
      )
    for pattern in ROWS:
      for path in folder.glob(pattern):
        yield path, into / str(folder.relative_to(root)) / path.name


COMMANDS = {
  'run': run, 'submit': hand_in, 'status': status, 'retry': retry, 'collect': collect,
}  # fmt: skip


def main(argv: list[str]) -> int:
  """Does what the command says."""
  given = parser().parse_args(argv)
  with exits.errors():
    return COMMANDS[given.command](given, job.read(paths.place(given.jobs)))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
