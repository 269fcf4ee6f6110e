"""Code that decides numbers and enters no program, shown by what it makes of fixed inputs.

A change in one of these changes a hash that is on record, and runs on either side of it do not
compare:

  what batches are made of, and their order   `of_batches`, and the chain over a run's own batches
  which windows are scored, needles, tasks    `of_row`, and the chain over a row's own windows
  how windows are batched, rows made of losses, what a probe does    `of_row`
  what a search tries                         search.methods.witness
  statistics and the rule of verdicts         python -m experiments check decides kept rows anew
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pe_research.common import digest, sharding
from pe_research.data import batches, texts, tokenizers
from pe_research.evaluation import measures, scoring
from pe_research.evaluation.measures import probe
from pe_research.proof import program_text
from pe_research.settings import configs
from pe_research.training import train_step

BATCHES = 3  # that are drawn
LENGTH, REACH = 16, 512  # tokens: training, and the longest window that is scored
TOKENS = 1_500  # scored at once: three windows of that length, or more
TASK_SIZE = 4
SEED = 2**32 + 2**31 + 7


class _Source:
  """Documents of bytes by index, no two alike."""

  def __init__(self, lengths: list[int]):
    self.lengths = lengths

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, i: int) -> bytes:
    index = np.arange(self.lengths[i], dtype=np.int64)
    return bytes((97 + (index * index // 7 + 31 * i + index % 11) % 26).astype(np.uint8))


def _documents(source: _Source, tokenizer: tokenizers.Tokenizer) -> texts.Documents:
  names = [f'document {i}' for i in range(len(source))]
  return texts.joined(names, [tokenizer.encode(source[i]) for i in range(len(source))],
                     tokenizer.vocab)  # fmt: skip


def of_batches(config: Mapping[str, Any], tokenizer: tokenizers.Tokenizer) -> str:
  """The first batches that a config draws of made-up documents, and a seed as the step gets it.

  The scheme has no part in them, and neither has where the text comes from.
  """
  windows = config['length'] + 1
  source = _Source([windows * 8 * (1 + i % 3) + 5 * i for i in range(6)])
  held = None if config['data']['loader'] == 'grain' else _documents(source, tokenizer)
  corpus = texts.Corpus(held, source, held, tokenizer, {})
  plain = configs.without_scheme(config)
  stream = batches.build(corpus, plain | {'data': plain['data'] | {'seed': 0}})
  for _ in range(BATCHES):
    next(stream)
  seed = train_step.seed({'seed': SEED}, sharding.one_device())
  return digest.of_json([stream.chain, int(seed)])


class _Everywhere:
  """A scheme that has no end."""

  def check_length(self, length: int) -> None:
    """Accepts every length."""


class _Blueprint:
  """What a scorer asks of a model: its initial weights are 1, and those that are scored 0."""

  scheme = _Everywhere()

  def init(self) -> np.ndarray:
    """Weights."""
    return np.float32(1)


class _Scorer(scoring.Scorer):
  """A scorer whose losses are a fixed function of what it reads, window by window."""

  def __init__(self):
    self.blueprint, self.mesh = _Blueprint(), sharding.one_device()
    self.devices, self.tokens = 1, TOKENS
    self._programs = {'nats': _nats, 'hits': _hits, 'hidden': _states}

  def hidden(self, params, windows, layers):
    return self._batched('hidden', params, windows, layers)


def _losses(windows) -> np.ndarray:
  windows = np.asarray(windows)
  seen = np.cumsum(windows.astype(np.int64), axis=1) * 37 + np.arange(windows.shape[1])
  return (seen[:, 1:] % 101 / 25).astype(np.float32)


def _nats(params, windows, last, scale, window):
  del params
  return _losses(windows)[:, -last:] * np.float32(scale) + np.float32((window or 0) % 7)


def _hits(params, windows, last, scale):
  return _nats(params, windows, last, scale, None) < 3.5


def _states(params, windows, layers):
  return _losses(windows)[..., None] + np.float32(layers) + np.asarray(params)


def _classifier(learn: np.ndarray):
  """A probe that learns nothing: the class of a state is what it is, rounded."""
  classes = np.arange(learn.shape[1], dtype=np.float32)
  return (lambda: None), (), lambda params, states: -abs(np.asarray(states) - classes)


@functools.cache
def of_row(protocol: str, control: str, task: str) -> str:
  """What a measurement makes of made-up documents, and of losses that are a function of them."""
  wanted = {'reach': REACH, 'protocols': (protocol,), 'windows': 7, 'targets': 4, 'tokens': 16_384,
            'stride': 200}  # fmt: skip
  config = {'eval': wanted, 'length': LENGTH, 'data': {'task': task}}
  held = _documents(_Source([1600, 2631, 720, 1150, 514, 3212]), tokenizers.Bytes())
  corpus = texts.Corpus(held, None, held, tokenizers.Bytes(), {})
  plan, size = measures.plan(corpus, config), TASK_SIZE if protocol == 'task' else REACH
  subject = scoring.Subject(_Scorer(), np.float32(0))
  if protocol == 'probe':
    return digest.of_json([probe.probe(subject, plan, size, control, _classifier), _learning()])
  row = measures.measure(subject, _Everywhere(), plan, corpus, protocol, control, size)
  return digest.of_json(row)


def _learning() -> list[str]:
  """How a probe begins, learns and answers, which are programs of their own."""
  states = np.array([[[1, -1], [-1, 1]]], np.float32).repeat(4, 0)  # of mean 0 and deviation 1
  with jax.default_matmul_precision('highest'):
    fit, begin, logits = probe.classifier(states)
    params = jax.eval_shape(fit, *begin)
    asked = jax.ShapeDtypeStruct((3, 2), np.float32)
    lowered = (
      jax.jit(lambda: probe.begin(2, 2)).lower(),
      fit.lower(*begin),
      logits.lower(params, asked),
    )
    return [digest.of_bytes(program_text.of(one).encode()) for one in lowered]
