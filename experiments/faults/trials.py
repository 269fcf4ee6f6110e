"""Trials: a command is killed, what it reads is damaged, or its disk is full or read-only.

Each is drawn from its seed and number alone, and says '' or what was lost.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from experiments.faults import damage, forks, works
from experiments.faults.damage import Done
from experiments.faults.forks import Ended, Kill
from experiments.faults.works import READERS, WRITERS, Work
from pe_research.common import digest
from pe_research.storage import files

SHARE_KILLED, SHARE_DISK, SHARE_SLOW = 0.3, 0.06, 0.04  # of the trials; of those that kill
LONGEST = 1500, 14  # characters and lines of a refusal


@dataclasses.dataclass(frozen=True)
class Straight:
  """A command without faults: what it leaves and shows, its writes and seconds."""

  left: dict[str, str]
  shown: str
  writes: int
  seconds: float


@dataclasses.dataclass
class Result:
  """What a trial came to.

  Attributes:
    number: of the trial.
    kind: of fault.
    command: its name.
    faults: how many there were.
    lost: what was lost, or ''.
  """

  number: int
  kind: str
  command: str
  faults: int = 0
  lost: str = ''


class Trials:
  """The trials of a seed, in a folder with what they begin from."""

  def __init__(self, home: pathlib.Path, seed: int):
    """Makes nothing yet; see `straight`."""
    self.home, self.seed = home, seed
    self.environment = works.environment(home)
    self.quickest: dict[str, float] = {}  # seconds of a command, where another took fewer

  def copy(self, name: str) -> pathlib.Path:
    """A copy of the folder that commands begin from."""
    folder = self.home / name
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(self.home / 'made0', folder, symlinks=True)

  def straight(self, work: Work) -> Straight:
    """What a command does without faults; it is run once for all processes."""
    kept = self.home / f'straight_{digest.of_json(work.command)[:16]}.json'
    if kept.exists():
      return Straight(**files.read_json(kept))
    folder = self.copy(f'straight{os.getpid()}')
    ended = forks.run(work.command, folder, self.environment)
    if ended.status:
      raise RuntimeError(f'{work} failed before any fault: {ended.errors[-2000:]}')
    found = works.left(folder), works.shown(work, ended)
    shutil.rmtree(folder)
    made = Straight(*found, ended.writes, ended.seconds)
    files.write_json(kept, dataclasses.asdict(made))
    return made

  def run(self, number: int) -> Result:
    """Carries a trial out; its folder is kept if something was lost."""
    draw = random.Random(f'{self.seed}/{number}')
    kind = draw.choices(
      (self.kill, self.disk, self.damage), (SHARE_KILLED, SHARE_DISK, 1 - SHARE_KILLED - SHARE_DISK)
    )[0]
    folder = self.copy(f'trial{number}')
    result = kind(draw, folder, number)
    forks.end_orphans()
    if not result.lost:
      shutil.rmtree(folder, ignore_errors=True)
    return result

  def kill(self, draw: random.Random, folder: pathlib.Path, number: int) -> Result:
    """A command that writes is killed up to three times, then runs to its end."""
    slow = draw.random() < SHARE_SLOW
    name = draw.choice([name for name, work in WRITERS.items() if work.slow == slow])
    work, usual = WRITERS[name], self.straight(WRITERS[name])
    stops = draw.random() < 0.15
    result = Result(number, 'SIGTERM' if stops else 'SIGKILL', name)
    for _ in range(draw.randint(1, 3)):
      by_write = draw.random() < 0.6 and not work.slow
      kill = Kill(
        write=draw.randrange(usual.writes) if by_write else None,
        seconds=draw.random() * self.quickest.get(name, usual.seconds),
        number=signal.SIGTERM if stops else signal.SIGKILL,
        tree=not stops and draw.random() < 0.5,
      )
      ended = forks.run(work.command, folder, self.environment, kill)
      result.faults += ended.killed
      if not ended.killed:  # it was quicker
        self.quickest[name] = min(ended.seconds, self.quickest.get(name, ended.seconds))
      if ended.status is None or 'Traceback' in ended.errors:
        result.lost = f'after {kill}: {_summary(ended)}'
        return result
    result.lost = self.compare(work, usual, folder, 'then')
    return result

  def compare(self, work: Work, usual: Straight, folder: pathlib.Path, when: str) -> str:
    """Runs a command to its end; what differs from what it leaves without faults, or ''."""
    ended = forks.run(work.command, folder, self.environment)
    if ended.status or 'Traceback' in ended.errors:
      return f'{when}: {_summary(ended)}'
    differ = works.differences(usual.left, works.left(folder))
    if differ:
      return f'{when} other content of {", ".join(differ)}: {_summary(ended)}'
    return '' if usual.shown == works.shown(work, ended) else f'{when}: {_summary(ended)}'

  def damage(self, draw: random.Random, folder: pathlib.Path, number: int) -> Result:
    """A file is damaged that a command reads."""
    name = draw.choice([*READERS])
    work, usual = READERS[name], self.straight(READERS[name])
    group = draw.choice(work.reads)
    environment, twin = dict(self.environment), self.home / 'made1'
    if group[0].startswith('data'):
      shutil.copytree(self.home / 'data', folder / 'data')
      environment['PE_DATA'], twin = str(folder / 'data'), folder
    done = damage.apply(draw, folder, group, twin)
    result = Result(number, done.kind, name, 1)
    ended = forks.run(work.command, folder, environment)
    result.lost = self.judge(work, usual, folder, done, ended)
    return result

  def judge(self, work: Work, usual: Straight, folder, done: Done, ended) -> str:
    """'' for the same result without damage, or a refusal that names the file."""
    about = f'{done.path} {done.kind} ({done.detail}): {_summary(ended)}'
    named = done.is_named(ended.said + ended.errors)
    if ended.status is None or ended.status < 0 or 'Traceback' in ended.errors:
      return about
    if ended.status:
      message = ended.errors[max(0, ended.errors.find('error: ')) :]
      short = len(message) < LONGEST[0] and message.count('\n') < LONGEST[1]
      return '' if named and short else about
    found = works.left(folder)
    differ = works.differences(usual.left, found)
    # Nothing is computed from what was lost of a log or of texts that are only shown.
    if done.is_as_left(folder) or done.path.endswith(('metrics.jsonl', 'programs.zip')):
      differ = [path for path in differ if not done.path.startswith(path)]
    same = not differ and usual.shown == works.shown(work, ended)
    return '' if same or named else f'{about}; other content of {differ}'

  def disk(self, draw: random.Random, folder: pathlib.Path, number: int) -> Result:
    """A command meets a disk that is full or read-only, then runs on one that is neither."""
    name = draw.choice([name for name, work in WRITERS.items() if not work.slow])
    work, usual = WRITERS[name], self.straight(WRITERS[name])
    kind = draw.choice(('largest file', *(('full disk', 'read-only disk') if mounts() else ())))
    result = Result(number, kind, name, 1)
    if kind == 'largest file':
      most = round(2 ** draw.uniform(0, 17))
      ended = forks.run(work.command, folder, self.environment, most_bytes=most)
      result.lost = _judge_disk(ended, f'files of at most {most} bytes')
    else:
      free = round(2 ** draw.uniform(10, 19)) if kind == 'full disk' else None
      with small_disk(folder, free) as disk:
        ended = forks.run(work.command, disk, self.environment)
        result.lost = _judge_disk(ended, f'a disk with {free} bytes left')
        if kind == 'full disk':
          shutil.rmtree(folder)
          shutil.copytree(disk, folder, symlinks=True)
    result.lost = result.lost or self.compare(work, usual, folder, f'after {kind}')
    return result


def _judge_disk(ended: Ended, where: str) -> str:
  bad = ended.status is None or ended.status < 0 or 'Traceback' in ended.errors
  silent = ended.status and 'error: ' not in ended.errors
  return f'on {where}: {_summary(ended)}' if bad or silent else ''


def _summary(ended: Ended) -> str:
  how = 'hung' if ended.status is None else f'status {ended.status}'
  said = ended.errors if ended.status or 'Traceback' in ended.errors else ended.said + ended.errors
  return f'{how}, {said.strip()[-1200:]}'


@contextlib.contextmanager
def small_disk(source: pathlib.Path, free: int | None) -> Iterator[pathlib.Path]:
  """A disk in memory with a copy of a folder and so many bytes free; None: it is read-only."""
  mounted = source.with_name(f'{source.name} disk')
  mounted.mkdir()
  _mount('mount', '-t', 'tmpfs', 'faults', mounted)
  try:
    shutil.copytree(source, mounted / 'copy', symlinks=True)
    used = shutil.disk_usage(mounted).used
    _mount('mount', '-o', 'remount,ro' if free is None else f'remount,size={used + free}', mounted)
    yield mounted / 'copy'
  finally:
    forks.end_orphans()
    _mount('umount', mounted)
    mounted.rmdir()


def _mount(*command) -> None:
  subprocess.run([*map(str, command)], check=True, capture_output=True)


def mounts() -> bool:
  """Whether this user may mount disks."""
  return sys.platform == 'linux' and os.geteuid() == 0 and shutil.which('mount') is not None
