"""The numbers that statistics are computed from, out of the rows of one seed."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.studies import statistics
from experiments.studies.terms import Effect, Quantity
from pe_research.evaluation import measures
from pe_research.settings import protocols

Rows = Mapping[tuple[str, str, int], Mapping[str, Any]]  # (protocol, control, length) -> row
REACH = 0.01  # nats/token above the lowest loss that still counts as reached


class Missing(ValueError):
  """A measurement that a quantity needs is not there, has no value, or cannot be paired."""


@dataclasses.dataclass(frozen=True)
class Score:
  """A quantity or an effect at one seed.

  Attributes:
    value: z [D], a number for each document, see statistics.contributions; or one number.
    targets: digest of the targets, then (document, number of targets) for each document; only
      scores with equal targets are paired. () if the value is one number.
    step: the least change that it can show; if answers are counted, one answer.
  """

  value: np.ndarray | float
  targets: tuple = ()
  step: float = 0.0


def read(rows: Rows, text: str) -> Mapping[str, Any]:
  """The row of a measurement; Missing if there is none, or it has no value."""
  key = protocols.measurement(text)
  if key not in rows:
    raise Missing(f'{text} has not been measured.')
  if rows[key]['value'] is None:
    raise Missing(f'{text} is undefined: {rows[key]["undefined"]}')
  return rows[key]


def by_document(row: Mapping[str, Any], names: Sequence[str]) -> Score:
  """The score of a row, over the named documents."""
  sums, counts = np.array([row['documents'][name] for name in names], float).T
  step = 1 / counts.sum() if 'hits' in row else 0.0
  targets = (row.get('targets', ''), *zip(names, counts, strict=True))
  return Score(statistics.contributions(sums, counts), targets, step)


def reach(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """Doublings of L up to the greatest length at which the loss is within REACH of its lowest.

  Interpolated linearly between the measured lengths; the least change that it can show is the
  doublings between them. A scheme that is undefined at a length does not reach it.
  """
  pairs = zip(at, (_value(own, text) for text in texts), strict=True)
  lengths, losses = zip(
    *((math.log2(n), loss) for n, loss in pairs if loss is not None), strict=True
  )
  bar = min(losses) + REACH
  last = max(i for i, loss in enumerate(losses) if loss <= bar)
  if last + 1 == len(losses):
    return Score(lengths[last])
  (x, y), (further, higher) = (lengths[last], losses[last]), (lengths[last + 1], losses[last + 1])
  return Score(x + (further - x) * (bar - y) / (higher - y), (), further - x)


def _value(rows: Rows, text: str) -> float | None:
  try:
    return read(rows, text)['value']
  except Missing:
    if protocols.measurement(text) in rows:
      return None  # undefined there
    raise


def best_scale(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """The factor on both queries and keys with the lowest loss, from a grid of logit scales.

  Interpolated by the parabola through the lowest point of the grid and its neighbours.
  """
  del at
  scales = _scales(texts)
  order = np.argsort(scales)
  x = np.sqrt(np.array(scales))[order]
  y = np.array([read(own, text)['value'] for text in texts])[order]
  i = int(y.argmin())
  _inside(scales[order[i]], scales)
  a, b, _ = np.polyfit(x[i - 1 : i + 2], y[i - 1 : i + 2], 2)
  return Score(-b / (2 * a))


def _scales(texts: Sequence[str]) -> list[float]:
  return [float(measures.option(protocols.measurement(t)[1], 'scale', '1')) for t in texts]


def _inside(best: float, scales: Sequence[float]) -> None:
  """Raises Missing if the best scale is at an end of the grid, and so no optimum."""
  if best in (min(scales), max(scales)):
    raise Missing(f'the best logit scale is {best:g}, at the edge of the grid; widen the grid.')


def tuned(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """The score on half of the documents at the logit scale that is best on the others: [D / 2].

  Best is the lowest loss or the most right answers; in a tie, the scale nearest to 1. Each seed
  chooses its own scale. It may not be at an end of the grid, except for 0, the least scale that
  there is, at which attention is uniform.
  """
  del at
  names = sorted(read(own, texts[0])['documents'])
  choosing, held_out = names[::2], names[1::2]
  mean = lambda row: (
    sum(row['documents'][n][0] for n in choosing) / sum(row['documents'][n][1] for n in choosing)
  )
  rows, scales = [read(own, text) for text in texts], _scales(texts)
  sign = -1 if 'hits' in rows[0] else 1
  from_one = [abs(math.log(scale)) if scale else math.inf for scale in scales]
  rank = lambda i: (sign * mean(rows[i]), from_one[i])
  best = min(range(len(rows)), key=rank)
  if len(rows) > 2 and scales[best]:
    _inside(scales[best], scales)
  return by_document(rows[best], held_out)


def early_tokens(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """Change of the non-overlapping loss from L to `at` L if context beyond L were worth nothing.

  A share 1 - 1 / at of the `at` L targets then has the loss at the end of the first L, instead of
  the mean over them: fewer targets have little context, nothing else (arXiv:2108.12409, app. B).
  """
  early, _, scatter = _parts(own, texts, at)
  return Score(early, (), scatter)


def later_tokens(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """The rest of that change: what targets beyond L gain or lose against those at its end."""
  _, later, scatter = _parts(own, texts, at)
  return Score(later, (), scatter)


def _parts(own: Rows, texts, at) -> tuple[float, float, float]:
  """The early and the later part of the change, and the least standard error of both.

  The end of the first L is its last quarter, where the loss is nearly level. All seeds read the
  same text there. The scatter of parts of the same length beyond L estimates the error from that.
  """
  within, past = _by_position(own, texts, at)
  few = len(within) // 4
  level, share = within[-few:].mean(), 1 - 1 / at[0]
  scatter = past[: len(past) // few * few].reshape(-1, few).mean(1).std(ddof=1)
  return share * (level - within.mean()), share * (past.mean() - level), share * scatter


def _by_position(own: Rows, texts, at) -> tuple[np.ndarray, np.ndarray]:
  """The loss by position within L, and beyond it up to `at` L."""
  (text,), (times,) = texts, at
  curve = np.array(read(own, text)['by_position'])
  return tuple(np.split(curve, [round(len(curve) / times)]))


def later_positions(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """The mean at positions beyond L minus the mean at those within, as a share of `at` L."""
  within, past = _by_position(own, texts, at)
  return Score((past.mean() - within.mean()) / (len(within) + len(past)))


def mean(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """The value of a row, which it has even if its documents were not kept."""
  del at
  (text,) = texts
  return Score(read(own, text)['value'])


def per_length(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  """A number of tokens as a share of the length that it was measured at: [D].

  Scores at several lengths are paired by document, though its number of targets differs.
  """
  score = _documents(own, texts, at)
  names = tuple(name for name, _ in score.targets[1:])
  return Score(score.value / protocols.measurement(texts[0])[2], names)


def _documents(own: Rows, texts: Sequence[str], at: Sequence[float]) -> Score:
  del at
  (text,) = texts
  row = read(own, text)
  if 'documents' not in row:
    raise Missing(f'{text} was kept without its documents; run the claim again.')
  return by_document(row, sorted(row['documents']))


DERIVED: dict[str, Callable[..., Score]] = {
  '': _documents,
  'mean': mean,
  'reach': reach,
  'best_scale': best_scale,
  'tuned': tuned,
  'per_length': per_length,
  'early_tokens': early_tokens,
  'later_tokens': later_tokens,
  'later_positions': later_positions,
}
DOCUMENTS = ('', 'tuned', 'per_length')  # those that read a row document by document
Measured = Callable[[Quantity], tuple[Rows, Sequence[tuple[str, float]]]]


def effect(wanted: Effect, measured: Measured) -> Score:
  """An effect at one seed: by document, or one number if one of its quantities is one number.

  Args:
    wanted: the effect.
    measured: quantity -> rows of the seed, and the measurements that it needs, each with its `at`.

  Raises:
    Missing: something was not measured, or on other targets than the rest.
  """
  parts = []
  for weight, quantity in wanted.terms:
    rows, texts = measured(quantity)
    named = [text for text, _ in texts]
    made = DERIVED[quantity.of](rows, named, [at for _, at in texts])
    if not np.isfinite(made.value).all():
      raise Missing(f'{", ".join(named)}: a value is not a finite number.')
    parts.append((weight, made))
  step = max(abs(weight) * made.step for weight, made in parts)
  if not all(made.targets for _, made in parts):
    return Score(sum(weight * float(np.mean(made.value)) for weight, made in parts), (), step)
  targets = alike([made for _, made in parts])
  return Score(sum(weight * made.value for weight, made in parts), targets, step)


def alike(scores: Sequence[Score]) -> tuple:
  """The targets that all scores share; Missing if they differ."""
  first, *others = (score.targets for score in scores)
  for other in others:
    if other != first:
      raise Missing(
        f'what is to be paired was measured on different targets, of {len(first) - 1} and '
        f'{len(other) - 1} documents; measure all on the same.'
      )
  return first


def together(scores: Sequence[Score]) -> tuple[np.ndarray, float]:
  """The table of an effect, z [S, D] or [S], and its step; Missing if targets differ by seed."""
  alike(scores)
  return np.array([score.value for score in scores]), max(score.step for score in scores)
