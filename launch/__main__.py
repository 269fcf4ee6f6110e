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
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

from launch import devices, engine, job, local, state
from launch.gcloud import Gcloud
from launch.job import Job
from launch.skypilot import Skypilot
from launch.slurm import Slurm
from launch.xpk import Xpk
from pe_research import checks, cli, paths, records

ENGINES = {made.kind: made for made in (Xpk, Gcloud, Slurm, Skypilot)}
ROWS = ('*.json', '*.jsonl')  # what `collect` brings home of a run


def parser() -> argparse.ArgumentParser:
  """Flags of every command."""
  made = cli.parser('launch', __doc__)
  made.add_argument('command', choices=COMMANDS)
  made.add_argument('jobs', help='file of jobs')
  made.add_argument('--on', type=pathlib.Path, metavar='FILE.toml', help='an engine; default: here')
  made.add_argument('--share', type=share, default=(0, 1), metavar='I/N', help='of the jobs')
  made.add_argument('--together', action='store_true', help='a job has all chips, one at a time')
  made.add_argument('--hosts', type=int, default=1, help='machines that run this same command')
  made.add_argument('--workers', type=int, default=0, help='0: one a core, or one an accelerator')
  made.add_argument(
    '--tries', type=int, default=state.TRIES,
    help='times in a row that a job may stop where it stopped before',
  )  # fmt: skip
  made.add_argument('--dry-run', action='store_true', help='print what would be done')
  made.add_argument(
    '--patience', type=float, default=state.PATIENCE, help='seconds of silence that mean stalled'
  )
  made.add_argument('--into', type=pathlib.Path, metavar='DIR', help='of collect')
  return made


def share(text: str) -> tuple[int, int]:
  """The type of --share: '3/8' is the fourth of eight."""
  part, _, whole = text.partition('/')
  if not (part.isdigit() and whole.isdigit() and int(part) < int(whole)):
    raise argparse.ArgumentTypeError(f'{text!r} is not understood; write 3/8 for the fourth of 8.')
  return int(part), int(whole)


def run(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Does the jobs of a share, and says what is not done.

  Returns:
    0: all are done; engine.STOPPED: the same command goes on; 1: it does not, some failed.
  """
  checks.at_least('--tries', given.tries, 1)
  engine.check_hosts(given.jobs, given.hosts, given.together)
  index, count = given.share
  rank, shares = devices.rank(given.hosts), job.shares(jobs, count)
  own = shares[index] if index < len(shares) else []
  if given.dry_run:
    print(local.show(own, given.workers, given.together))
    return 0
  signal.signal(signal.SIGTERM, _leave)
  try:
    if given.together:
      left = local.together(own, rank, given.tries)
    else:
      left = local.run(own, lambda: None, given.workers, tries=given.tries)
  except KeyboardInterrupt:
    print('stopped; the same command goes on from here')
    return engine.STOPPED
  for one in own:
    if one.name in left:
      print(state.last_words(one), file=sys.stderr)
  print(f'{sum(one.done.exists() for one in own)} of {len(own)} jobs done')
  if state.STOPPED in left.values():
    print('some stopped before their end; the same command goes on from here')
    return engine.STOPPED
  return 1 if left else 0


def _leave(number: int, _) -> None:
  """As Ctrl-C, once: who stops a whole tree of processes may reach this one twice."""
  signal.signal(number, signal.SIG_IGN)
  raise KeyboardInterrupt


def submit(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Hands the jobs that are not done to an engine, or prints what would be handed in."""
  return _submit(given, jobs, [one for one in jobs if not one.done.exists()])


def _submit(given: argparse.Namespace, jobs: Sequence[Job], wanted: Sequence[Job]) -> int:
  """Hands in the shares that hold a wanted job; 1 where one was not taken."""
  if given.on is None:
    raise ValueError(
      'submit needs --on=FILE.toml, which names an engine; launch/README.md has one.'
    )
  made = engine.load(given.on, ENGINES)
  made.check(given.jobs, jobs)
  # Shares are those of all jobs, so that each keeps its number and its jobs.
  shares = job.shares(jobs, -(-len(jobs) // made.jobs))
  left = [i for i, own in enumerate(shares) if any(one in wanted for one in own)]
  before = paths.place(given.jobs).with_suffix('.submitted.jsonl')
  used = [row['name'] for row in records.read_rows(before)]
  if not left:
    print('all jobs are done')
    return 0
  submissions = made.submissions(given.jobs, made.names(left, used), len(shares))
  if given.dry_run:
    print(engine.show(submissions))
    return 0
  made.ready()
  refused = False
  for one in submissions:
    with tempfile.TemporaryDirectory() as folder:
      for name, text in one.files.items():
        (pathlib.Path(folder) / name).write_text(text)
      command = [str(pathlib.Path(folder) / c) if c in one.files else c for c in one.command]
      status = subprocess.run(command, check=False).returncode
    if status:
      refused = True
      print(f'{one.name} was not taken: {command[0]} ended with {status}', file=sys.stderr)
      continue
    records.append_row(before, {'name': one.name, 'engine': made.kind})
    print(f'{one.name} submitted', flush=True)
  return 1 if refused else 0


def status(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Prints a line a job; 0 where all are done."""
  states = [state.of(one, given.patience) for one in jobs]
  print(state.table(jobs, states))
  return 0 if all(one.name == state.DONE for one in states) else 1


def retry(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Runs, or submits, what failed, stopped or stalled; here also what waited for it."""
  bad = [state.FAILED, state.STALLED, state.STOPPED]
  # What has not begun may still be in an engine's queue.
  bad += [] if given.on else [state.WAITING]
  again = [one for one in jobs if state.of(one, given.patience).name in bad]
  print(f'{len(again)} of {len(jobs)} jobs to run again: {", ".join(one.name for one in again)}')
  if not again:
    return 0
  return _submit(given, jobs, again) if given.on else run(given, again)


def collect(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Copies configs, records and rows of all runs into a folder of this machine."""
  if given.into is None:
    raise ValueError('collect needs --into=DIR.')
  copies = list(_copies(jobs, given.into))
  for path, target in copies:
    if given.dry_run:
      print(f'{path} -> {target}')
      continue
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
  if not given.dry_run:
    print(f'wrote {len({path.parent for path, _ in copies})} runs into {given.into}')
  return 0


def _copies(jobs: Sequence[Job], into: pathlib.Path) -> Iterable[tuple[pathlib.Path, pathlib.Path]]:
  """What `collect` copies, and where to; the jobs of a folder share what is in it."""
  for folder in dict.fromkeys(one.folder for one in jobs):
    for pattern in ROWS:
      for path in folder.glob(pattern):
        yield path, into / folder.name / path.name


COMMANDS = {
  'run': run, 'submit': submit, 'status': status, 'retry': retry, 'collect': collect,
}  # fmt: skip


def main(argv: list[str]) -> int:
  """Does what the command says."""
  given = parser().parse_args(argv)
  with cli.errors():
    return COMMANDS[given.command](given, job.read(paths.place(given.jobs)))


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
