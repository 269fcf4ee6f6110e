"""Runs the jobs of a file, which `--jobs=FILE` of a sweep or of claims writes.

  python -m launch run jobs.json                          here, a worker per core or accelerator
  python -m launch submit gs://mine/jobs.json --on=v5e.toml --dry-run
  python -m launch status jobs.json
  python -m launch retry jobs.json                        those that failed, stopped or stalled
  python -m launch collect jobs.json --into=results/home  configs, records and rows, no checkpoints

A job is done when the last file that it writes exists, and is then never run again.
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

COLLECTED = ('*.json', '*.jsonl')  # files of a run that `collect` copies
UNFINISHED = (job_status.FAILED, job_status.STALLED, job_status.STOPPED)  # states that `retry` runs
THREADS = 16  # concurrent requests for the states of jobs, which may be in a bucket


def parser() -> argparse.ArgumentParser:
  """The commands with the flags of each."""
  top = cli.parser('launch', __doc__)
  commands = top.add_subparsers(dest='command', required=True, metavar='COMMAND')
  for name, (_, flags, text) in COMMANDS.items():
    command = commands.add_parser(name, help=text, description=f'{text}.', allow_abbrev=False)
    command.add_argument('jobs', metavar='JOBS', help='file of jobs; a path, gs:// or s3://')
    for flag in flags:
      command.add_argument(flag, **OPTIONS[flag], required=(name, flag) in REQUIRED)
  return top


def share(text: str) -> tuple[int, int]:
  """The type of --share: '3/8' is the fourth of eight."""
  part, _, whole = text.partition('/')
  if not (part.isdigit() and whole.isdigit() and int(part) < int(whole)):
    raise argparse.ArgumentTypeError(f'{text!r} is not understood; write 3/8 for the fourth of 8.')
  return int(part), int(whole)


HERE = {  # for jobs on this machine
  '--share': {
    'type': share, 'metavar': 'I/N',
    'help': 'run part I, from 0, of the jobs cut into N parts (default: all jobs)',
  },
  '--all-chips': {
    'action': 'store_const', 'const': True,
    'help': 'one job at a time, on all accelerators (default: one job on each)',
  },
  '--hosts': {
    'type': int, 'metavar': 'N', 'help': 'machines that run this same command (default: 1)',
  },
  '--workers': {
    'type': int, 'metavar': 'N',
    'help': 'jobs at a time (default: one per accelerator, or per core)',
  },
  '--tries': {
    'type': int, 'metavar': 'N',
    'help': 'a job that stops N times in a row without progress has failed '
    f'(default: {job_status.TRIES})',
  },
}  # fmt: skip
OPTIONS = HERE | {
  '--on': {
    'type': pathlib.Path, 'metavar': 'FILE.toml',
    'help': 'engine that runs the jobs and its settings, see launch/README.md',
  },
  '--again': {
    'action': 'store_true', 'help': 'with --on: also jobs that were submitted and have not begun',
  },
  '--patience': {
    'type': float, 'default': job_status.PATIENCE, 'metavar': 'SECONDS',
    'help': 'a job without output for so long has stalled (default: %(default)g)',
  },
  '--into': {'type': pathlib.Path, 'metavar': 'DIR', 'help': 'folder on this machine'},
  '--dry-run': {'action': 'store_true', 'help': 'print the shell commands and do nothing'},
}  # fmt: skip
REQUIRED = {('submit', '--on'), ('collect', '--into')}


def run(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Runs a share of the jobs, prints which are not done, and returns the exit status."""
  tries = job_status.TRIES if given.tries is None else given.tries
  hosts, workers = given.hosts if given.hosts is not None else 1, given.workers
  checks.at_least('--tries', tries, 1)
  checks.at_least('--hosts', hosts, 1)
  checks.at_least('--workers', 1 if workers is None else workers, 1)
  base.check_hosts(given.jobs, hosts, bool(given.all_chips))
  index, count = given.share or (0, 1)
  rank, shares = devices.rank(hosts), job.shares(jobs, count)
  mine = shares[index] if index < len(shares) else []
  if given.dry_run:
    print(local.show(mine, workers or 0, bool(given.all_chips)))
    return 0
  signal.signal(signal.SIGTERM, _interrupt)
  try:
    if given.all_chips:
      left = local.run_on_all_chips(mine, rank, tries)
    else:
      left = local.run(mine, workers=workers or 0, tries=tries)
  except KeyboardInterrupt:
    print('stopped; the same command resumes')
    return exits.STOPPED
  for one in mine:
    if one.name in left:
      print(job_status.failure_message(one, left[one.name]), file=sys.stderr)
  print(f'{sum(one.done.exists() for one in mine)} of {len(mine)} jobs done')
  code = job_status.status(left)
  if code == exits.STOPPED:
    print('some have not finished; the same command resumes them')
  return code


def _interrupt(number: int, _) -> None:
  """Acts on the first SIGTERM like Ctrl-C; stopping a tree of processes may send several."""
  signal.signal(number, signal.SIG_IGN)
  raise KeyboardInterrupt


def submit_pending(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Submits the jobs that are not done, or prints the commands."""
  wanted = [one for one in jobs if not one.done.exists()]
  if not wanted:
    print('all jobs are done')
    return 0
  return submit.submit_shares(given.jobs, given.on, jobs, wanted, given.dry_run)


def _states(jobs: Sequence[Job], patience: float) -> list[job_status.State]:
  checks.at_least('--patience', patience, 1, 'seconds')
  with futures.ThreadPoolExecutor(THREADS) as pool:
    return list(pool.map(lambda one: job_status.of(one, patience), jobs))


def status(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Prints one line per job; 0 if all are done."""
  states = _states(jobs, given.patience)
  print(job_status.table(jobs, states))
  return 0 if all(state.name == job_status.DONE for state in states) else 1


def retry(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Runs all jobs that are not done, or submits those that failed, stopped or stalled."""
  states = _states(jobs, given.patience)
  again = [one for one, state in zip(jobs, states, strict=True) if state.name in UNFINISHED]
  if not given.on:
    left = sum(state.name != job_status.DONE for state in states)
    _say(given, f'{left} of {len(jobs)} jobs are not done; again: {_listed(again)}')
    return run(given, jobs)
  here = [flag for flag in HERE if vars(given)[flag[2:].replace('-', '_')] is not None]
  if here:
    raise ValueError(
      f'{here[0]} is for jobs on this machine; with --on the file of the engine has these settings.'
    )
  if not given.again:
    waiting = submit.queued(given.jobs, given.on, jobs, again)
    again = [one for one in again if one not in waiting]
    if waiting:
      queued = 'submitted since, and left in the queue (--again submits it once more)'
      _say(given, f'{queued}: {_listed(waiting)}')
  _say(given, f'{len(again)} of {len(jobs)} jobs to run again: {_listed(again)}')
  return submit.submit_shares(given.jobs, given.on, jobs, again, given.dry_run) if again else 0


def _listed(jobs: Sequence[Job]) -> str:
  return ', '.join(one.name for one in jobs) or 'none'


def _say(given: argparse.Namespace, text: str) -> None:
  """Prints a message; in a dry run as a comment, since the output is for a shell."""
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
  """Files to copy and their targets, at the same place relative to the file of jobs.

  Raises:
    ValueError: a folder of a job is not below the folder of that file.
  """
  # Several jobs may share a folder.
  for folder in dict.fromkeys(path for one in jobs for path in (one.folder, *one.others)):
    if not folder.is_relative_to(root) or '..' in folder.parts:
      raise ValueError(
        f'{folder} is not below {root}, where the file of jobs is; move that file to where the '
        'folders of its jobs are.'
      )
    for pattern in COLLECTED:
      for path in folder.glob(pattern):
        yield path, into / str(folder.relative_to(root)) / path.name


# Name: function, flags, help.
COMMANDS = {
  'run': (run, (*HERE, '--dry-run'), 'Run the jobs that are not done on this machine'),
  'submit': (
    submit_pending,
    ('--on', '--dry-run'),
    'Submit the jobs that are not done to an engine',
  ),
  'status': (status, ('--patience',), 'Print a line per job; exit with 0 if all are done'),
  'retry': (
    retry,
    (*HERE, '--on', '--again', '--patience', '--dry-run'),
    'Run or submit the jobs that failed, stopped or stalled, and those that wait for them',
  ),
  'collect': (collect, ('--into', '--dry-run'), 'Copy configs, records and rows of all runs'),
}


def main(argv: list[str]) -> int:
  """Runs a command and returns its exit status."""
  given = parser().parse_args(argv)
  with exits.errors():
    return COMMANDS[given.command][0](given, job.read(paths.place(given.jobs)))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
