"""Loss at lengths beyond training, as rows of numbers; one function for each protocol.

An evaluation length N means N tokens of input at positions 0 .. N - 1, hence N targets of which the
last has N tokens of context. Losses are float32 nats, weighted by token.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pe_research import data, digest

Score = Callable[..., np.ndarray]  # (windows [W, N + 1], last) -> nats [W, last]
Row = dict[str, Any]


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
  """

  documents: data.Documents
  train_length: int
  stride: int
  ends: list[tuple[int, int]]
  targets: int
  parts: list[tuple[int, np.ndarray]]


def plan(corpus: data.Corpus, config: Mapping[str, Any]) -> Plan:
  """Chooses the targets and the parts of documents for all lengths of the config.

  Raises:
    ValueError: the longest length leaves fewer windows than asked for; says how many.
  """
  wanted, documents = config['eval'], corpus.validation
  reach, protocols = wanted['reach'], set(wanted['protocols'])
  ends, parts = [], []
  if 'fixed_targets' in protocols:
    ends = _spread(documents, reach, wanted['windows'], wanted['targets'])
  if protocols - {'fixed_targets'}:
    parts = _equal_parts(documents, reach, wanted['tokens'])
  return Plan(documents, config['length'], wanted['stride'], ends, wanted['targets'], parts)


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


def fixed_targets(score: Score, plan: Plan, length: int, control: str = 'none') -> Row:
  """The same targets whatever the length: what context is worth, and nothing else.

  Controls: 'cropped' keeps the last `train_length` tokens of the input only; 'shuffled' permutes
  all tokens before those, which leaves long context without order.
  """
  windows = np.stack([plan.documents[d][end - length - 1 : end] for d, end in plan.ends])
  if control == 'cropped':
    windows = windows[:, -min(length, plan.train_length) - 1 :]
  if control == 'shuffled' and length > plan.train_length:
    prefix = length - plan.train_length
    for i, window in enumerate(windows):
      window[:prefix] = np.random.default_rng(i).permutation(window[:prefix])
  nll, used = score(windows, plan.targets), windows.shape[1] - 1
  return _row(plan, [d for d, _ in plan.ends], nll, windows[:, -plan.targets :]) | {
    'context': [used - plan.targets + 1, used],
    'targets': digest.of_json([plan.ends, plan.targets]),
  }


def non_overlapping(score: Score, plan: Plan, length: int, control: str = 'none') -> Row:
  """Consecutive windows, all targets scored: mean context is half of the length."""
  document, windows = _cut(plan, length)
  return _row(plan, document, score(windows), windows[:, 1:]) | {'context': [1, length]}


def sliding(score: Score, plan: Plan, length: int, control: str = 'none') -> Row:
  """Windows that move by `stride`, the last `stride` targets of each scored.

  The first window of a document scores all of its targets, as nothing before it does.
  """
  if plan.stride > length:
    raise ValueError(f'eval.stride ({plan.stride}) is above the length {length}; lower it.')
  document, windows, first = [], [], []
  for d, tokens in plan.parts:
    for end in range(length, len(tokens), plan.stride):
      document.append(d)
      windows.append(tokens[end - length : end + 1])
      first.append(end == length)
  windows, keep = np.stack(windows), np.zeros((len(windows), length), bool)
  keep[:, -plan.stride :] = True
  keep[np.array(first)] = True
  row = _row(plan, document, score(windows), windows[:, 1:], keep)
  return row | {'context': [1, length], 'stride': plan.stride}


def by_position(score: Score, plan: Plan, length: int, control: str = 'none') -> Row:
  """Loss of the target after each number of tokens of context, 1 .. length."""
  document, windows = _cut(plan, length)
  nll = score(windows)
  row = _row(plan, document, nll, windows[:, 1:]) | {'context': [1, length]}
  return row | {'by_position': [float(x) for x in nll.mean(0, dtype=np.float64)]}


MEASURES = {
  'fixed_targets': fixed_targets,
  'non_overlapping': non_overlapping,
  'sliding': sliding,
  'by_position': by_position,
}


def _cut(plan: Plan, length: int) -> tuple[list[int], np.ndarray]:
  """Documents and windows [W, length + 1] that follow each other; inputs do not overlap."""
  cut = [
    (d, tokens[start : start + length + 1])
    for d, tokens in plan.parts
    for start in range(0, len(tokens) - length, length)
  ]
  return [d for d, _ in cut], np.stack([window for _, window in cut])


def _row(plan: Plan, document: list[int], nll, scored, keep=None) -> Row:
  """The token-weighted mean, its weight, and the sums of each document for paired differences."""
  keep = np.ones(nll.shape, bool) if keep is None else keep
  sums: dict[str, list[float]] = {}
  for d, losses, kept in zip(document, nll.astype(np.float64), keep, strict=True):
    total = sums.setdefault(plan.documents.names[d], [0.0, 0])
    total[0] += float(losses[kept].sum())
    total[1] += int(kept.sum())
  return {
    'value': sum(total for total, _ in sums.values()) / int(keep.sum()),
    'unit': 'nats/token',
    'tokens': int(keep.sum()),
    'windows': len(nll),
    'documents': sums,
    'scored': scored[keep],
  }


def measure(
  score: Score, scheme, plan: Plan, corpus: data.Corpus, protocol: str, control: str, length: int
) -> Row:
  """One row; where the scheme is not defined at `length` it has no value but the reason."""
  row: Row = {'protocol': protocol, 'control': control, 'eval_length': length}
  used = min(length, plan.train_length) if control == 'cropped' else length
  try:
    scheme.check_length(used)
  except ValueError as error:
    return row | {'value': None, 'undefined': str(error)}
  row |= MEASURES[protocol](score, plan, length, control)
  count = int(corpus.tokenizer.token_bytes[row.pop('scored')].sum())
  bits = row['value'] * row['tokens'] / (np.log(2) * count)
  return row | {'bytes': count, 'bits_per_byte': float(bits)}
