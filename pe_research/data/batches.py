"""Batches in an order that the seed alone decides, whatever the hosts and however often resumed.

A batch is {'tokens': [B, L + 1]}: inputs and, one to the right, targets. A packed batch has
'segments' and 'pos' [B, L + 1] besides; one of a task has 'weights', float32, 1 where a token is
scored. Where the scheme reads on, 'beyond' [B, M] has what follows each window in its document, -1
from where that ends; windows, their order and the hash chain over them are those of any scheme.
"""

import abc
import ast
from collections.abc import Mapping
from typing import Any

import grain
import jax
import numpy as np

from pe_research.common import digest
from pe_research.data import needles, tasks, texts, tokenizers


def shapes(config: Mapping[str, Any], beyond: int) -> dict[str, jax.ShapeDtypeStruct]:
  """What every batch of a resolved config is, over all processes; `beyond` as in `build`."""
  shape, names = (config['optimizer']['batch'], config['length'] + 1), ('tokens',)
  names += ('segments', 'pos') if config['data']['packing'] else ()
  whole = {name: jax.ShapeDtypeStruct(shape, np.int32) for name in names}
  scored = {'weights': jax.ShapeDtypeStruct(shape, np.float32)}
  more = {'beyond': jax.ShapeDtypeStruct((shape[0], beyond), np.int32)} if beyond else {}
  return whole | more | (scored if config['data']['task'] else {})


def check(config: Mapping[str, Any], beyond: int) -> None:
  """Raises ValueError where the scheme reads on after a window and the data have no such text."""
  wanted = config['data']
  for field in ('task', 'packing', 'needles') if beyond else ():
    if wanted[field]:
      raise ValueError(
        f'data.{field} is {wanted[field]!r}, and {config["position"]["name"]!r} chooses the tokens '
        f'of a sequence out of {config["length"]} and {beyond} more that follow, which breaks up '
        f"what belongs together. Set position.text='whole', or unset data.{field}."
      )


def _following(tokens: np.ndarray, start: int, count: int) -> np.ndarray:
  """`count` tokens from `start` on, -1 past the end: int32 [count]."""
  found = tokens[start : start + count].astype(np.int32)
  return np.pad(found, (0, count - found.size), constant_values=-1)


class Batches(abc.ABC):
  """An endless iterator with a hash chain over its windows, and a state to go on from."""

  def __init__(self):
    self.chain = ''

  def __iter__(self) -> 'Batches':
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    batch = self.draw()
    windows = {name: array for name, array in batch.items() if name != 'beyond'}
    self.chain = digest.chain(self.chain, windows)
    return batch

  @abc.abstractmethod
  def draw(self) -> dict[str, np.ndarray]:
    """The next batch."""

  @abc.abstractmethod
  def state(self) -> dict[str, Any]:
    """What `restore` needs, as JSON."""

  @abc.abstractmethod
  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on after the batch that `state` was taken at."""


class Memory(Batches):
  """Batch = f(seed, step): each epoch visits every window of L + 1 tokens once, shuffled."""

  def __init__(
    self,
    documents: texts.Documents,
    length: int,
    batch: int,
    seed: int,
    packing: bool,
    beyond: int = 0,
  ):
    """Counts the windows; ValueError if there is none.

    Args:
      documents: what to read.
      length: L, tokens.
      batch: B, windows a batch.
      seed: decides the order.
      packing: windows may cross documents; their tokens then carry document and position.
      beyond: tokens after a window to give besides; 0 with packing.
    """
    super().__init__()
    self.documents, self.length, self.batch, self.seed = documents, length, batch, seed
    self.packing, self.beyond, self.step = packing, beyond, 0
    total = np.array([documents.tokens.size]) if packing else documents.lengths
    self.firsts = np.cumsum([0, *np.maximum(total - length, 0)])  # first window of each document
    self.windows = int(self.firsts[-1])
    if not self.windows:
      raise ValueError(
        f'no training document has {length + 1} tokens, as a window of length {length} needs; the '
        f'longest has {int(documents.lengths.max())}. Shorten length, or set data.packing.'
      )
    if self.windows > 2**32:
      raise ValueError(f"{self.windows} windows are too many to index; set data.loader='grain'.")

  def draw(self) -> dict[str, np.ndarray]:
    """The batch of this step."""
    count = self.step * self.batch + np.arange(self.batch)
    self.step += 1
    window = np.array([self._shuffled(*divmod(int(i), self.windows)) for i in count])
    document = np.searchsorted(self.firsts, window, side='right') - 1
    offset = self.documents.starts[document] if not self.packing else 0
    start = offset + window - self.firsts[document]
    index = start[:, None] + np.arange(self.length + 1)[None]
    batch = {'tokens': self.documents.tokens[index].astype(np.int32)}
    if self.packing:
      document = np.searchsorted(self.documents.starts, index, side='right') - 1
      batch['segments'] = (document - document[:, :1] + 1).astype(np.int32)
      begins = np.maximum(self.documents.starts[document], start[:, None])
      batch['pos'] = (index - begins).astype(np.int32)
    if self.beyond:
      texts = (self.documents[d] for d in document)
      ends = window - self.firsts[document] + self.length + 1
      following = [_following(t, e, self.beyond) for t, e in zip(texts, ends, strict=True)]
      batch['beyond'] = np.stack(following)
    return batch

  def _shuffled(self, epoch: int, index: int) -> int:
    seed = np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0]
    return grain.experimental.index_shuffle(
      index, max_index=self.windows - 1, seed=int(seed), rounds=4
    )

  def state(self) -> dict[str, Any]:
    """Step and chain."""
    return {'step': self.step, 'chain': self.chain}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Sets step and chain."""
    self.step, self.chain = state['step'], state['chain']


class Streamed(Batches):
  """Documents shuffled and read by grain, each epoch anew, a batch at a time.

  Without packing a visit to a document gives one window at a random place in it, and documents
  shorter than a window are passed over; with packing whole documents follow each other. Every host
  reads the global batch and keeps its rows: the order never depends on the number of hosts.
  """

  def __init__(
    self, source, tokenizer, length: int, batch: int, seed: int, packing: bool, beyond: int = 0
  ):
    """Builds the pipeline over `source`, documents of bytes by index; the rest as for Memory."""
    super().__init__()
    self.length, self.beyond = length, beyond
    least = 1 if packing else length + 1
    if not any(tokenizer.encode(source[i]).size >= least for i in range(len(source))):
      raise ValueError(
        f'no training document has {least} tokens, as a window of length {length} needs. Shorten '
        'length, or set data.packing.'
      )
    documents = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
    if packing:
      tokens = documents.map(
        lambda text: {'tokens': tokenizer.encode(text).astype(np.int32)}
      ).filter(lambda item: item['tokens'].size > 0)
      rows = grain.experimental.ConcatThenSplitIterDataset(
        tokens.to_iter_dataset(), length_struct={'tokens': length + 1}
      )
    else:
      rows = (
        documents.random_map(lambda text, rng: self._window(tokenizer.encode(text), rng))
        .filter(lambda item: item['tokens'] is not None)
        .to_iter_dataset()
      )
    self.iterator = iter(rows.batch(batch, drop_remainder=True))

  def _window(self, tokens: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    spare = tokens.size - self.length - 1
    if spare < 0:
      return {'tokens': None}
    start = int(rng.integers(spare + 1))
    end = start + self.length + 1
    window = {'tokens': tokens[start:end].astype(np.int32)}
    return window | ({'beyond': _following(tokens, end, self.beyond)} if self.beyond else {})

  def draw(self) -> dict[str, np.ndarray]:
    """The next batch of the pipeline."""
    item = next(self.iterator)
    names = {'tokens_positions': 'pos', 'tokens_segment_ids': 'segments'}
    return {names.get(name, name): np.asarray(x) for name, x in item.items()}

  def state(self) -> dict[str, Any]:
    """Chain, and grain's own state."""
    return {'chain': self.chain, 'iterator': repr(self.iterator.get_state())}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Sets both."""
    self.chain = state['chain']
    self.iterator.set_state(ast.literal_eval(state['iterator']))  # JSON would lose tuples


class Planted(Batches):
  """Another stream, with needles in some of its rows."""

  def __init__(
    self, stream: Batches, tokenizer: tokenizers.Tokenizer, share: float, keys: int, seed: int
  ):
    """Plants in a `share` of the rows of `stream`, up to `keys` needles in each."""
    super().__init__()
    self.stream, self.share, self.keys, self.seed, self.step = stream, share, keys, seed, 0
    self.needles = needles.Needles(tokenizer)

  def draw(self) -> dict[str, np.ndarray]:
    """The next batch of the stream, planted."""
    batch = self.stream.draw()
    self.needles.sow(batch, self.share, self.keys, [self.seed, self.step])
    self.step += 1
    return batch

  def state(self) -> dict[str, Any]:
    """Step and chain, and the stream's state."""
    return {'step': self.step, 'chain': self.chain, 'stream': self.stream.state()}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Sets all of them."""
    self.step, self.chain = state['step'], state['chain']
    self.stream.restore(state['stream'])


class Generated(Batches):
  """Batch = f(seed, step): examples of a task."""

  def __init__(self, task: str, longest: int, batch: int, seed: int):
    """Draws `batch` examples a step, of sizes 1 to `longest`."""
    super().__init__()
    self.task, self.longest, self.batch, self.seed, self.step = task, longest, batch, seed, 0

  def draw(self) -> dict[str, np.ndarray]:
    """The batch of this step."""
    rng = np.random.default_rng([self.seed, self.step])
    self.step += 1
    return tasks.fill(self.task, self.longest, rng, self.batch)

  def state(self) -> dict[str, Any]:
    """Step and chain."""
    return {'step': self.step, 'chain': self.chain}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Sets step and chain."""
    self.step, self.chain = state['step'], state['chain']


def build(corpus: texts.Corpus, config: Mapping[str, Any], beyond: int) -> Batches:
  """The batches of a run.

  Args:
    corpus: what is read.
    config: resolved.
    beyond: tokens after a window that the scheme reads as well, its `reads_beyond`.
  """
  wanted, rows = config['data'], config['optimizer']['batch']
  if wanted['task']:
    return Generated(wanted['task'], wanted['task_size'], rows, wanted['seed'])
  shape = config['length'], rows, wanted['seed'], wanted['packing'], beyond
  stream = (
    Streamed(corpus.source, corpus.tokenizer, *shape)
    if corpus.train is None
    else Memory(corpus.train, *shape)
  )
  if not wanted['needles']:
    return stream
  planted = wanted['needles'], wanted['needle_keys'], wanted['seed']
  return Planted(stream, corpus.tokenizer, *planted)
