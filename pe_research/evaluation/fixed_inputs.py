"""Hashes of what code on the host computes from fixed inputs.

Code outside of programs decides numbers as well. A change of it changes one of these hashes, and
results from before and after are then not compared:

  contents and order of batches               training.fixed_inputs, and the chain over batches
  which windows are scored, needles, tasks    `of_row`, and the chain over a row's own windows
  batches of windows, rows from losses, the probe    `of_row`
  candidates of a search                      search.methods.fixed_inputs
  statistics and verdicts                     python -m experiments check, which repeats them
"""

import functools

import jax
import numpy as np

from pe_research.common import digest, sharding
from pe_research.data import texts, tokenizers
from pe_research.evaluation import measures, scoring
from pe_research.evaluation.measures import probe
from pe_research.proof import program_text

LENGTH, REACH = 16, 512  # tokens: of training, and of the longest window that is scored
TOKENS = 1_500  # scored at once: three windows of that length, or more
TASK_SIZE = 4


class Source:
  """Documents of bytes by index, no two alike."""

  def __init__(self, lengths: list[int]):
    self.lengths = lengths

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, i: int) -> bytes:
    index = np.arange(self.lengths[i], dtype=np.int64)
    return bytes((97 + (index * index // 7 + 31 * i + index % 11) % 26).astype(np.uint8))


def documents(source: Source, tokenizer: tokenizers.Tokenizer) -> texts.Documents:
  """The tokenized documents of `source`."""
  names = [f'document {i}' for i in range(len(source))]
  return texts.joined(names, [tokenizer.encode(source[i]) for i in range(len(source))],
                     tokenizer.vocab)  # fmt: skip


class _Everywhere:
  """A scheme without a longest length."""

  def check_length(self, length: int) -> None:
    """Accepts every length."""


class _Functional:
  """Stands for a model; its initial weights are 1, and the weights that are scored 0."""

  scheme = _Everywhere()

  def init(self) -> np.ndarray:
    """Weights."""
    return np.float32(1)


class _Scorer(scoring.Scorer):
  """A scorer whose losses are a fixed function of the tokens of a window."""

  def __init__(self):
    self.functional, self.mesh = _Functional(), sharding.one_device()
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
  """A probe without parameters: the class of a state is its value, rounded."""
  classes = np.arange(learn.shape[1], dtype=np.float32)
  return (lambda: None), (), lambda params, states: -abs(np.asarray(states) - classes)


@functools.cache
def of_row(protocol: str, control: str, task: str) -> str:
  """A hash of the row of a measurement on made-up documents with made-up losses."""
  evaluation = {'reach': REACH, 'protocols': (protocol,), 'windows': 7, 'targets': 4,
                'tokens': 16_384, 'stride': 200}  # fmt: skip
  config = {'eval': evaluation, 'length': LENGTH, 'data': {'task': task}}
  made_up = documents(Source([1600, 2631, 720, 1150, 514, 3212]), tokenizers.Bytes())
  corpus = texts.Corpus(made_up, None, made_up, tokenizers.Bytes(), {})
  plan, size = measures.plan(corpus, config), TASK_SIZE if protocol == 'task' else REACH
  subject = scoring.Subject(_Scorer(), np.float32(0))
  if protocol == 'probe':
    return digest.of_json([probe.probe(subject, plan, size, control, _classifier), _learning()])
  row = measures.measure(subject, _Everywhere(), plan, corpus, protocol, control, size)
  return digest.of_json(row)


def _learning() -> list[str]:
  """Digests of the programs that initialise, fit and apply a probe."""
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
