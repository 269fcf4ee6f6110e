"""Sentences about a section of results, computed from its numbers."""

import itertools
import math
from collections.abc import Iterator

from experiments.report import summary
from experiments.report.numbers import joined, number
from experiments.report.summary import TOLERANCE, Scheme, Section


def findings(section: Section) -> list[str]:
  """Sentences on losses at the training length, their changes, and losses at the longest length."""
  return [
    *_at_first(section),
    *_kept(section),
    *_worse(section),
    *_at_last(section),
    *_seeds(section),
  ]


def _at_first(section: Section) -> Iterator[str]:
  references = {section.reference(scheme) for scheme in section.schemes}
  if len(references) > 1:
    return
  length = references.pop()
  means = {s.label: section.mean(s, length) for s in section.schemes}
  means = {label: mean for label, mean in means.items() if mean is not None}
  if len(means) < 2:
    return
  low, high = min(means, key=means.get), max(means, key=means.get)
  trained = 'the training length' if [length] == section.train_lengths else 'the reference length'
  yield (
    f'At {trained}, {length} tokens, losses lie between {number(means[low])} ({low}) and '
    f'{number(means[high])} ({high}) bits/byte, {number(means[high] - means[low])} apart.'
  )


def _kept(section: Section) -> Iterator[str]:
  """Schemes whose loss stays within TOLERANCE of that at the training length."""
  longest = section.lengths[-1]
  steady = [s for s in section.schemes if section.kept(s) == longest != section.reference(s)]
  if not steady:
    if longest > min(section.lengths):
      yield f'No scheme keeps its loss within {TOLERANCE} bits/byte up to {longest} tokens.'
    return
  changes = joined(f'{s.label} {number(section.change(s, longest), signed=True)}' for s in steady)
  verb = 'rises' if len(steady) == 1 else 'rise'
  yield (
    f'Up to {longest} tokens{_times(steady, longest)}, the loss of '
    f'{joined(s.label for s in steady)} never {verb} by more than {TOLERANCE} bits/byte over that '
    f'at the training length; the change at {longest} tokens: {changes}.'
  )


def _times(steady: list[Scheme], longest: int) -> str:
  ratios = {longest / scheme.train_length for scheme in steady}
  return f', {ratios.pop():g} times the training length' if len(ratios) == 1 else ''


def _worse(section: Section) -> Iterator[str]:
  """A sentence for each scheme whose loss rises or ends, the latest first."""
  longest = section.lengths[-1]
  following = dict(itertools.pairwise(section.lengths))
  worse = [s for s in section.schemes if section.last(s) and section.kept(s) < longest]
  for scheme in sorted(worse, key=lambda s: -section.kept(s)):
    kept, last, parts = section.kept(scheme), section.last(scheme), []
    change = section.change(scheme, last)
    if last > kept and change is not None:
      text = f'stays within {TOLERANCE} bits/byte up to {kept} tokens'
      if kept == section.reference(scheme):
        text = f'is more than {TOLERANCE} bits/byte worse at {following[kept]} tokens already'
      rise = number(change, signed=True)
      at_last = f', and at {last} tokens its change is {rise} bits/byte'
      parts.append(text + (at_last if last > following[kept] else f' ({rise})'))
    if last < longest:
      why = section.undefined(scheme, following[last])
      text = f'has no value past {last} tokens ({why.rstrip(".")})' if why else ''
      parts.append(text or f'was not measured past {last} tokens')
    yield f'{scheme.label} {"; it ".join(parts)}.'


def _at_last(section: Section) -> Iterator[str]:
  """Paired differences from the lowest loss at the longest length."""
  longest = section.lengths[-1]
  best = section.best(longest)
  if best is None:
    return
  yield (
    f'At {longest} tokens {best.label} is lowest with {number(section.mean(best, longest))} '
    'bits/byte.'
  )
  close, apart = [], []
  for scheme in section.schemes:
    pair = None if scheme is best else summary.paired(section, scheme, best, longest)
    if pair and pair.interval and math.isfinite(pair.difference):
      text = f'{scheme.label} by {number(pair.difference)} ({interval(pair)})'
      (close if pair.interval[0] <= 0 else apart).append((pair.difference, text))
  if apart:
    texts = joined(text for _, text in sorted(apart))
    over = 'seeds and documents' if section.several_seeds else 'documents'
    yield f'On the same documents these are higher, with 95 % intervals over {over}: {texts}.'
  if close:
    texts = joined(text for _, text in sorted(close))
    yield f'These cannot be told from it, as their intervals reach zero: {texts}.'


def interval(pair: summary.Paired) -> str:
  """'0.010 to 0.030', bits/byte."""
  return ' to '.join(map(number, pair.interval)) if pair.interval else 'too few documents'


def _seeds(section: Section) -> Iterator[str]:
  seeds = [tuple(run.record['seed'] for run in s.runs) for s in section.schemes]
  if len(set(seeds)) > 1:
    yield 'Not every scheme was run with every seed: see the table of runs.'
  if min(map(len, seeds)) == 1:
    yield 'With one seed, nothing here says how much another seed would change.'
    return
  spreads = [
    (max(v) - min(v), scheme.label, length)
    for scheme in section.schemes
    for length in section.lengths
    if len(v := section.values(scheme, length)) > 1 and all(map(math.isfinite, v))
  ]
  if spreads:
    spread, label, length = max(spreads)
    yield (
      f'Over {len(seeds[0])} seeds, the largest spread from lowest to highest seed is '
      f'{number(spread)} bits/byte ({label} at {length} tokens).'
    )
