"""Documents: a text set as a sequence of bytes."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

TEXT_KEYS = ('text', 'article', 'book_text')
SMALL = 256 * 2**20  # bytes on disk up to which a fingerprint reads everything


class Documents(Sequence):
  """Random access to the documents of one split; `documents[i]` is bytes.

  split: as given, a slice included. text_key: the feature that holds the text. name: set, config
  and version.
  """

  def __init__(
    self, builder: tfds.core.DatasetBuilder, source: Sequence[Any], split: str, key: str
  ):
    """Wraps a data source of the builder; `key` is the text feature."""
    self.name = builder.info.full_name
    self.split = split
    self.text_key = key
    self._set = builder.name
    self._sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    self._small = builder.info.dataset_size <= SMALL
    self._has_ids = 'id' in builder.info.features
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, i: int) -> bytes:
    return _bytes(self._record(i)[self.text_key])

  def _record(self, i: int) -> dict[str, Any]:
    return self._source[range(len(self))[i]]  # a range knows negative indices and IndexError

  def id(self, i: int) -> str:
    """The name of document i: the set's own `id` where it has one, else its index."""
    if not self._has_ids:
      return str(range(len(self))[i])
    value = self._record(i)['id']
    return _bytes(value).decode() if isinstance(value, str | bytes) else str(value)

  @functools.cached_property
  def ids(self) -> list[str]:
    """All names, read on first use. For a set of many millions prefer `id(i)`."""
    return [self.id(i) for i in range(len(self))]

  @functools.cached_property
  def fingerprint(self) -> str:
    """sha256 in hex that identifies the text.

    Up to 256 MB on disk: of the set's name, the number of documents, and every document's length
    and bytes, but not of a folder's path. For larger sets: of the name with config and version, the
    split, and the number of documents in each of the set's splits.
    """
    if not self._small:
      return hashlib.sha256(repr((self.name, self.split, self._sizes)).encode()).hexdigest()
    digest = hashlib.sha256(repr((self._set, len(self))).encode())
    for text in self:
      digest.update(len(text).to_bytes(8, 'little'))
      digest.update(text)
    return digest.hexdigest()


def _bytes(text: str | bytes) -> bytes:
  """The text as bytes; the mock of tfds makes str."""
  return text.encode() if isinstance(text, str) else bytes(text)


def find_text_key(info: tfds.core.DatasetInfo) -> str:
  """The feature that holds the text: one of a usual name, or the only text there is."""
  texts = [key for key, feature in info.features.items() if _is_text(feature)]
  for key in TEXT_KEYS:
    if key in texts:
      return key
  if len(texts) != 1:
    raise ValueError(
      f'{info.full_name} has {len(texts)} text features {texts}, and none is called '
      f'{" or ".join(TEXT_KEYS)}. Choose a set with one text a document, or write the texts out '
      'into a folder.'
    )
  return texts[0]


def _is_text(feature: Any) -> bool:
  return isinstance(feature, tfds.features.Text) and feature.encoder is None
