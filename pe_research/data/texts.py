"""Text as tokens: a source, its tokenizer, and whole documents held out for validation."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pe_research.common import digest, progress
from pe_research.data import corpora, tokenizer_json, tokenizers

MEMORY_LIMIT = 2**30  # bytes of text that the memory loader takes
READ = 10_000  # documents of a streamed source that are read to find long ones


@dataclasses.dataclass(frozen=True)
class Documents:
  """Tokenized documents, end to end in one array.

  Attributes:
    names: what each document is called.
    tokens: [total], the smallest unsigned type that holds the vocabulary.
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
    train: documents to train on; None where the source is streamed instead of held.
    source: the raw training documents, bytes by index.
    validation: held-out documents.
    tokenizer: bytes to ids and back.
    facts: hashes and sizes for the run's record; runs that differ in them do not compare.
  """

  train: Documents | None
  source: Any
  validation: Documents
  tokenizer: tokenizers.Tokenizer
  facts: dict[str, Any]


def load(config: Mapping[str, Any], beat: Callable[[str], None] = progress.unheard) -> Corpus:
  """Opens, splits and tokenizes what `config` names; prepares it on first use.

  A task has no documents: its examples are generated. `beat` is told what is begun.

  Raises:
    ValueError: nothing to train on or to hold out, too large for memory, or as corpora.open_source.
  """
  wanted = config['data']
  if wanted['task']:
    none = Documents([], np.zeros(0, np.uint8), np.zeros(1, np.int64))
    return Corpus(None, None, none, tokenizers.Bytes(), {'task': wanted['task']})
  beat('opening the data')
  directory = config['run']['data_dir'] or corpora.default_data_dir()
  directory = corpora.at_hand(wanted['source'], directory, beat)
  source = corpora.open_source(wanted['source'], directory, wanted['train_split'])
  facts = {'source': source.fingerprint, 'documents': len(source)}
  if wanted['validation_split']:
    held_out = corpora.open_source(wanted['source'], directory, wanted['validation_split'])
    facts['validation_source'] = held_out.fingerprint
    train, validation = (_Subset(part, range(len(part))) for part in (source, held_out))
  else:
    train, validation = _split(source, wanted['validation_fraction'])
  tokenizer = _tokenizer(wanted, train, directory, facts['source'])
  held = _tokenize(validation, tokenizer)
  facts |= {'tokenizer': tokenizer.fingerprint, 'validation': _hash(held)}
  if wanted['loader'] == 'grain':
    return Corpus(None, train, held, tokenizer, facts)
  documents = _first(_tokenize(train, tokenizer), wanted['limit'])
  facts |= {'train': _hash(documents), 'train_tokens': int(documents.tokens.size)}
  return Corpus(documents, train, held, tokenizer, facts)


def long_documents(corpus: Corpus, count: int, length: int, seed: int) -> Documents:
  """Training documents to choose from, where `count` of more than `length` tokens are wanted.

  All that are held; of a streamed source the first so long in an order drawn by the seed.

  Raises:
    ValueError: too few are found in a streamed source; says how many, among how many read.
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
  """Holds out the documents whose hash is lowest: independent of order and of file names."""
  if len(source) < 2:
    raise ValueError(
      f'the source has {len(source)} document(s); whole documents are held out, so at least 2 are '
      'needed. Cut the text into several files, or name a split in data.validation_split.'
    )
  order = sorted(range(len(source)), key=lambda i: digest.of_bytes(source[i]))
  count = min(max(1, round(fraction * len(source))), len(source) - 1)
  return _Subset(source, sorted(order[count:])), _Subset(source, sorted(order[:count]))


def _tokenizer(wanted, train, directory: str, source_hash: str) -> tokenizers.Tokenizer:
  if wanted['tokenizer'] == 'bytes':
    return tokenizers.Bytes()
  if wanted['tokenizer'] == 'json':
    return tokenizer_json.Json(wanted['tokenizer_file'], wanted['vocab'])
  trained_on = digest.of_json(
    [source_hash, wanted['vocab'], wanted['train_split'], wanted['validation_split'],
     wanted['validation_fraction']]
  )  # fmt: skip
  path = pathlib.Path(directory) / 'tokenizers' / f'{trained_on[:16]}.model'
  return tokenizers.SentencePiece(str(path), vocab=wanted['vocab'], documents=train)


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
  """Documents of these tokens, one array of ids below `vocab` each."""
  starts = np.cumsum([0] + [part.size for part in parts])
  kind = np.uint8 if vocab <= 256 else np.uint16 if vocab <= 65536 else np.int32
  return Documents(names, np.concatenate(parts).astype(kind), starts)


def _first(documents: Documents, limit: int | None) -> Documents:
  """The documents that fit into `limit` tokens, in order, one at least; all where it is None."""
  if limit is None:
    return documents
  count = max(1, int(np.searchsorted(documents.starts, limit, side='right')) - 1)
  starts = documents.starts[: count + 1]
  return Documents(documents.names[:count], documents.tokens[: starts[-1]], starts)


def _hash(documents: Documents) -> str:
  return digest.of_bytes(documents.tokens.tobytes(), documents.starts.tobytes())
