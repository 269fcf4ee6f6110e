"""Batches, in an order that depends on the seed alone: not on hosts or on how often a run resumed.

A batch is {'tokens': [B, L + 1]}: inputs and, one to the right, targets. A packed batch also has
'segments' and 'pos' [B, L + 1]; one of a task has 'weights', float32, 1 where a token is scored.
For schemes that read beyond a window, 'beyond' [B, M] has the tokens that follow it in its document
and -1 past its end; windows, their order and their hash chain are the same for all schemes.
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
  """Shapes of the global batch of a resolved config; `beyond` as in `build`."""
  rows, width = config['optimizer']['batch'], config['length'] + 1
  names = ('tokens', 'segments', 'pos') if config['data']['packing'] else ('tokens',)
  batch = {name: jax.ShapeDtypeStruct((rows, width), np.int32) for name in names}
  if beyond:
    batch['beyond'] = jax.ShapeDtypeStruct((rows, beyond), np.int32)
  if config['data']['task']:
    batch['weights'] = jax.ShapeDtypeStruct((rows, width), np.float32)
  return batch


def check(config: Mapping[str, Any], beyond: int) -> None:
  """Raises ValueError where the scheme reads beyond a window and the data do not allow it."""
  data = config['data']
  for field in ('task', 'packing', 'needles') if beyond else ():
    if data[field]:
      raise ValueError(
        f'data.{field} is {data[field]!r}, and {config["position"]["name"]!r} chooses the tokens '
        f'of a sequence out of {config["length"]} and {beyond} more that follow, which breaks up '
        f"what belongs together. Set position.text='whole', or unset data.{field}."
      )


def _following(tokens: np.ndarray, start: int, count: int) -> np.ndarray:
  """`count` tokens from `start` on, padded with -1: int32 [count]."""
  tokens = tokens[start : start + count].astype(np.int32)
  return np.pad(tokens, (0, count - tokens.size), constant_values=-1)


class Batches(abc.ABC):
  """An endless iterator with a hash chain over its windows, and a state to resume from."""

  def __init__(self):
    self.chain, self.step = '', 0

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

  def state(self) -> dict[str, Any]:
    """What `restore` needs, as JSON."""
    return {'step': self.step, 'chain': self.chain}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Continues after the batch at which `state` was taken."""
    self.step, self.chain = state['step'], state['chain']


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
      batch: B, windows in a batch.
      seed: decides the order.
      packing: windows may cross documents; batches then have 'segments' and 'pos'.
      beyond: tokens after a window that batches have as well; 0 with packing.
    """
    super().__init__()
    self.documents, self.length, self.batch, self.seed = documents, length, batch, seed
    self.packing, self.beyond = packing, beyond
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


class Streamed(Batches):
  """Documents shuffled and read by grain, in a new order each epoch.

  Without packing each document gives one window at a random place, and documents shorter than a
  window are skipped; with packing documents are concatenated. Every host reads the global batch and
  keeps its rows, so that the order does not depend on the number of hosts.
  """

  def __init__(
    self, source, tokenizer, length: int, batch: int, seed: int, packing: bool, beyond: int = 0
  ):
    """Builds the pipeline over `source`, documents of bytes by index; the rest as in Memory."""
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
  """Another stream, with needles hidden in some of its rows."""

  def __init__(
    self, stream: Batches, tokenizer: tokenizers.Tokenizer, share: float, keys: int, seed: int
  ):
    """Plants in a `share` of the rows of `stream`, up to `keys` needles in each."""
    super().__init__()
    self.stream, self.share, self.keys, self.seed = stream, share, keys, seed
    self.needles = needles.Needles(tokenizer)

  def draw(self) -> dict[str, np.ndarray]:
    """The next batch of the stream, planted."""
    batch = self.stream.draw()
    self.needles.sow(batch, self.share, self.keys, [self.seed, self.step])
    self.step += 1
    return batch

  def state(self) -> dict[str, Any]:
    """Its own, and the stream's."""
    return super().state() | {'stream': self.stream.state()}

  def restore(self, state: Mapping[str, Any]) -> None:
    """Restores both."""
    super().restore(state)
    self.stream.restore(state['stream'])


class Generated(Batches):
  """Batch = f(seed, step): examples of a task."""

  def __init__(self, task: str, longest: int, batch: int, seed: int):
    """Draws `batch` examples a step, of sizes 1 to `longest`."""
    super().__init__()
    self.task, self.longest, self.batch, self.seed = task, longest, batch, seed

  def draw(self) -> dict[str, np.ndarray]:
    """The batch of this step."""
    rng = np.random.default_rng([self.seed, self.step])
    self.step += 1
    return tasks.fill(self.task, self.longest, rng, self.batch)


def build(corpus: texts.Corpus, config: Mapping[str, Any], beyond: int) -> Batches:
  """The batches of a run.

  Args:
    corpus: what is read.
    config: resolved.
    beyond: tokens after a window that the scheme reads as well: its `reads_beyond`.
  """
  data, rows = config['data'], config['optimizer']['batch']
  if data['task']:
    return Generated(data['task'], data['task_size'], rows, data['seed'])
  shape = config['length'], rows, data['seed'], data['packing'], beyond
  if corpus.train is None:
    stream = Streamed(corpus.source, corpus.tokenizer, *shape)
  else:
    stream = Memory(corpus.train, *shape)
  if not data['needles']:
    return stream
  return Planted(stream, corpus.tokenizer, data['needles'], data['needle_keys'], data['seed'])
