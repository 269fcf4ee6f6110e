"""The text sources of the project; `open_source` opens each of them."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow_datasets as tfds

from pe_research.common import progress
from pe_research.data.corpora import catalogue
from pe_research.data.corpora.builders import PythonLibrary, StateOfTheUnion, TextFolder
from pe_research.data.corpora.documents import Documents, find_text_key
from pe_research.storage import local_copies, locks

__all__ = [
  'OWN',
  'Documents',
  'PythonLibrary',
  'StateOfTheUnion',
  'TextFolder',
  'at_hand',
  'default_data_dir',
  'open_source',
]

OWN = (StateOfTheUnion.name, PythonLibrary.name)

Builder = tfds.core.DatasetBuilder


def default_data_dir() -> str:
  """Where prepared sets are kept: $PE_DATA, else ~/.cache/pe_research; maybe a bucket."""
  return os.environ.get('PE_DATA') or str(local_copies.home())


def at_hand(name: str, data_dir: str, beat: Callable[[str], None] = progress.unheard) -> str:
  """A directory of this machine that has the set, copied from `data_dir` if that is a bucket.

  `beat` is called for every file that is copied.
  """
  # A folder of texts has no base name, and nothing to copy.
  return local_copies.dataset(data_dir, catalogue.base_name(name), beat)


def open_source(name: str, data_dir: str | None = None, split: str = 'train') -> Documents:
  """Opens a text source for random access, preparing it on first use.

  Several processes may call it at once: one prepares, the others wait. TensorFlow is never
  imported, unless a set of the catalogue has to be prepared and its own code does so.

  Args:
    name: 'state_of_the_union', 'python_library', a folder of text files, or a set of the tfds
      catalogue ('lm1b:1.1.0', 'pg19', 'c4/en'), or one that is prepared in `data_dir`. A set's name
      wins over a folder of that name: write './pg19' for the folder.
    data_dir: where prepared sets are kept, see `at_hand`; None means `default_data_dir()`.
    split: a split of the set, or a slice of one, 'train[:90%]'. The project's own sets have
      'train' only; divide them by document.

  Returns:
    The documents in the order of the set.
  """
  data_dir = at_hand(name, data_dir or default_data_dir())
  builder, prepare = _find(name, data_dir)
  key = find_text_key(builder.info)
  source = _read(builder, split)
  if source is None:
    with locks.locked(os.path.join(data_dir, f'{builder.name}.lock')):
      builder, prepare = _find(name, data_dir)  # again: another process may have prepared it
      if not (builder.data_path / 'dataset_info.json').exists():
        prepare(builder)
    source = _read(builder, split)
  if source is None:
    raise ValueError(
      f'{name!r} is prepared in {builder.data_dir} as {builder.info.file_format.value}, which has '
      'no random access. Delete that folder and prepare it again as array_record. '
      + catalogue.instructions(name, data_dir)
    )
  return Documents(builder, source, split, key)


def _find(name: str, data_dir: str) -> tuple[Builder, Callable[[Builder], None]]:
  """The builder of a name and a function that prepares it; ValueError for an unknown name."""
  if name.startswith(('/', '.', '~')):
    return TextFolder(name, data_dir=data_dir), _prepare
  base = catalogue.base_name(name)
  if base in OWN:
    return catalogue.builder(name, data_dir), _prepare
  if base not in catalogue.registered():
    if os.path.isdir(name):
      return TextFolder(name, data_dir=data_dir), _prepare
    if not base or not os.path.isdir(os.path.join(data_dir, base)):
      raise catalogue.unknown(name)
  return catalogue.builder(name, data_dir), functools.partial(catalogue.prepare, name, data_dir)


def _prepare(builder: Builder) -> None:
  builder.download_and_prepare(file_format='array_record')


def _read(builder: Builder, split: str) -> Sequence[Any] | None:
  """The split's data source; None if the set is not prepared, or not for random access."""
  try:
    return builder.as_data_source(split=split)
  except NotImplementedError:
    return None
  except ValueError as error:
    raise ValueError(
      f'split {split!r} of {builder.name}: {str(error).splitlines()[0]} '
      "A slice is written 'train[:90%]'."
    ) from error
