"""Loss by protocol: rows of float32 nats, weighted by token.

An evaluation length N means N tokens of input at positions 0 .. N - 1, hence N targets; the last of
them has N tokens of context.
"""

import numpy as np

from pe_research.evaluation.measures import base
from pe_research.evaluation.measures.base import Plan, Row, Subject


def fixed_targets(score: Subject, plan: Plan, length: int, control: str = 'none') -> Row:
  """The same targets at every length, so that lengths differ in their context alone.

  Controls: 'cropped' keeps only the last `train_length` tokens of the input; 'shuffled' permutes
  all tokens before those, so that long context has no order; 'scale:1.2' multiplies the attention
  logits; 'window:64' lets each query see the last 64 keys in every layer.
  """
  windows = base.windows(plan, length)
  values = {'scale': base.option(control, 'scale'), 'window': base.option(control, 'window')}
  kinds = {'scale': float, 'window': int}
  options = {name: kinds[name](value) for name, value in values.items() if value}
  if control == 'cropped':
    windows = windows[:, -min(length, plan.train_length) - 1 :]
  if control == 'shuffled' and length > plan.train_length:
    prefix = length - plan.train_length
    for i, window in enumerate(windows):
      window[:prefix] = np.random.default_rng(i).permutation(window[:prefix])
  nll = score(windows, plan.targets, **options)
  used = windows.shape[1] - 1
  return _row(plan, [d for d, _ in plan.ends], nll, windows[:, -plan.targets :]) | {
    'context': [used - plan.targets + 1, used],
  }


def non_overlapping(score: Subject, plan: Plan, length: int, control: str = 'none') -> Row:
  """Consecutive windows, all targets scored: the mean context is half of the length."""
  document, windows = _cut(plan, length)
  return _row(plan, document, score(windows), windows[:, 1:]) | {'context': [1, length]}


def sliding(score: Subject, plan: Plan, length: int, control: str = 'none') -> Row:
  """Windows that move by `stride`, the last `stride` targets of each scored.

  The first window of a document scores all of its targets, which no earlier window can.
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


def by_position(score: Subject, plan: Plan, length: int, control: str = 'none') -> Row:
  """Loss by number of tokens of context, 1 .. length."""
  document, windows = _cut(plan, length)
  nll = score(windows)
  row = _row(plan, document, nll, windows[:, 1:]) | {'context': [1, length]}
  return row | {'by_position': [float(x) for x in nll.mean(0, dtype=np.float64)]}


def _cut(plan: Plan, length: int) -> tuple[list[int], np.ndarray]:
  """Documents and consecutive windows [W, length + 1]; inputs do not overlap."""
  cut = [
    (d, tokens[start : start + length + 1])
    for d, tokens in plan.parts
    for start in range(0, len(tokens) - length, length)
  ]
  return [d for d, _ in cut], np.stack([window for _, window in cut])


def _row(plan: Plan, document: list[int], nll, scored, keep=None) -> Row:
  """As base.by_document, in nats/token, with the tokens that were scored."""
  names = [plan.documents.names[d] for d in document]
  keep = np.ones(nll.shape, bool) if keep is None else keep
  return base.by_document(names, nll, keep) | {'unit': 'nats/token', 'scored': scored[keep]}
