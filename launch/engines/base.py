"""What all engines share: a sweep goes in, commands and files come out, and nothing is run here."""

import abc
import dataclasses
import re
import shlex
import shutil
import subprocess
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from launch.job import Job, engine_name
from pe_research.common import checks
from pe_research.machines.exits import STOPPED as STOPPED
from pe_research.storage import paths

QUOTED = ('checkout', 'data')  # settings that go into shell commands alone
ROOM = 8  # characters of a name for the number of a share and of its attempt: '-1234-99'


@dataclasses.dataclass(frozen=True)
class Submission:
  """A job to submit to an engine.

  Attributes:
    name: its name, as the engine will show it.
    command: the command that submits it.
    files: name -> text of the files that the command reads.
  """

  name: str
  command: tuple[str, ...]
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Engine(abc.ABC):
  """Settings that every engine has; each adds its own.

  Attributes:
    sweep: name of the sweep; jobs are named after it.
    checkout: where this repository lies on the machines, with its .venv.
    jobs: jobs of the sweep in one job of the engine.
    all_chips: whether a job has all chips, one job at a time; if not, each job has one of them.
    hosts: machines of one job of the engine; they share its part of the sweep, job by job.
    data: where prepared text lies, as the machines see it ($PE_DATA of runs); '': as they have it.
  """

  kind: ClassVar[str]
  longest: ClassVar[int]  # characters of a name
  needs: ClassVar[tuple[str, ...]]  # programs
  signed_in: ClassVar[tuple[str, ...]]  # command that fails without credentials or a cluster
  positive: ClassVar[tuple[str, ...]] = ('jobs', 'hosts')  # numbers of which 0 is too few
  shares_disk: ClassVar[bool] = False  # with this machine; if not, everything is in a bucket

  sweep: str
  checkout: str = '/pe_research'
  jobs: int = 1
  hosts: int = 1
  all_chips: bool = False
  data: str = ''

  def __post_init__(self):
    """Raises ValueError if a setting is invalid."""
    room = self.longest - ROOM
    if engine_name(self.sweep, room) != self.sweep:
      raise ValueError(
        f'sweep = {self.sweep!r} is not a name for {self.kind}: at most {room} of a-z, 0-9 and '
        f'hyphens, a letter first, for example {engine_name(self.sweep, room)!r}.'
      )
    for name, value in vars(self).items():
      check_plain(name, value, name in QUOTED)
      if type(value) is int:
        checks.at_least(name, value, 1 if name in self.positive else 0)

  def check(self, jobs_file: str, jobs: Sequence[Job]) -> None:
    """Raises ValueError if the machines would not see the file of jobs, or what jobs write."""
    check_plain('the path of the jobs', jobs_file, quoted=True)
    check_hosts(jobs_file, self.hosts, self.all_chips)
    if self.shares_disk:
      return
    if self.data and not paths.seen_by_all(self.data):
      raise ValueError(
        f'data = {self.data!r} is on this machine, and those of {self.kind} see buckets only. '
        'Nothing was created.'
      )
    given = [jobs_file, *(str(path) for job in jobs for path in (job.log, job.done))]
    for path in given:
      if not paths.seen_by_all(path):
        raise ValueError(
          f'{path} is on this machine, and those of {self.kind} see buckets only. Write the jobs '
          'with --workdir=gs://BUCKET/... --jobs=gs://BUCKET/.... Nothing was created.'
        )

  def names(self, shares: Sequence[int], used: Sequence[str]) -> dict[int, str]:
    """A new, unused name for each share, by its number."""
    made = {}
    for i in shares:
      name, attempt = f'{self.sweep}-{i}', 1
      while name in used:
        name, attempt = f'{self.sweep}-{i}-{attempt + 1}', attempt + 1
      made[i] = name
    return made

  def work(self, jobs_file: str, share: str, count: int) -> str:
    """The shell command that runs a share of a sweep, on each of its machines."""
    how = ' --all-chips' if self.all_chips else ''
    how += f' --hosts={self.hosts}' if self.hosts > 1 else ''
    data = f'export PE_DATA={shlex.quote(self.data)} && ' if self.data else ''
    place = f'cd {shlex.quote(self.checkout)} && {data}exec .venv/bin/python'
    return f'{place} -m launch run {shlex.quote(jobs_file)} --share={share}/{count}{how}'

  def check_tools(self) -> None:
    """Raises ValueError if the engine's programs or credentials are missing."""
    missing = [name for name in self.needs if shutil.which(name) is None]
    if missing:
      raise ValueError(
        f'{self.kind} needs {", ".join(missing)} on PATH; launch/README.md says where to get them. '
        'Nothing was created.'
      )
    done = subprocess.run(self.signed_in, capture_output=True, text=True, check=False)
    if done.returncode:
      said = (done.stderr or done.stdout).strip().splitlines()[:1]
      raise ValueError(
        f'{shlex.join(self.signed_in)} failed: {"".join(said)} Sign in first. Nothing was created.'
      )

  @abc.abstractmethod
  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """The submissions of the wanted shares.

    Args:
      jobs_file: path of the file of jobs, as the machines see it.
      names: of the shares that are wanted, by number.
      count: number of shares that the file is split into.
    """


def check_plain(name: str, value: Any, quoted: bool = False) -> None:
  """Raises ValueError for text that a shell, a script or a list of settings would not keep whole.

  Settings go into scripts, YAML and flags of several programs, so that one rule serves for all.

  Args:
    name: of the setting.
    value: that it has.
    quoted: whether it goes into shell commands alone, and is quoted there.
  """
  pattern = r'[^ -~\x80-\U0010ffff]' if quoted else r'[^\w./:@%+=,~-]'
  if isinstance(value, str) and (odd := re.search(pattern, value, 0 if quoted else re.ASCII)):
    allowed = 'no line breaks' if quoted else 'letters, digits and . / : @ % + = , ~ _ -'
    raise ValueError(f'{name} = {value!r} has {odd[0]!r}; it may have {allowed}.')


def check_hosts(jobs_file: str, hosts: int, all_chips: bool) -> None:
  """Raises ValueError if machines would share jobs on a disk: not all keep these apart."""
  if hosts > 1 and not all_chips and not paths.seen_by_all(jobs_file):
    raise ValueError(
      f'hosts = {hosts} machines share jobs in a bucket only, and {jobs_file} is on a disk. Have '
      'them work together (all_chips), or submit more shares of one machine.'
    )


def load(path: Path, engines: Mapping[str, type[Engine]]) -> Engine:
  """The engine that a TOML file describes.

  Raises:
    ValueError: names the setting and what it may be.
  """
  checks.regular(path)
  try:
    given: dict[str, Any] = tomllib.loads(path.read_text(encoding='utf-8'))
  except tomllib.TOMLDecodeError as error:
    raise ValueError(f'{path} is not TOML: {error}') from error
  kind = given.pop('engine', None)
  if not isinstance(kind, str) or kind not in engines:
    raise ValueError(f'{path}: engine = {kind!r}; it must be one of {", ".join(engines)}.')
  made = engines[kind]
  fields = {field.name: field for field in dataclasses.fields(made)}
  types = typing.get_type_hints(made)
  for name, value in given.items():
    if name not in fields:
      raise ValueError(f'{path}: {kind} has no setting {name!r}; it has {", ".join(fields)}.')
    if type(value) is not types[name]:
      raise ValueError(
        f'{path}: {name} = {value!r} is a {type(value).__name__}; it must be a '
        f'{types[name].__name__}.'
      )
  missing = [
    name
    for name, field in fields.items()
    if name not in given and field.default is dataclasses.MISSING
  ]
  if missing:
    raise ValueError(f'{path}: {kind} needs {", ".join(missing)}.')
  return made(**given)


class _Blocks(yaml.SafeDumper):
  """Writes strings of several lines as YAML blocks."""

  def represent_str(self, text: str):
    """A block for several lines."""
    style = '|' if '\n' in text else None
    return self.represent_scalar('tag:yaml.org,2002:str', text, style=style)


_Blocks.add_representer(str, _Blocks.represent_str)


def to_yaml(value: Mapping[str, Any]) -> str:
  """A text of YAML whose lines are as long as what they hold."""
  return yaml.dump(value, Dumper=_Blocks, sort_keys=False, width=float('inf'))


def show(submissions: Sequence[Submission]) -> str:
  """Files and commands, as a shell would take them."""
  parts = []
  for one in submissions:
    for name, text in one.files.items():
      end = 'END'
      while end in text.splitlines():
        end += '_'
      parts.append(f"cat > {shlex.quote(name)} <<'{end}'\n{text.rstrip()}\n{end}")
    parts.append(shlex.join(one.command))
  return '\n'.join(parts)
