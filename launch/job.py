"""Jobs: commands that can be restarted until a file exists; lists, files and shares of them."""

import dataclasses
import graphlib
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
    name: unique, for people.
    command: arguments after the Python interpreter.
    log: file for its output.
    done: file that it writes last.
    after: the `done` files of the jobs that it waits for.
    others: folders that it writes besides its own.
  """

  name: str
  command: tuple[str, ...]
  log: pathlib.Path
  done: pathlib.Path
  after: tuple[pathlib.Path, ...] = ()
  others: tuple[pathlib.Path, ...] = ()

  @property
  def folder(self) -> pathlib.Path:
    """The folder that it writes."""
    return self.log.parent

  @property
  def continues(self) -> bool:
    """Whether another job writes the same folder before it, as training before a measurement."""
    return any(path.parent == self.folder for path in self.after)

  def ready(self) -> bool:
    """Whether the jobs that it waits for are done."""
    return all(path.exists() for path in self.after)


def check(jobs: Sequence[Job]) -> None:
  """Raises ValueError if there are no jobs, if two are the same, or if some wait for each other.

  Two are the same if they share a name, a `done` file, or everything else.
  """
  if not jobs:
    raise ValueError('there are no jobs.')
  seen: dict[object, Job] = {}
  for job in jobs:
    # A job that reads its folder differs from one that does the same in another folder.
    folder = '' if job.continues else str(job.folder)
    does = tuple(part.replace(folder, '') if folder else part for part in job.command)
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
  """The commands of the jobs that are not done, one per line, as a shell takes them."""
  return '\n'.join(shlex.join(['python', *job.command]) for job in jobs if not job.done.exists())


def write(path: pathlib.Path, jobs: Sequence[Job]) -> None:
  """Writes jobs to a file for `read`.

  Raises:
    ValueError: see `check`.
    WorkdirError: the file exists and holds other jobs.
  """
  check(jobs)
  rows = [{k: _plain(v) for k, v in dataclasses.asdict(job).items()} for job in jobs]
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {'jobs': rows})
    return
  kept = files.read_json(path)['jobs']
  if kept != rows:  # the order matters too: it decides the shares
    raise files.WorkdirError(
      f'{path} holds other jobs, or in another order. Only there, or otherwise: '
      f'{_names_missing(kept, rows)}. Only here: {_names_missing(rows, kept)}. '
      'Give another --jobs, or remove the file if no launcher uses it.'
    )


def _plain(value) -> str | list:
  return [_plain(v) for v in value] if isinstance(value, tuple) else str(value)


def _names_missing(some: list[Mapping], other: list[Mapping]) -> str:
  names = [one['name'] for one in some if one not in other]
  return ', '.join([*names[:5], *(['...'] if names[5:] else [])]) or 'none'


def read(path: pathlib.Path) -> list[Job]:
  """The jobs of a file.

  Raises:
    ValueError: the file does not exist, or is not a file of jobs.
  """
  if not path.exists():
    raise ValueError(f'{path} does not exist; write it with --jobs={path} of a sweep.')
  try:
    found = [_job(given) for given in files.read_json(path)['jobs']]
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
      raise TypeError(f'{field} {given[field]!r} is not a string')
  for field in ('command', 'after', 'others'):
    listed = isinstance(given[field], list)
    if not listed or not all(isinstance(part, str) for part in given[field]):
      raise TypeError(f'{field} {given[field]!r} is not a list of strings')
  return Job(
    given['name'],
    tuple(given['command']),
    paths.place(given['log']),
    paths.place(given['done']),
    tuple(map(paths.place, given['after'])),
    tuple(map(paths.place, given['others'])),
  )


def shares(jobs: Sequence[Job], count: int) -> list[list[Job]]:
  """The jobs split into at most `count` independent shares.

  A job that waits for another is in the same share. Shares are as equal in size as that allows,
  keep the order of the jobs, and depend on nothing but the jobs.
  """
  checks.at_least('the number of shares', count, 1)
  writes = {job.done: i for i, job in enumerate(jobs)}
  group = list(range(len(jobs)))  # union-find: jobs that depend on each other

  def find(i: int) -> int:
    while group[i] != i:
      i = group[i]
    return i

  for i, job in enumerate(jobs):
    for path in job.after:
      if path in writes:
        one, other = sorted((find(i), find(writes[path])))
        group[other] = one
  groups: dict[int, list[Job]] = {}
  for i, job in enumerate(jobs):
    groups.setdefault(find(i), []).append(job)
  cut: list[list[Job]] = [[] for _ in range(min(count, len(groups)))]
  for dependent in sorted(groups.values(), key=len, reverse=True):  # a stable sort
    min(cut, key=len).extend(dependent)
  order = {job.name: i for i, job in enumerate(jobs)}
  return [sorted(share, key=lambda job: order[job.name]) for share in cut]


def engine_name(text: str, longest: int) -> str:
  """A name that cloud engines accept: at most `longest` of a-z, 0-9 and hyphens, a letter first.

  A name that has to be changed ends in a digest of the original, so that names stay distinct.
  """
  plain = re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')
  plain = plain if plain[:1].isalpha() else f'j-{plain}'.rstrip('-')
  if plain == text and len(plain) <= longest:
    return plain
  return f'{plain[: longest - 7].rstrip("-")}-{digest.of_bytes(text.encode())[:6]}'
