"""Texts of programs: in a workdir, for comparisons to show; on this machine, to lower each once.

A text of this machine is kept under the hash of all code of the package, so that any edit makes it
anew. Only commands keep them: a notebook or a test may have changed a function in memory.
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
LEVEL = 1  # of compression: all texts are written again where one is added
UNUSED = 86_400  # seconds after which texts of other code are removed
_folder: pathlib.Path | None = None


def use() -> None:
  """Keeps texts on this machine from here on, unless code was edited since its import began.

  JAX_ENABLE_COMPILATION_CACHE=false keeps none, as of compiled programs.
  """
  global _folder
  edited = max(path.stat().st_mtime for path in provenance.sources()) >= IMPORTED
  if not edited and jax.config.jax_enable_compilation_cache:
    _folder = local_copies.home() / 'programs' / provenance.code()[:16]


def kept(key: str, make: Callable[[], str]) -> str:
  """The text under a key that says all that it depends on but the code; made if there is none.

  A disk that cannot be read or written keeps nothing, and ends nothing.
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
  """Adds texts by digest to those that a workdir has; from process 0."""
  known = read(workdir)
  if not texts.keys() - known.keys() or jax.process_index():
    return
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as file:
    for name, text in sorted((known | texts).items()):
      file.writestr(zipfile.ZipInfo(f'{name}.txt', STAMP), text, zipfile.ZIP_DEFLATED, LEVEL)
  files.write_bytes(workdir / FILE, content.getvalue())


def read(workdir: pathlib.Path) -> dict[str, str]:
  """Digest -> text of the programs that a workdir has; empty where it has none.

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
