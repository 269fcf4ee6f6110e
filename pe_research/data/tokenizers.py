"""Tokenizers: bytes to ids and back without loss, and the number of bytes of every id."""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from pe_research.storage import locks

SPACE_MARK = '▁'  # sentencepiece writes a space so, and would decode this character as one
SMALLEST = 258


class Tokenizer(Protocol):
  """The interface of tokenizers.

  vocab: number of ids. token_bytes: int32 [vocab], the bytes of an id, so that
  sum(token_bytes[encode(x)]) == len(x); it converts nats/token to bits per byte. fingerprint: text
  that differs when the ids do.
  """

  vocab: int
  token_bytes: np.ndarray
  fingerprint: str

  def encode(self, data: bytes, name: str = 'the document') -> np.ndarray:
    """Ids [L]; decode(encode(x)) == x. `name` is for error messages."""

  def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
    """The bytes of ids [L]; ValueError for an id beyond the vocabulary."""


class Bytes:
  """Every byte is its own id: nothing to train, and comparable across domains."""

  vocab = 256
  fingerprint = 'bytes'

  def __init__(self):
    self.token_bytes = np.ones(256, np.int32)

  def encode(self, data: bytes, name: str = 'the document') -> np.ndarray:
    """Ids uint8 [L], a read-only view of data."""
    del name  # no errors are possible
    return np.frombuffer(data, np.uint8)

  def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
    """The bytes of ids [L]."""
    return checked(ids, self.vocab).astype(np.uint8).tobytes()


class SentencePiece:
  """Byte-pair encoding by sentencepiece, trained on the training documents.

  Unknown characters are encoded as bytes and nothing is normalised, so that every UTF-8 text comes
  back exactly. Training runs in one thread, since with several the same documents can give
  different models. A .json beside the model file records what it was trained on.
  """

  def __init__(
    self, path: str, *, vocab: int | None = None, documents: Sequence[bytes] | None = None
  ):
    """Opens the model file, and trains it first if it is not there.

    Args:
      path: the model file; several processes may make it at once.
      vocab: number of ids, 257 of them for unknown text and bytes; None: that of the file.
      documents: the training documents, UTF-8, all held in memory: a sample of a large set will
        do. Optional once the file is there; ValueError if it was trained on others.
    """
    if not os.path.exists(path):
      if vocab is None or documents is None:
        raise ValueError(f'no tokenizer model {path!r}: give vocab and documents to train it.')
      with locks.locked(f'{path}.lock'):
        if not os.path.exists(path):
          _train(path, vocab, documents)
    self._model = _load(path)
    self.vocab = self._model.vocab_size()
    _check_training(path, self.vocab, vocab, documents)
    self.path = path
    self.fingerprint = hashlib.sha256(self._model.serialized_model_proto()).hexdigest()
    self._bytes = [self._token(i) for i in range(self.vocab)]
    self._space_mark = [self._model.piece_to_id(f'<0x{b:02X}>') for b in SPACE_MARK.encode()]
    self.token_bytes = np.array([len(token) for token in self._bytes], np.int32)

  def _token(self, i: int) -> bytes:
    if self._model.is_byte(i):
      return bytes([int(self._model.id_to_piece(i)[1:-1], 16)])
    if self._model.is_unknown(i) or self._model.is_control(i):
      return b''
    return self._model.id_to_piece(i).replace(SPACE_MARK, ' ').encode()

  def encode(self, data: bytes, name: str = 'the document') -> np.ndarray:
    """Ids int32 [L]; ValueError with `name` if data is not UTF-8."""
    ids = []
    for i, part in enumerate(text_of(data, name).split(SPACE_MARK)):
      ids += self._space_mark if i else []
      ids += self._model.encode(part)
    return np.array(ids, np.int32)

  def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
    """The bytes of ids [L], which may end within a character."""
    return b''.join([self._bytes[i] for i in checked(ids, self.vocab).tolist()])


def checked(ids: Sequence[int] | np.ndarray, vocab: int) -> np.ndarray:
  """Ids as int64 [L]; ValueError for an id beyond the vocabulary."""
  ids = np.asarray(ids)
  if ids.size and not 0 <= ids.min() <= ids.max() < vocab:
    bad = ids.min() if ids.min() < 0 else ids.max()
    raise ValueError(f'token {bad} is not in the vocabulary: ids go from 0 to {vocab - 1}.')
  return ids.astype(np.int64)


def text_of(data: bytes, name: str) -> str:
  """Text of bytes; ValueError with `name` if they are not UTF-8."""
  try:
    return data.decode()
  except UnicodeDecodeError as error:
    raise ValueError(
      f'{name} is not UTF-8: byte {error.start} is {data[error.start]:#04x}, and this tokenizer '
      'reads text only. Convert the document, or tokenize as bytes.'
    ) from None


def _load(path: str):
  import sentencepiece  # an optional tokenizer: bytes need no such library

  try:
    return sentencepiece.SentencePieceProcessor(model_file=path)
  except RuntimeError as error:
    raise ValueError(
      f'{path!r} is not a sentencepiece model: {error}. Give another path; a file that is not '
      'there is trained.'
    ) from error


def _train(path: str, vocab: int, documents: Sequence[bytes]) -> None:
  import sentencepiece

  if vocab < SMALLEST:
    raise ValueError(
      f'a vocabulary of {vocab} tokens is too small: 256 bytes, unknown text and 1 character '
      f'need {SMALLEST}. Raise data.vocab.'
    )
  lines = list(_lines(documents))
  if not lines:
    raise ValueError(f'no text in {len(documents)} documents: a tokenizer needs at least 1 line.')
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=model,
      model_type='bpe',
      vocab_size=vocab,
      byte_fallback=True,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      allow_whitespace_only_pieces=True,
      bos_id=-1,
      eos_id=-1,
      pad_id=-1,
      max_sentence_length=2**30,
      num_threads=1,
      minloglevel=2,
    )
  except RuntimeError as error:
    reason = str(error).rsplit('] ', maxsplit=1)[-1]  # after the place in its source
    raise ValueError(
      f'{len(documents)} documents do not give a vocabulary of {vocab} tokens: {reason} Set '
      'data.vocab within that limit.'
    ) from error
  record = {'documents': _digest(documents), 'vocab': vocab, 'version': sentencepiece.__version__}
  # The model is written last: whoever sees it must also see its record.
  for file, content in ((f'{path}.json', json.dumps(record).encode()), (path, model.getvalue())):
    with open(f'{file}.part', 'wb') as part:
      part.write(content)
    os.replace(f'{file}.part', file)


def _lines(documents: Sequence[bytes]) -> Iterator[str]:
  """Lines of the documents: the trainer drops long sentences, and so would drop documents."""
  name = getattr(documents, 'id', 'document {}'.format)
  for i, data in enumerate(documents):
    yield from filter(None, text_of(data, name(i)).split('\n'))


def _digest(documents: Iterable[bytes]) -> str:
  digest = hashlib.sha256()
  for data in documents:
    digest.update(len(data).to_bytes(8, 'little'))
    digest.update(data)
  return digest.hexdigest()


def _check_training(
  path: str, has: int, vocab: int | None, documents: Sequence[bytes] | None
) -> None:
  """Raises ValueError if the model file is not the one that training would make."""
  fix = 'Give another path, or delete the file to train it again.'
  if vocab is not None and has != vocab:
    raise ValueError(f'{path!r} has {has} tokens; asked for {vocab}. {fix}')
  if documents is not None and os.path.exists(f'{path}.json'):
    with open(f'{path}.json', encoding='utf-8') as file:
      trained = json.load(file)['documents']
    if trained != _digest(documents):
      raise ValueError(
        f'{path!r} was trained on documents with sha256 {trained[:16]}; these have '
        f'{_digest(documents)[:16]}. {fix}'
      )
