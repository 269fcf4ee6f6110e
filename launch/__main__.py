"""Carries out a file of jobs, which `--jobs=FILE` of a sweep or of claims writes.

  python -m launch run jobs.json                          here, a worker a core or an accelerator
  python -m launch submit jobs.json --on=v5e.toml --dry-run
  python -m launch status jobs.json
  python -m launch retry jobs.json                        those that failed or hang, here or --on
  python -m launch collect jobs.json --into=results/home  configs, records and rows, no checkpoints

A job is done when its mark is there, and then never runs again, whoever asks.
"""

import argparse
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from launch import devices, engine, job, local, state
from launch.gcloud import Gcloud
from launch.job import Job
from launch.skypilot import Skypilot
from launch.slurm import Slurm
from launch.xpk import Xpk
from pe_research import cli, paths

ENGINES = {made.kind: made for made in (Xpk, Gcloud, Slurm, Skypilot)}
ROWS = ('*.json', '*.jsonl')  # what `collect` brings home of a run


def parser() -> argparse.ArgumentParser:
  """Flags of every command."""
  made = cli.parser('launch', __doc__)
  made.add_argument('command', choices=COMMANDS)
  made.add_argument('jobs', help='file of jobs')
  made.add_argument('--on', type=pathlib.Path, metavar='FILE.toml', help='an engine; default: here')
  made.add_argument('--share', type=share, default=(0, 1), metavar='I/N', help='of the jobs')
  made.add_argument('--hosts', type=int, default=1, help='machines that run this same command')
  made.add_argument('--together', action='store_true', help='a job has all chips of all of them')
  made.add_argument('--workers', type=int, default=0, help='0: one a core, or one an accelerator')
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
  """Does the jobs of a share, and says what failed.

  Returns:
    0: all are done; 1: some failed; engine.STOPPED: told to leave before that.
  """
  index, count = given.share
  rank = devices.rank(given.hosts)
  if not given.together:  # then each machine takes a part of the share
    index, count = index * given.hosts + rank, count * given.hosts
  shares = job.shares(jobs, count)
  own = shares[index] if index < len(shares) else []
  if given.dry_run:
    print('\n'.join(' '.join(('python', *one.command)) for one in own if not one.done.exists()))
    return 0
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    failed = local.together(own) if given.together else local.run(own, lambda: None, given.workers)
  except KeyboardInterrupt:
    print('stopped; the same command goes on from here')
    return engine.STOPPED
  for one in own:
    if one.name in failed:
      print(state.last_words(one), file=sys.stderr)
  print(f'{len(own) - len(failed)} of {len(own)} jobs done')
  return 1 if failed else 0


def submit(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Hands the jobs to an engine, or prints what would be handed in."""
  if given.on is None:
    raise ValueError(
      'submit needs --on=FILE.toml, which names an engine; launch/README.md has one.'
    )
  made = engine.load(given.on, ENGINES)
  shares = job.shares(jobs, -(-len(jobs) // made.jobs))
  submissions = made.submissions(given.jobs, len(shares))
  if given.dry_run:
    print(engine.show(submissions))
    return 0
  engine.ready(made)
  for one in submissions:
    with tempfile.TemporaryDirectory() as folder:
      for name, text in one.files.items():
        (pathlib.Path(folder) / name).write_text(text)
      command = [str(pathlib.Path(folder) / c) if c in one.files else c for c in one.command]
      subprocess.run(command, check=True)
    print(f'{one.name} submitted', flush=True)
  return 0


def status(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Prints a line a job; 0 where all are done."""
  states = [state.of(one, given.patience) for one in jobs]
  print(state.table(jobs, states))
  return 0 if all(one.name == state.DONE for one in states) else 1


def retry(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Runs, or submits, what failed or stalled, and what waited for it."""
  bad = (state.FAILED, state.STALLED, state.WAITING)
  again = [one for one in jobs if state.of(one, given.patience).name in bad]
  print(f'{len(again)} of {len(jobs)} jobs to run again: {", ".join(one.name for one in again)}')
  if not again:
    return 0
  # An engine is handed the whole file: on its machines, what is done stays done.
  return submit(given, jobs) if given.on else run(given, again)


def collect(given: argparse.Namespace, jobs: Sequence[Job]) -> int:
  """Copies configs, records and rows of all runs into a folder of this machine."""
  if given.into is None:
    raise ValueError('collect needs --into=DIR.')
  for one in jobs:
    target = given.into / one.folder.name
    target.mkdir(parents=True, exist_ok=True)
    for pattern in ROWS:
      for path in one.folder.glob(pattern):
        (target / path.name).write_bytes(path.read_bytes())
  print(f'wrote {len(jobs)} runs into {given.into}')
  return 0


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
