"""From rows of measurements to the tables that statistics are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import statistics
from experiments.claims.terms import Effect, Quantity
from pe_research import eval_config, measures

Rows = Mapping[tuple[str, str, int], Mapping[str, Any]]  # (protocol, control, length) -> row
REACH = 0.01  # nats/token above the lowest loss that still counts as reached


class Missing(ValueError):
  """What a quantity is made of has not been measured, or has no value."""


def read(rows: Rows, text: str) -> Mapping[str, Any]:
  """The row of a measurement; Missing where there is none, or it has no value."""
  key = eval_config.measurement(text)
  if key not in rows:
    raise Missing(f'{text} has not been measured.')
  if rows[key]['value'] is None:
    raise Missing(f'{text} is undefined: {rows[key]["undefined"]}')
  return rows[key]


def by_document(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> np.ndarray:
  """Z [S, D], see statistics.contributions, of rows that share their documents."""
  counts = [[row['documents'][name][1] for name in names] for row in rows]
  if any(count != counts[0] for count in counts):
    raise ValueError('seeds were measured on different targets; measure them alike.')
  sums = np.array([[row['documents'][name][0] for name in names] for row in rows])
  return statistics.contributions(sums, np.array(counts[0], float))


def reach(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """Doublings of L up to the longest length before the loss leaves its lowest by REACH: [S].

  A scheme that is not defined at a length does not reach it.
  """
  found = []
  for own in rows:
    values = [_value(own, text) for text in texts]
    lowest, reached = min(v for v in values if v is not None), at[0]
    for value, length in zip(values, at, strict=True):
      if value is None or (value > lowest + REACH and length > 1):
        break
      reached = length
    found.append(math.log2(reached))
  return np.array(found)


def _value(rows: Rows, text: str) -> float | None:
  try:
    return read(rows, text)['value']
  except Missing:
    if eval_config.measurement(text) in rows:
      return None  # undefined there
    raise


def best_scale(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """The factor on queries and keys, each, of the lowest loss on a grid of logit scales: [S].

  Between the points of the grid by the parabola through the lowest and its neighbours.
  """
  del at
  scales = [float(measures.option(eval_config.measurement(t)[1], 'scale', '1')) for t in texts]
  order = np.argsort(scales)
  x = np.sqrt(np.array(scales))[order]
  found = []
  for own in rows:
    y = np.array([read(own, text)['value'] for text in texts])[order]
    i = int(y.argmin())
    if i in (0, len(x) - 1):
      found.append(x[i])
      continue
    a, b, _ = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
    found.append(-b / (2 * a))
  return np.array(found)


def tuned(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """The loss on half of the documents at the logit scale that is best on the others: [S, D/2].

  Each seed chooses its own scale.
  """
  del at
  names = sorted(read(rows[0], texts[0])['documents'])
  choosing, held_out = names[::2], names[1::2]
  mean = lambda row, own: (
    sum(row['documents'][n][0] for n in own) / sum(row['documents'][n][1] for n in own)
  )
  best = [
    min((read(own, text) for text in texts), key=lambda row: mean(row, choosing)) for own in rows
  ]
  return by_document(best, held_out)


def early_tokens(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """Change of the loss without overlap from L to `at` L, were context beyond L worth nothing: [S].

  Of `at` L targets a share of 1 - 1 / at then has the loss at the end of the first L, in place of
  the mean over them: fewer targets have little context, and that is all (arXiv:2108.12409, app. B).
  """
  return _parts(rows, texts, at)[0]


def later_tokens(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """The rest of that change: what targets past L gain or lose over those at its end: [S]."""
  return _parts(rows, texts, at)[1]


def _parts(rows, texts, at) -> np.ndarray:
  """[2, S]; the end of the first L is its last quarter, where the loss is nearly level."""
  (text,), (times,) = texts, at
  curves = np.array([read(own, text)['by_position'] for own in rows])
  first = round(curves.shape[1] / times)
  level = curves[:, first - first // 4 : first].mean(1)
  share = 1 - 1 / times
  return share * np.array([level - curves[:, :first].mean(1), curves[:, first:].mean(1) - level])


def per_length(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  """A number of tokens as a share of the length that it was measured at: [S, D]."""
  return _documents(rows, texts, at) / eval_config.measurement(texts[0])[2]


def _documents(rows: Sequence[Rows], texts: Sequence[str], at: Sequence[float]) -> np.ndarray:
  del at
  (text,) = texts
  own = [read(one, text) for one in rows]
  return by_document(own, sorted(own[0]['documents']))


DERIVED: dict[str, Callable[..., np.ndarray]] = {
  '': _documents,
  'reach': reach,
  'best_scale': best_scale,
  'tuned': tuned,
  'per_length': per_length,
  'early_tokens': early_tokens,
  'later_tokens': later_tokens,
}
DOCUMENTS = ('', 'tuned', 'per_length')  # of these, what reads more of a row than its mean
Measured = Callable[[Quantity], tuple[Sequence[Rows], Sequence[tuple[str, float]]]]


def effect(wanted: Effect, measured: Measured) -> np.ndarray:
  """Z [S, D] of an effect, or [S] where one of its quantities has no documents.

  Args:
    wanted: the effect.
    measured: quantity -> rows of each seed, and the measurements that it is made of.

  Raises:
    Missing: something was not measured.
    ValueError: quantities of one effect were measured on different documents.
  """
  parts = []
  for weight, quantity in wanted.terms:
    rows, texts = measured(quantity)
    made = DERIVED[quantity.of](rows, [t for t, _ in texts], [at for _, at in texts])
    parts.append(weight * made)
  if any(part.ndim == 1 for part in parts):
    return sum(part if part.ndim == 1 else part.mean(-1) for part in parts)
  if len({part.shape for part in parts}) > 1:
    raise ValueError(
      f'the quantities of an effect have {sorted({p.shape[1] for p in parts})} documents; '
      'measure them on the same.'
    )
  return sum(parts)
