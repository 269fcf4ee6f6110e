"""Jobs that go wrong as they are told to, for tests of launching."""

import pathlib

import run_fixtures

from launch import job
from launch.job import Job

# Notes that it ran, then does as the first line of its folder's `fate` says and takes that line
# away; without one it does its work.
WORK = """
import json, os, pathlib, resource, signal, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / 'ran').open('a') as file: file.write('ran\\n')
(folder / 'metrics.jsonl').write_text(json.dumps({'step': 7, 'loss': 1.25}) + '\\n')
fate = folder / 'fate'
what, _, rest = fate.read_text().partition('\\n') if fate.exists() else ('', '', '')
fate.write_text(rest)
def limit(process, size):
  hard = resource.prlimit(process, resource.RLIMIT_FSIZE)[1]
  resource.prlimit(process, resource.RLIMIT_FSIZE, (size, hard))
if what == 'crash': sys.exit('it crashed')
if what == 'full':
  (folder / 'rows').symlink_to('/dev/full')
  try: (folder / 'rows').write_text('a row')
  finally: (folder / 'rows').unlink()
if what == 'kill': os.kill(os.getpid(), 9)
if what == 'abort': os.abort()
if what == 'stop': sys.exit(print('stopped; the same command resumes'))
if what == 'sleep': time.sleep(120)
if what == 'save slowly':
  def save(*_):
    time.sleep(1.5)
    (folder / 'saved').touch()
    os._exit(0)
  signal.signal(signal.SIGTERM, save)
  (folder / 'ready').touch()
  time.sleep(600)
if what == 'hang':
  from pe_research.machines import heartbeat
  with heartbeat.Heartbeat(folder, 0.5) as heart:
    heart.beat('step 7')
    time.sleep(600)
if what == 'no room for the launcher':
  limit(os.getppid(), 0)
  sys.exit('no room')
if what == 'room again':
  time.sleep(2)
  limit(os.getppid(), resource.RLIM_INFINITY)
print('done')
(folder / 'done.json').write_text('1')
"""


def make(root: pathlib.Path, name: str, *after: str, fate: str = '') -> Job:
  """A job below `root`, with what becomes of it the first times that it runs."""
  folder = root / 'runs' / name
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'fate').write_text(fate)
  needs = tuple(root / 'runs' / other / 'done.json' for other in after)
  return Job(name, ('-c', WORK, str(folder), name), folder / 'log.txt', folder / 'done.json', needs)


def write(root: pathlib.Path, jobs) -> str:
  """The path of a file of jobs."""
  job.write(root / 'jobs.json', jobs)
  return str(root / 'jobs.json')


def launch(*arguments, **environment):
  """Runs `python -m launch` to its end."""
  return run_fixtures.run('-m', 'launch', *map(str, arguments), **environment)


def runs(root: pathlib.Path) -> dict[str, int]:
  """How often each job ran."""
  return {path.parent.name: len(path.read_text().split()) for path in root.glob('runs/*/ran')}
