"""Jobs: commands with names and marks of being done, as a list, a file of them, or shares of it."""

import dataclasses
import graphlib
import json
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

from pe_research.common import checks, digest
from pe_research.storage import files, paths


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that can be started again until `done` exists.

  Attributes:
    name: of the run, for people.
    command: arguments after the Python interpreter.
    log: file that gets its output.
    done: file that it writes last.
    after: files that must be there before it can start, which other jobs write last.
    others: folders that it makes besides its own.
  """

  name: str
  command: tuple[str, ...]
  log: pathlib.Path
  done: pathlib.Path
  after: tuple[pathlib.Path, ...] = ()
  others: tuple[pathlib.Path, ...] = ()

  @property
  def folder(self) -> pathlib.Path:
    """Where it keeps what it makes."""
    return self.log.parent

  @property
  def continues(self) -> bool:
    """Whether it works on what another job leaves in its folder, as a measurement does."""
    return any(path.parent == self.folder for path in self.after)

  def ready(self) -> bool:
    """Whether what it needs is there."""
    return all(path.exists() for path in self.after)


def check(jobs: Sequence[Job]) -> None:
  """Raises ValueError where jobs cannot be those of a sweep.

  There are none; two have one name or one mark, or differ only in their names; or some wait for
  each other.
  """
  if not jobs:
    raise ValueError('there are no jobs.')
  seen: dict[object, Job] = {}
  for job in jobs:
    # The folder is part of what a job does where it works on what lies there.
    own = '' if job.continues else str(job.folder)
    does = tuple(part.replace(own, '') if own else part for part in job.command)
    for what, key in (
      ('have one name', job.name), ('write one file', job.done),
      ('differ in nothing but their names', does),
    ):  # fmt: skip
      other = seen.setdefault((what, key), job)
      if other is not job:
        raise ValueError(f'jobs {other.name!r} and {job.name!r} {what}; a sweep has each job once.')
  try:
    graphlib.TopologicalSorter({job.done: job.after for job in jobs}).prepare()
  except graphlib.CycleError as error:
    writes = {job.done: job.name for job in jobs}
    around = ', '.join(repr(writes[done]) for done in error.args[1][1:])
    raise ValueError(f'jobs {around} wait for each other, and none could begin.') from error


def shell(jobs: Sequence[Job]) -> str:
  """The commands of the jobs that are not done, one a line, as a shell takes them."""
  return '\n'.join(shlex.join(['python', *job.command]) for job in jobs if not job.done.exists())


def write(path: pathlib.Path, jobs: Sequence[Job]) -> None:
  """Writes jobs to a file, which `read` gives back as they were.

  Raises:
    ValueError: see `check`.
    WorkdirError: the file is there and holds other jobs.
  """
  check(jobs)
  as_json = lambda job: {k: _plain(v) for k, v in dataclasses.asdict(job).items()}
  made = [as_json(job) for job in jobs]
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {'jobs': made})
    return
  kept = files.read_json(path)['jobs']
  if kept != made:  # also in another order, by which they are cut into shares
    only = lambda some, other: ', '.join(one['name'] for one in some if one not in other) or 'none'
    raise files.WorkdirError(
      f'{path} holds other jobs, or in another order. Only there, or otherwise: '
      f'{only(kept, made)}. Only here: {only(made, kept)}. Give another --jobs, or remove the file '
      'if nobody works on it.'
    )


def _plain(value):
  if isinstance(value, tuple):
    return [_plain(v) for v in value]
  return str(value)


def read(path: pathlib.Path) -> list[Job]:
  """The jobs of a file.

  Raises:
    ValueError: there is no such file, or it is not one of jobs.
  """
  if not path.exists():
    raise ValueError(f'{path} does not exist; write it with --jobs={path} of a sweep.')
  try:
    found = [_job(given) for given in json.loads(path.read_text())['jobs']]
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{path} is not a file of jobs ({error}); --jobs of a sweep writes one.'
    ) from error
  try:
    check(found)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  return found


def _job(given: Mapping) -> Job:
  for field in ('name', 'log', 'done'):
    if not isinstance(given[field], str) or not given[field]:
      raise TypeError(f'{field} {given[field]!r} is not a text')
  for field in ('command', 'after', 'others'):
    listed = isinstance(given[field], list)
    if not listed or not all(isinstance(part, str) for part in given[field]):
      raise TypeError(f'{field} {given[field]!r} is not a list of texts')
  own = {name: paths.place(given[name]) for name in ('log', 'done')}
  listed = {name: tuple(map(paths.place, given[name])) for name in ('after', 'others')}
  return Job(name=given['name'], command=tuple(given['command']), **listed, **own)


def shares(jobs: Sequence[Job], count: int) -> list[list[Job]]:
  """The jobs cut into at most `count` shares that need nothing of each other.

  What waits for another is in its share. Shares are as equal in number as that allows, in the
  order of the jobs, and the same whenever the jobs are.
  """
  checks.at_least('the number of shares', count, 1)
  writes = {job.done: i for i, job in enumerate(jobs)}
  group = list(range(len(jobs)))  # of each job, the first that it is tied to

  def find(i: int) -> int:
    while group[i] != i:
      i = group[i]
    return i

  for i, job in enumerate(jobs):
    for path in job.after:
      if path in writes:
        one, other = sorted((find(i), find(writes[path])))
        group[other] = one
  tied: dict[int, list[Job]] = {}
  for i, job in enumerate(jobs):
    tied.setdefault(find(i), []).append(job)
  made: list[list[Job]] = [[] for _ in range(min(count, len(tied)))]
  for own in sorted(tied.values(), key=len, reverse=True):  # a stable sort
    min(made, key=len).extend(own)
  order = {job.name: i for i, job in enumerate(jobs)}
  return [sorted(share, key=lambda job: order[job.name]) for share in made]


def engine_name(text: str, longest: int) -> str:
  """A name that cloud engines take: lower case, digits and hyphens, a letter first, `longest` long.

  Names that had to be changed end in a digest of what they were, so that no two become one.
  """
  plain = re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')
  plain = plain if plain[:1].isalpha() else f'j-{plain}'.rstrip('-')
  if plain == text and len(plain) <= longest:
    return plain
  return f'{plain[: longest - 7].rstrip("-")}-{digest.of_bytes(text.encode())[:6]}'
