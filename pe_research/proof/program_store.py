"""Texts of programs: in a workdir, to show differences; in a cache, to lower each program once.

The cache is keyed by a hash of the package's code, so that any edit invalidates it. Only commands
use it: a notebook or a test may have changed a function in memory.
"""

import contextlib
import io
import pathlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping

import jax

from pe_research import IMPORTED
from pe_research.common import provenance
from pe_research.storage import files, local_copies

FILE = 'programs.zip'  # of a workdir: each text under its digest
STAMP = (1980, 1, 1, 0, 0, 0)  # the same programs, the same bytes
LEVEL = 1  # of compression: adding a text rewrites all of them
UNUSED = 86_400  # seconds after which cached texts of other code are removed
_folder: pathlib.Path | None = None


def use() -> None:
  """Turns the cache on, unless code was edited after its import.

  JAX_ENABLE_COMPILATION_CACHE=false leaves it off, like JAX's own.
  """
  global _folder
  edited = max(path.stat().st_mtime for path in provenance.sources()) >= IMPORTED
  if not edited and jax.config.jax_enable_compilation_cache:
    _folder = local_copies.home() / 'programs' / provenance.code()[:16]


def kept(key: str, make: Callable[[], str]) -> str:
  """The cached text of a key, which determines it but for the code; else `make()`, and caches it.

  Errors of the disk are ignored.
  """
  if _folder is None:
    return make()
  path = _folder / f'{key}.z'
  with contextlib.suppress(OSError, zlib.error, UnicodeDecodeError):
    return zlib.decompress(path.read_bytes()).decode()
  text = make()
  with contextlib.suppress(OSError, files.WorkdirError):
    if not _folder.exists():
      _folder.mkdir(parents=True)
      _remove_unused(_folder.parent)
    files.write_bytes(path, zlib.compress(text.encode()))
  return text


def _remove_unused(folder: pathlib.Path) -> None:
  for other in folder.iterdir():
    if other != _folder and time.time() - other.stat().st_mtime > UNUSED:
      shutil.rmtree(other, ignore_errors=True)


def add(workdir: pathlib.Path, texts: Mapping[str, str]) -> None:
  """Adds texts, by digest, to a workdir's; from process 0."""
  present = read(workdir)
  if not texts.keys() - present.keys() or jax.process_index():
    return
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as file:
    for name, text in sorted((present | texts).items()):
      file.writestr(zipfile.ZipInfo(f'{name}.txt', STAMP), text, zipfile.ZIP_DEFLATED, LEVEL)
  files.write_bytes(workdir / FILE, content.getvalue())


def read(workdir: pathlib.Path) -> dict[str, str]:
  """The texts of a workdir's programs by digest; empty where it has none.

  Raises:
    WorkdirError: the file is damaged.
  """
  path = workdir / FILE
  if not path.exists():
    return {}
  try:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as file:
      return {name.removesuffix('.txt'): file.read(name).decode() for name in file.namelist()}
  except (zipfile.BadZipFile, zlib.error, UnicodeDecodeError) as error:
    raise files.WorkdirError(
      f'{path} is damaged: {error}. Remove it: it only shows what differs between programs.'
    ) from error
