"""The project's own text sets, as tensorflow-datasets builders that never import TensorFlow."""

import dataclasses
import inspect
import itertools
import os
import pathlib
import platform
import shlex
import sysconfig
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from pe_research.common import digest

ARCHIVE = pathlib.Path(__file__).parent / 'state_of_the_union.tar.xz'
SHARD_BYTES = 64 * 2**20  # a writer holds one shard in memory
LISTED = 20  # unusable files that an error names with their reasons

# Not the library's own source, or source that differs between builds of one version.
NOT_LIBRARY = {'test', 'tests', 'idle_test', 'site-packages', 'dist-packages', '__pycache__'}
BUILD_SPECIFIC = ('_sysconfigdata', 'config-', 'sitecustomize', 'usercustomize')

Example = tuple[int, dict[str, Any]]


class _Texts(tfds.core.ShardBasedBuilder, skip_registration=True):
  """Documents with an id, in the order of the source.

  A generator-based builder would shuffle by hashed key, and above 1 GB sort with TensorFlow's file
  system.
  """

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    features = tfds.features.FeaturesDict({'id': text(), 'text': text()})
    description = inspect.getdoc(type(self))
    return tfds.core.DatasetInfo(builder=self, description=description, features=features)


def _examples(documents: Iterator[tuple[str, bytes]]) -> Iterator[Example]:
  for i, (name, text) in enumerate(documents):
    yield i, {'id': name, 'text': text}


class StateOfTheUnion(_Texts):
  """Annual messages and State of the Union addresses, 1790-2026: 249 documents, 12.2 MB.

  Read from the archive in this folder, whose README.md gives source and licence.
  """

  def _shard_iterators_per_split(
    self, dl_manager: Any
  ) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
    return {'train': [lambda: _examples(self._speeches())]}

  def _speeches(self) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(ARCHIVE, 'r:xz') as tar:
      for member in tar:
        yield member.name.removesuffix('.txt'), tar.extractfile(member).read()


@dataclasses.dataclass(frozen=True)
class TextFile:
  """A file that passed the checks, with the hash of its contents.

  name: path relative to the folder, with forward slashes. size: bytes.
  """

  path: str
  name: str
  size: int
  sha256: str

  @classmethod
  def check(cls, path: pathlib.Path, name: str) -> 'TextFile':
    """Reads the file; ValueError naming it if it is empty, binary or not UTF-8."""
    try:
      name.encode()
    except UnicodeEncodeError:
      raise ValueError(f'the name of {str(path)!r} is not UTF-8. Rename the file.') from None
    if not path.is_file():
      raise ValueError(f'{path} is no regular file (a pipe, a device). Remove it.')
    data = path.read_bytes()
    if not data:
      raise ValueError(f'{path} is empty (0 bytes; a document needs 1). Fill it or remove it.')
    if b'\0' in data:
      raise ValueError(
        f'{path} is a binary file: byte {data.index(0)} is NUL, and text has none. '
        'Move everything but text out of the folder.'
      )
    try:
      data.decode()
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{path} is not UTF-8: byte {error.start} is {data[error.start]:#04x}. '
        'Convert it, for example with `iconv -f latin1 -t utf-8`, or move it out of the folder.'
      ) from None
    return cls(str(path), name, len(data), digest.of_bytes(data))

  def read(self) -> bytes:
    """The contents; ValueError if they changed since the check."""
    data = pathlib.Path(self.path).read_bytes()
    if digest.of_bytes(data) != self.sha256:
      raise ValueError(f'{self.path} changed while it was being prepared. Start again.')
    return data


@dataclasses.dataclass(eq=False, kw_only=True)
class FilesConfig(tfds.core.BuilderConfig):
  """A list of files; its name ends in a hash of their names and contents."""

  files: Sequence[TextFile] = dataclasses.field(default=(), repr=False)

  @classmethod
  def of(cls, files: Sequence[TextFile], prefix: str = '') -> 'FilesConfig':
    """The config of these files; its name differs for any other listing or contents."""
    listing = ''.join(f'{file.sha256}  {file.name}\n' for file in files)
    name = prefix + digest.of_bytes(listing.encode())[:32]
    return cls(name=name, description=f'{len(files)} files', files=tuple(files))


class _Files(_Texts, skip_registration=True):
  """A list of files, each one document, in shards of about 64 MB."""

  def _create_builder_config(self, builder_config: FilesConfig, version: Any) -> FilesConfig:
    return builder_config  # tfds would warn each time that it is not predefined

  def _shard_iterators_per_split(
    self, dl_manager: Any
  ) -> Mapping[str, Sequence[Callable[[], Iterator[Example]]]]:
    files = self.builder_config.files
    starts = itertools.accumulate((file.size for file in files), initial=0)
    grouped = itertools.groupby(zip(starts, files, strict=False), lambda x: x[0] // SHARD_BYTES)
    shards = [[file for _, file in group] for _, group in grouped]

    def reader(shard: list[TextFile]) -> Callable[[], Iterator[Example]]:
      return lambda: _examples((file.name, file.read()) for file in shard)

    return {'train': [reader(shard) for shard in shards]}


class TextFolder(_Files, skip_registration=True):
  """A folder of UTF-8 text files: every file below it is one document, by relative path.

  Files and folders whose names begin with a dot are skipped, and links to folders not followed.
  The prepared copy is named by a sha256 of the paths and contents, so that a changed folder is
  prepared again; older copies stay in `text_folder` until someone deletes them.
  """

  def __init__(self, folder: str | None = None, *, config: FilesConfig | None = None, **kwargs):
    """Reads and checks the files of `folder`, unless `config` lists checked files."""
    super().__init__(config=config or FilesConfig.of(folder_files(folder)), **kwargs)


class PythonLibrary(_Files):
  """The running Python's own library in source: a second domain that every machine has.

  Its modules without tests, installed packages and files made by the build; empty ones are
  skipped. The text differs between versions of Python (about 600 to 700 documents, 11 to 12 MB),
  so the config's name holds the version and a hash, as does the fingerprint of its documents.
  Licence: PSF.
  """

  def __init__(self, *, config: FilesConfig | None = None, **kwargs):
    """Reads and checks every module, unless `config` lists checked files."""
    if config is None:
      config = FilesConfig.of(library_files(), prefix=f'{platform.python_version()}-')
    super().__init__(config=config, **kwargs)


def folder_files(folder: str) -> list[TextFile]:
  """Every file of the folder, checked, by relative path; ValueError naming all bad ones."""
  root = pathlib.Path(folder).expanduser()
  if not root.exists():
    raise ValueError(f'no folder {folder!r}: give the path of an existing folder of text files.')
  if not root.is_dir():
    raise ValueError(
      f'{folder!r} is no folder: give a folder of text files, every file one document.'
    )
  files = _walk(root, skip=lambda name: name.startswith('.'))
  if not files:
    raise ValueError(f'{folder!r} holds no files: put at least 1 text file into it.')
  checked, errors = [], {}
  for name, path in files:
    try:
      checked.append(TextFile.check(path, name))
    except ValueError as error:
      errors[path] = error
  if errors:
    raise ValueError(_unusable(root, errors, len(files)))
  return checked


def _unusable(root: pathlib.Path, errors: Mapping[pathlib.Path, ValueError], count: int) -> str:
  """The error of every file, and a command that sets these files aside."""
  if len(errors) == 1:
    return str(*errors.values())
  lines = [f'{len(errors)} of {count} files in {str(root)!r} cannot be used:']
  lines += [f'  {error}' for error in list(errors.values())[:LISTED]]
  aside = str(root / '.unusable')
  if len(errors) > LISTED:
    lines.append(f'  and {len(errors) - LISTED} more')
    return '\n'.join([*lines, f'Files in hidden folders are skipped: move these into {aside}.'])
  moved = [str(path) for path in errors if not any(map(_is_surrogate, str(path)))]
  lines.append('Files in hidden folders are skipped; to train without these:')
  command = f'mkdir -p {shlex.quote(aside)} && {shlex.join(["mv", "-n", *moved, aside])}'
  return '\n'.join([*lines, f'  {command}'])


def _is_surrogate(character: str) -> bool:
  """Whether it stands for a byte of a file name that is not UTF-8, which no terminal prints."""
  return '\ud800' <= character <= '\udfff'


def library_files() -> list[TextFile]:
  """The modules of the running Python's library, checked, by relative path."""

  def skip(name: str) -> bool:
    return name in NOT_LIBRARY or name.startswith(BUILD_SPECIFIC)

  files = _walk(pathlib.Path(sysconfig.get_paths()['stdlib']), skip=skip)
  return [
    TextFile.check(path, name)
    for name, path in files
    if name.endswith('.py') and path.stat().st_size
  ]


def _walk(root: pathlib.Path, skip: Callable[[str], bool]) -> list[tuple[str, pathlib.Path]]:
  """(path relative to root, path) of every file below it; `skip` judges the last part of a path."""

  def fail(error: OSError):
    raise error

  found = []
  for folder, folders, files in os.walk(root, onerror=fail):
    folders[:] = [name for name in folders if not skip(name)]
    paths = [pathlib.Path(folder) / name for name in files if not skip(name)]
    found += [(path.relative_to(root).as_posix(), path) for path in paths]
  return sorted(found)
