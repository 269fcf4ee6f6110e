"""Losses of runs by scheme and length, their changes, and paired differences, as numbers."""

import collections
import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from experiments.studies import measured, statistics
from experiments.studies.measured import Run
from pe_research import positions
from pe_research.settings import protocols

CONTROLS = ('none', 'cropped', 'shuffled')
TOLERANCE = 0.05  # bits/byte above the loss at the training length that still counts as kept
FEWEST_DOCUMENTS = 5  # below these there is no interval


@dataclasses.dataclass(frozen=True)
class Scheme:
  """One line of a figure, one row of a table: a positional scheme with its arguments.

  Attributes:
    key: unique, the registered name unless the runs hold several variants of it.
    label: for people, of the class; says the arguments in which variants differ.
    style: index of its colour, marker and dashes: the place in the registry, or past its end.
    train_length: tokens.
    runs: one a seed, by seed.
  """

  key: str
  label: str
  style: int
  train_length: int
  runs: tuple[Run, ...]


def schemes(runs: Sequence[Run]) -> list[Scheme]:
  """The schemes of the runs in registry order; variants of one keep the order of the runs.

  Raises:
    ValueError: two runs are the same scheme with the same arguments at the same seed.
  """
  order = list(positions.SCHEMES)
  variants: dict[str, list[Run]] = {}
  for run in runs:
    variants.setdefault(json.dumps(_identity(run), sort_keys=True), []).append(run)
  place = lambda name: order.index(name) if name in order else len(order)
  groups = sorted(variants.values(), key=lambda group: place(group[0].config['position']['name']))
  found, free, names = [], len(order), collections.Counter()
  for group in groups:
    group = sorted(group, key=lambda run: run.record['seed'])
    for one, other in itertools.pairwise(group):
      if one.record['seed'] == other.record['seed']:
        raise ValueError(
          f'{one.workdir} and {other.workdir} are the same scheme at the same seed; leave one out.'
        )
    name = group[0].config['position']['name']
    names[name] += 1
    style = place(name) if names[name] == 1 else free
    free += style == free
    key = name if names[name] == 1 else f'{name}-{names[name]}'
    label = _label(group[0], runs)
    found.append(Scheme(key, label, style, group[0].record['train_length'], tuple(group)))
  return found


def _identity(run: Run) -> dict[str, Any]:
  label = run.config.get('run', {}).get('label')
  return run.config['position'] | {'trained at': run.record['train_length'], 'label': label}


def _label(run: Run, runs: Sequence[Run]) -> str:
  """The label in the config of the run, or that of the class with the arguments that differ."""
  if run.config.get('run', {}).get('label'):
    return run.config['run']['label']
  identity = _identity(run)
  name, length = identity['name'], identity.pop('trained at')
  del identity['label']
  label = positions.SCHEMES[name].label if name in positions.SCHEMES else name
  others = [r.config['position'] for r in runs if r.config['position']['name'] == name]
  differing = [
    f'{k}={v}'
    for k, v in identity.items()
    if not isinstance(v, list) and any(other.get(k) != v for other in others)
  ]
  if any(r.record['train_length'] != length for r in runs):
    differing.append(f'trained at {length}')
  return f'{label or name} ({", ".join(differing)})' if differing else label or name


@dataclasses.dataclass(frozen=True)
class Section:
  """All rows of one protocol and control at the last step of training.

  Attributes:
    protocol: one of protocols.LOSSES.
    control: one of CONTROLS.
    schemes: in registry order.
    lengths: tokens, all that any run was evaluated at, ascending.
    rows: (scheme key, length) -> rows by seed; absent where nothing was measured.
  """

  protocol: str
  control: str
  schemes: list[Scheme]
  lengths: list[int]
  rows: dict[tuple[str, int], list[dict[str, Any]]]

  @property
  def train_lengths(self) -> list[int]:
    """Tokens, ascending; one unless the runs were allowed to differ in it."""
    return sorted({scheme.train_length for scheme in self.schemes})

  @property
  def target_length(self) -> int | None:
    """Tokens that all stretched schemes are stretched to; None if they differ or there is none."""
    configs = [run.config for scheme in self.schemes for run in scheme.runs]
    targets = {config.get('position', {}).get('target_length') for config in configs} - {None}
    return targets.pop() if len(targets) == 1 else None

  @property
  def several_seeds(self) -> bool:
    """Whether any scheme was run with more than one."""
    return any(len(scheme.runs) > 1 for scheme in self.schemes)

  def values(self, scheme: Scheme, length: int, unit: str = 'bits_per_byte') -> list[float]:
    """One a seed, or none; `unit` is 'bits_per_byte', or 'value' for nats/token."""
    rows = self.rows.get((scheme.key, length), [])
    return [row[unit] for row in rows if row['value'] is not None]

  def mean(self, scheme: Scheme, length: int) -> float | None:
    """Bits/byte, over seeds."""
    values = self.values(scheme, length)
    return fmean(values) if values else None

  def undefined(self, scheme: Scheme, length: int) -> str | None:
    """Why the scheme has no value at `length`; None where it has one or was not measured."""
    rows = self.rows.get((scheme.key, length), [])
    reasons = [row['undefined'] for row in rows if row['value'] is None]
    return reasons[0] if reasons and not self.values(scheme, length) else None

  def end(self, scheme: Scheme) -> tuple[int, str] | None:
    """The first length at which the scheme is undefined, and why; None if there is none."""
    reasons = ((length, self.undefined(scheme, length)) for length in self.lengths)
    return next(((length, reason) for length, reason in reasons if reason), None)

  def reference(self, scheme: Scheme) -> int:
    """The training length, or the measured length nearest below it, or else the shortest."""
    below = [length for length in self.lengths if length <= scheme.train_length]
    return max(below) if below else self.lengths[0]

  def changes(self, scheme: Scheme, length: int) -> list[float]:
    """Bits/byte at `length` minus those at `reference`, one a seed that has both."""
    now, before = (
      {row['seed']: row for row in self.rows.get((scheme.key, n), [])}
      for n in (length, self.reference(scheme))
    )
    return [
      now[seed]['bits_per_byte'] - before[seed]['bits_per_byte']
      for seed in sorted(now.keys() & before.keys())
      if now[seed]['value'] is not None and before[seed]['value'] is not None
    ]

  def change(self, scheme: Scheme, length: int) -> float | None:
    """Mean of `changes`."""
    changes = self.changes(scheme, length)
    return fmean(changes) if changes else None

  def kept(self, scheme: Scheme) -> int:
    """The last length before the loss first exceeds that at `reference` by TOLERANCE, or ends."""
    reached = self.reference(scheme)
    for length in self.lengths[self.lengths.index(reached) :]:
      change = self.change(scheme, length)
      if change is None or not change <= TOLERANCE:
        break
      reached = length
    return reached

  def last(self, scheme: Scheme) -> int | None:
    """The longest length at which there is a value."""
    return max((n for n in self.lengths if self.values(scheme, n)), default=None)

  def best(self, length: int) -> Scheme | None:
    """The scheme of the lowest finite mean."""
    means = {s.key: self.mean(s, length) for s in self.schemes}
    ranked = [s for s in self.schemes if means[s.key] is not None and math.isfinite(means[s.key])]
    return min(ranked, key=lambda scheme: means[scheme.key], default=None)

  @property
  def scored(self) -> list[dict[str, Any]]:
    """All rows that have a value."""
    return [row for rows in self.rows.values() for row in rows if row['value'] is not None]

  @functools.cached_property
  def mixed(self) -> list[int]:
    """Lengths that were measured with other settings than the first length."""
    settings = {n: {r['settings'] for s in self.schemes for r in self.rows.get((s.key, n), [])}
                for n in self.lengths}  # fmt: skip
    return [n for n in self.lengths if settings[n] != settings[self.lengths[0]]]


def sections(runs: Sequence[Run]) -> list[Section]:
  """One for each protocol and control that has rows, in the order of configs, the main one first.

  Of rows that measure the same, those that `measured.select` selects.

  Raises:
    ValueError: there are no rows.
  """
  lines, found = schemes(runs), []
  used = {run.workdir: rows for run, rows in zip(runs, measured.select(runs).rows, strict=True)}
  final = {
    (scheme.key, run.record['seed'], row['protocol'], row['control'], row['eval_length']): row
    for scheme in lines
    for run in scheme.runs
    for row in used[run.workdir]
  }
  for protocol in protocols.LOSSES:
    for control in CONTROLS:
      rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
      for (key, _, *measurement, length), row in final.items():
        if measurement == [protocol, control]:
          rows.setdefault((key, length), []).append(row)
      if rows:
        lengths = sorted({length for _, length in rows})
        found.append(Section(protocol, control, lines, lengths, rows))
  if not found:
    raise ValueError(
      f'{runs[0].workdir} and the others hold no results of their last step; evaluate them with '
      'python -m pe_research.evaluate.'
    )
  return found


@dataclasses.dataclass(frozen=True)
class Paired:
  """How much higher one scheme's loss is than another's on the same documents.

  Attributes:
    difference: bits/byte, of token-weighted means over seeds.
    interval: 95 %, over seeds and documents, bits/byte; of one seed over documents; None with too
      few of them or where a loss is not finite.
    documents: their number.
  """

  difference: float
  interval: tuple[float, float] | None
  documents: int


def paired(section: Section, scheme: Scheme, other: Scheme, length: int) -> Paired | None:
  """`scheme` minus `other` at `length`, over the seeds of both.

  None if there is no such seed, one has no value, or their targets differ.
  """
  by_seed = [{row['seed']: row for row in section.rows.get((s.key, length), [])}
             for s in (scheme, other)]  # fmt: skip
  seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
  pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in seeds]
  if not pairs or any(row['value'] is None for pair in pairs for row in pair):
    return None
  row, names = pairs[0][0], sorted(pairs[0][0]['documents'])
  counts = [
    {d: tokens for d, (_, tokens) in r['documents'].items()} for pair in pairs for r in pair
  ]
  if any(count != counts[0] for count in counts):
    return None
  nats = np.array([[[row['documents'][d][0] for d in names] for row in pair] for pair in pairs])
  gap = nats[:, 0] - nats[:, 1]  # [seeds, documents]
  tokens = np.array([counts[0][d] for d in names], float)
  bits = row['tokens'] / (row['bytes'] * math.log(2))  # bits/byte for one nat/token
  if len(names) < FEWEST_DOCUMENTS or not np.isfinite(gap).all():
    difference = gap.mean(0).sum() / tokens.sum() * bits
    return Paired(float(difference), None, len(names))
  found = statistics.estimate(statistics.contributions(gap, tokens) * bits)
  return Paired(found.value, found.interval, len(names))
