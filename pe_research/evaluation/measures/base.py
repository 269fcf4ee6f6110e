"""What every measurement goes by: a model to ask, and what it is asked about."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pe_research.common import digest
from pe_research.data import texts, tokenizers

Row = dict[str, Any]
TEXT = ('fixed_targets', 'passkey', 'probe')  # protocols that end at the places of a plan


class Subject(Protocol):
  """A model with its weights, as scoring.Subject has it."""

  def __call__(
    self,
    windows: np.ndarray,
    last: int | None = None,
    scale: float = 1.0,
    window: int | None = None,
  ) -> np.ndarray:
    """Nats of the last `last` targets of windows [W, N + 1]: [W, last].

    Logits of attention times `scale`; a query sees the last `window` keys, or all that it does.
    """

  def hits(self, windows: np.ndarray, last: int, scale: float = 1.0) -> np.ndarray:
    """Whether each of these targets is the likeliest token, logits times `scale`: [W, last]."""

  def hidden(self, windows: np.ndarray, layer: int, initial: bool) -> np.ndarray:
    """Normed states [W, N, D] after `layer` blocks, of the weights before training if `initial`."""


@dataclasses.dataclass(frozen=True)
class Plan:
  """What every length is measured on, so that lengths and schemes differ in nothing else.

  Attributes:
    documents: the held-out documents.
    train_length: tokens.
    stride: tokens that the sliding protocol moves by.
    ends: for fixed targets, a (document, index past its last target) pair a window.
    targets: number of targets of such a window.
    parts: for the other protocols, (document, its first tokens) pairs.
    tokenizer: of the documents.
    task: what the model was trained on instead of text, or ''.
    examples: number of windows, and of examples of a task.
  """

  documents: texts.Documents
  train_length: int
  stride: int
  ends: list[tuple[int, int]]
  targets: int
  parts: list[tuple[int, np.ndarray]]
  tokenizer: tokenizers.Tokenizer
  task: str
  examples: int


def plan(corpus: texts.Corpus, config: Mapping[str, Any]) -> Plan:
  """Chooses the targets and the parts of documents for all lengths of the config.

  Raises:
    ValueError: the longest length leaves fewer windows than asked for; says how many.
  """
  wanted, documents = config['eval'], corpus.validation
  reach, protocols = wanted['reach'], set(wanted['protocols'])
  ends, parts = [], []
  if protocols & set(TEXT):
    ends = _spread(documents, reach, wanted['windows'], wanted['targets'])
  if protocols - {*TEXT, 'task'}:
    parts = _equal_parts(documents, reach, wanted['tokens'])
  return Plan(
    documents,
    config['length'],
    wanted['stride'],
    ends,
    wanted['targets'],
    parts,
    corpus.tokenizer,
    config['data']['task'],
    wanted['windows'],
  )


def targets(plan: Plan, protocol: str) -> str:
  """Digest of what a protocol scores, whatever the length."""
  if protocol == 'task':
    return digest.of_json([plan.task, plan.examples])
  if protocol in TEXT:
    return digest.of_json([plan.ends, plan.targets])
  return digest.of_json([[d, len(tokens)] for d, tokens in plan.parts])


def windows(plan: Plan, length: int) -> np.ndarray:
  """The windows of the plan, `length` tokens of input each: [W, length + 1], a copy."""
  return np.stack([plan.documents[d][end - length - 1 : end] for d, end in plan.ends])


def option(control: str, name: str, default: str = '') -> str:
  """The value of `name` in a control such as 'depth:0.5+keys:4'."""
  given = dict(part.partition(':')[::2] for part in control.split('+'))
  return given.get(name, default)


def by_document(names, values: np.ndarray, keep: np.ndarray | None = None) -> Row:
  """The mean of values [W, T] and its weight, with the sums of each name for paired differences.

  Args:
    names: one a window; windows of one name are summed.
    values: numbers or bool.
    keep: which of the values count; None for all.
  """
  keep = np.ones(values.shape, bool) if keep is None else keep
  sums: dict[str, list[float]] = {}
  for name, own, kept in zip(names, values.astype(np.float64), keep, strict=True):
    total = sums.setdefault(name, [0.0, 0])
    total[0] += float(own[kept].sum())
    total[1] += int(kept.sum())
  return {
    'value': sum(total for total, _ in sums.values()) / int(keep.sum()),
    'tokens': int(keep.sum()),
    'windows': len(values),
    'documents': sums,
  }


def _spread(documents, reach: int, windows: int, count: int) -> list[tuple[int, int]]:
  """Windows over all places with `reach` tokens of input, evenly, no target twice."""
  places = np.maximum(documents.lengths - reach + count - 1, 0) // count
  places[documents.lengths <= reach] = 0
  total = int(places.sum())
  if total < windows:
    raise ValueError(
      f'eval.windows is {windows}, but the validation documents hold {total} windows of length '
      f'{reach} ({int((places > 0).sum())} of {len(documents)} documents are long enough, the '
      f'longest has {int(documents.lengths.max())} tokens). Lower eval.windows or eval.lengths.'
    )
  chosen = (np.arange(windows) * total) // windows
  firsts = np.cumsum([0, *places])
  document = np.searchsorted(firsts, chosen, side='right') - 1
  ends = documents.lengths[document] - (chosen - firsts[document]) * count
  return list(zip(document.tolist(), ends.tolist(), strict=True))


def _equal_parts(documents, reach: int, tokens: int) -> list[tuple[int, np.ndarray]]:
  """The first tokens of documents: multiples of `reach`, alike where they last, `tokens` in all."""
  fit = [i for i, n in enumerate(documents.lengths) if n > reach]
  if not fit:
    raise ValueError(
      f'eval.lengths has {reach}, and the validation documents hold 0 windows of that length: the '
      f'longest has {int(documents.lengths.max())} tokens. Lower eval.lengths.'
    )
  each = max(1, tokens // (reach * len(fit))) * reach
  size = lambda i: min(each, int(documents.lengths[i] - 1) // reach * reach) + 1
  count = min(len(fit), max(1, tokens // each))
  spread = [fit[i * len(fit) // count] for i in range(count)]
  return [(i, documents[i][: size(i)]) for i in spread]
