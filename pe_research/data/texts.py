"""A corpus: documents of a source as tokens, some of them held out for validation."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pe_research.common import digest, progress
from pe_research.data import corpora, tokenizer_json, tokenizers

MEMORY_LIMIT = 2**30  # bytes of text that the memory loader takes
READ = 10_000  # documents of a streamed source that are searched for long ones


@dataclasses.dataclass(frozen=True)
class Documents:
  """Tokenized documents, concatenated in one array.

  Attributes:
    names: of the documents.
    tokens: [total], the smallest type that holds the vocabulary.
    starts: int64 [documents + 1], where each begins in `tokens`; the last entry is the end.
  """

  names: list[str]
  tokens: np.ndarray
  starts: np.ndarray

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> np.ndarray:
    return self.tokens[self.starts[i] : self.starts[i + 1]]

  @property
  def lengths(self) -> np.ndarray:
    """Tokens of each document, int64."""
    return np.diff(self.starts)


@dataclasses.dataclass(frozen=True)
class Corpus:
  """What a run reads.

  Attributes:
    train: documents to train on; None if the source is streamed.
    source: the training documents as bytes, by index.
    validation: held-out documents.
    tokenizer: bytes to ids and back.
    facts: hashes and sizes for the run's record; runs that differ in them are not compared.
  """

  train: Documents | None
  source: Any
  validation: Documents
  tokenizer: tokenizers.Tokenizer
  facts: dict[str, Any]


def load(config: Mapping[str, Any], beat: Callable[[str], None] = progress.unheard) -> Corpus:
  """Opens, splits and tokenizes the source of a config; prepares it on first use.

  A task has no documents: its examples are generated. `beat` is called with what begins.

  Raises:
    ValueError: too few documents, too large for memory, or as corpora.open_source.
  """
  data = config['data']
  if data['task']:
    none = Documents([], np.zeros(0, np.uint8), np.zeros(1, np.int64))
    return Corpus(None, None, none, tokenizers.Bytes(), {'task': data['task']})
  beat('opening the data')
  directory = config['run']['data_dir'] or corpora.default_data_dir()
  directory = corpora.at_hand(data['source'], directory, beat)
  source = corpora.open_source(data['source'], directory, data['train_split'])
  facts = {'source': source.fingerprint, 'documents': len(source)}
  if data['validation_split']:
    held_out = corpora.open_source(data['source'], directory, data['validation_split'])
    facts['validation_source'] = held_out.fingerprint
    train, validation = (_Subset(part, range(len(part))) for part in (source, held_out))
  else:
    train, validation = _split(source, data['validation_fraction'])
  tokenizer = _tokenizer(data, train, directory, facts['source'])
  held_out = _tokenize(validation, tokenizer)
  facts |= {'tokenizer': tokenizer.fingerprint, 'validation': _hash(held_out)}
  if data['loader'] == 'grain':
    return Corpus(None, train, held_out, tokenizer, facts)
  documents = _first(_tokenize(train, tokenizer), data['limit'])
  facts |= {'train': _hash(documents), 'train_tokens': int(documents.tokens.size)}
  return Corpus(documents, train, held_out, tokenizer, facts)


def long_documents(corpus: Corpus, count: int, length: int, seed: int) -> Documents:
  """Training documents to choose `count` of more than `length` tokens from.

  All documents in memory; of a streamed source the first so long, in an order drawn by the seed.

  Raises:
    ValueError: the streamed source has too few; says how many, of how many that were read.
  """
  if corpus.train is not None:
    return corpus.train
  names, parts = [], []
  read = min(READ, len(corpus.source))
  for i in np.random.default_rng(seed).choice(len(corpus.source), read, replace=False):
    name = corpus.source.id(int(i))
    tokens = corpus.tokenizer.encode(corpus.source[int(i)], name)
    if tokens.size > length:
      names.append(name)
      parts.append(tokens)
    if len(parts) == count:
      return joined(names, parts, corpus.tokenizer.vocab)
  raise ValueError(
    f'{count} training documents of more than {length} tokens are wanted, and of {read} that were '
    f'read of the stream, {len(parts)} are that long. Ask for fewer or shorter ones, or use longer '
    'texts.'
  )


@dataclasses.dataclass(frozen=True)
class _Subset:
  """Some documents of a source, in order."""

  source: Any
  indices: Any

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, i: int) -> bytes:
    return self.source[self.indices[i]]

  def id(self, i: int) -> str:
    return self.source.id(self.indices[i])


def _split(source, fraction: float) -> tuple[_Subset, _Subset]:
  """Holds out the documents with the lowest hashes, whatever their order and names."""
  if len(source) < 2:
    raise ValueError(
      f'the source has {len(source)} document(s); whole documents are held out, so at least 2 are '
      'needed. Cut the text into several files, or name a split in data.validation_split.'
    )
  order = sorted(range(len(source)), key=lambda i: digest.of_bytes(source[i]))
  count = min(max(1, round(fraction * len(source))), len(source) - 1)
  return _Subset(source, sorted(order[count:])), _Subset(source, sorted(order[:count]))


def _tokenizer(data, train, directory: str, source_hash: str) -> tokenizers.Tokenizer:
  if data['tokenizer'] == 'bytes':
    return tokenizers.Bytes()
  if data['tokenizer'] == 'json':
    return tokenizer_json.Json(data['tokenizer_file'], data['vocab'])
  fields = 'vocab', 'train_split', 'validation_split', 'validation_fraction'
  trained_on = digest.of_json([source_hash, *(data[field] for field in fields)])
  path = pathlib.Path(directory) / 'tokenizers' / f'{trained_on[:16]}.model'
  return tokenizers.SentencePiece(str(path), vocab=data['vocab'], documents=train)


def _tokenize(documents: _Subset, tokenizer) -> Documents:
  names, parts, size = [], [], 0
  for i in range(len(documents)):
    text = documents[i]
    size += len(text)
    if size > MEMORY_LIMIT:
      raise ValueError(
        f'the documents exceed the {MEMORY_LIMIT // 2**20} MiB that are held in memory; set '
        "data.loader='grain' to stream them, and a short data.validation_split."
      )
    names.append(documents.id(i))
    parts.append(tokenizer.encode(text, names[-1]))
  return joined(names, parts, tokenizer.vocab)


def joined(names: list[str], parts: list[np.ndarray], vocab: int) -> Documents:
  """Documents from an array of ids below `vocab` for each."""
  starts = np.cumsum([0] + [part.size for part in parts])
  kind = np.uint8 if vocab <= 256 else np.uint16 if vocab <= 65536 else np.int32
  return Documents(names, np.concatenate(parts).astype(kind), starts)


def _first(documents: Documents, limit: int | None) -> Documents:
  """The first documents that fit into `limit` tokens, at least one; all if it is None."""
  if limit is None:
    return documents
  count = max(1, int(np.searchsorted(documents.starts, limit, side='right')) - 1)
  starts = documents.starts[: count + 1]
  return Documents(documents.names[:count], documents.tokens[: starts[-1]], starts)


def _hash(documents: Documents) -> str:
  return digest.of_bytes(documents.tokens.tobytes(), documents.starts.tobytes())
