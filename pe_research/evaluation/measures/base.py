"""What all measurements share: the plan of which targets to score, and rows."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pe_research.common import digest
from pe_research.data import texts, tokenizers
from pe_research.evaluation.scoring import Subject as Subject

Row = dict[str, Any]
TEXT = ('fixed_targets', 'passkey', 'probe')  # protocols with windows that end at Plan.ends


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is scored, the same for all lengths and schemes.

  Attributes:
    documents: the held-out documents.
    train_length: tokens.
    stride: tokens between the windows of the sliding protocol.
    ends: for protocols in TEXT, a (document, index past the last target) pair for each window.
    targets: number of targets of such a window.
    parts: for the other protocols, (document, its first tokens) pairs.
    tokenizer: of the documents.
    task: that the model was trained on instead of text, or ''.
    examples: number of examples of a task.
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
    ValueError: fewer windows of the longest length exist than are asked for; says how many.
  """
  evaluation, documents = config['eval'], corpus.validation
  reach, protocols = evaluation['reach'], set(evaluation['protocols'])
  ends, parts = [], []
  if protocols & set(TEXT):
    ends = _spread(documents, reach, evaluation['windows'], evaluation['targets'])
  if protocols - {*TEXT, 'task'}:
    parts = _equal_parts(documents, reach, evaluation['tokens'])
  return Plan(
    documents=documents,
    train_length=config['length'],
    stride=evaluation['stride'],
    ends=ends,
    targets=evaluation['targets'],
    parts=parts,
    tokenizer=corpus.tokenizer,
    task=config['data']['task'],
    examples=evaluation['windows'],
  )


def targets(plan: Plan, protocol: str) -> str:
  """Digest of the targets that a protocol scores at every length."""
  if protocol == 'task':
    return digest.of_json([plan.task, plan.examples])
  if protocol in TEXT:
    return digest.of_json([plan.ends, plan.targets])
  return digest.of_json([[d, len(tokens)] for d, tokens in plan.parts])


def windows(plan: Plan, length: int) -> np.ndarray:
  """Windows of `length` tokens of input that end at Plan.ends: [W, length + 1], a copy."""
  return np.stack([plan.documents[d][end - length - 1 : end] for d, end in plan.ends])


def option(control: str, name: str, default: str = '') -> str:
  """The value of `name` in a control such as 'depth:0.5+keys:4'."""
  return dict(part.partition(':')[::2] for part in control.split('+')).get(name, default)


def by_document(names, values: np.ndarray, keep: np.ndarray | None = None) -> Row:
  """The mean of values [W, T] and their number, with sums by name for paired differences.

  Args:
    names: one for each window; windows of one name are summed.
    values: numbers or bool.
    keep: which of the values count; None for all.
  """
  keep = np.ones(values.shape, bool) if keep is None else keep
  sums: dict[str, list[float]] = {}
  for name, row, kept in zip(names, values.astype(np.float64), keep, strict=True):
    total = sums.setdefault(name, [0.0, 0])
    total[0] += float(row[kept].sum())
    total[1] += int(kept.sum())
  return {
    'value': sum(total for total, _ in sums.values()) / int(keep.sum()),
    'tokens': int(keep.sum()),
    'windows': len(values),
    'documents': sums,
  }


def _spread(documents, reach: int, windows: int, count: int) -> list[tuple[int, int]]:
  """Ends of windows with `reach` tokens of input, spread evenly, no target twice."""
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
  """The first tokens of documents, in multiples of `reach`: equally many each, `tokens` in all."""
  fit = [i for i, n in enumerate(documents.lengths) if n > reach]
  if not fit:
    raise ValueError(
      f'eval.lengths has {reach}, and the validation documents hold 0 windows of that length: the '
      f'longest has {int(documents.lengths.max())} tokens. Lower eval.lengths.'
    )
  each = max(1, tokens // (reach * len(fit))) * reach
  count = min(len(fit), max(1, tokens // each))
  spread = [fit[i * len(fit) // count] for i in range(count)]
  sizes = [min(each, int(documents.lengths[i] - 1) // reach * reach) for i in spread]
  return [(i, documents[i][: size + 1]) for i, size in zip(spread, sizes, strict=True)]
