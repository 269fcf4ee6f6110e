"""Code that decides numbers and enters no program, shown by what it makes of fixed inputs.

Which windows make a batch, which are scored, and how rows are made of losses is decided on the
host. Each of these is run on a small made-up text, and the hash of what comes out is on record: a
change that reaches it changes the hash, and two runs on either side of it do not compare.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from pe_research import batches, configs, data, digest, measures, program_text, tokenizers
from pe_research.measures import probe

BATCHES = 3  # that are drawn
LENGTH, REACH = 16, 64  # tokens: training, and the longest window that is scored
TASK_SIZE = 4


class _Source:
  """Documents of bytes by index, no two alike."""

  def __init__(self, lengths: list[int]):
    self.lengths = lengths

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, i: int) -> bytes:
    index = np.arange(self.lengths[i], dtype=np.int64)
    return bytes((97 + (index * index // 7 + 31 * i + index % 11) % 26).astype(np.uint8))


def _documents(source: _Source, tokenizer: tokenizers.Tokenizer) -> data.Documents:
  names = [f'document {i}' for i in range(len(source))]
  return data.joined(names, [tokenizer.encode(source[i]) for i in range(len(source))],
                     tokenizer.vocab)  # fmt: skip


def of_batches(config: Mapping[str, Any], tokenizer: tokenizers.Tokenizer) -> str:
  """The first batches that a config draws of made-up documents, at one seed for all.

  The scheme has no part in them, and neither has where the text comes from.
  """
  windows = config['length'] + 1
  source = _Source([windows * 8 * (1 + i % 3) + 5 * i for i in range(6)])
  held = None if config['data']['loader'] == 'grain' else _documents(source, tokenizer)
  corpus = data.Corpus(held, source, held, tokenizer, {})
  plain = configs.without_scheme(config)
  stream = batches.build(corpus, plain | {'data': plain['data'] | {'seed': 0}})
  for _ in range(BATCHES):
    next(stream)
  return stream.chain


class _Fixed:
  """A model whose losses are a fixed function of what it reads."""

  def __call__(self, windows, last=None, scale=1.0, window=None):
    last = windows.shape[1] - 1 if last is None else last
    seen = np.cumsum(windows.astype(np.int64), axis=1) * 37 + np.arange(windows.shape[1])
    return (seen[:, -last:] % 101 / 25).astype(np.float32)

  def hits(self, windows, last, scale=1.0):
    return self(windows, last) < 2

  def hidden(self, windows, layer, initial):
    del layer, initial
    return self(windows)[..., None]


@functools.cache
def of_row(protocol: str, control: str, task: str) -> str:
  """What a measurement makes of made-up documents, and of losses that are a function of them."""
  wanted = {'reach': REACH, 'protocols': (protocol,), 'windows': 12, 'targets': 4, 'tokens': 1_024,
            'stride': 8}  # fmt: skip
  config = {'eval': wanted, 'length': LENGTH, 'data': {'task': task}}
  tokenizer = tokenizers.Bytes()
  held = _documents(_Source([200, 331, 90, 150, 64, 412]), tokenizer)
  corpus = data.Corpus(held, None, held, tokenizer, {})
  plan, size = measures.plan(corpus, config), TASK_SIZE if protocol == 'task' else REACH
  if protocol == 'probe':
    score = functools.partial(probe.probe, guess=lambda learn, test: np.rint(test[..., 0]))
    row = score(_Fixed(), plan, size, control) | {'fit': _fit()}
  else:
    row = measures.measure(_Fixed(), _Everywhere(), plan, corpus, protocol, control, size)
  return digest.of_json(row)


class _Everywhere:
  """A scheme that has no end."""

  def check_length(self, length: int) -> None:
    """Accepts every length."""


def _fit() -> str:
  """How a probe learns, which is a program of its own."""
  states = np.arange(2 * REACH * 4, dtype=np.float32).reshape(2, REACH, 4) % 11
  fit, begin, _ = probe.classifier(states)
  return digest.of_bytes(program_text.of(fit.lower(*begin)).encode())
