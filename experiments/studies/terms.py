"""The terms in which claims are written. Data only: nothing here is run, read or decided."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

PRIMARY = 'primary text'  # read in the paper or in the authors' code and data
TRANSCRIBED = 'transcription'  # read in a transcription of the paper
NOTES = 'notes'  # read in notes, an abstract, or somebody else's implementation
RECALLED = 'recalled'  # from memory, not checked; never printed
SURE = (PRIMARY, TRANSCRIBED, NOTES, RECALLED)


@dataclasses.dataclass(frozen=True)
class Published:
  """Figures that a paper reports.

  Attributes:
    what: which numbers, with their setting.
    value: the numbers.
    where: table, figure or section.
    read: one of SURE: where they were read.
  """

  what: str
  value: str
  where: str
  read: str = PRIMARY


@dataclasses.dataclass(frozen=True)
class Model:
  """One model of a claim; lengths and factors are in units of the scale's training length L.

  Attributes:
    position: NAME[:argument=value,...] of the scheme; {L/4} is a quarter of L in tokens, {searched}
      the file of its factors.
    length: training length over L.
    fields: further fields of the config, by dotted name; each with its value, or with a mapping
      from scale to value, in which a scale that is left out keeps its own.
    task: the task that it is trained on; '': text.
    start: name of the model in the same claim whose weights it uses or is fine-tuned from.
    share: percent of the training tokens of `start` to fine-tune on; 0: no training.
    searched: factor for which LongRoPE's factors are searched, over the length of `start`; 0: no
      search.
    method: of that search, one of pe_research.search.methods.METHODS.
    short: length over L for which factors for short texts are searched instead, while the long
      factors of `start` stay; 0: none.
    label: in figures, and with the panel in tables; '': the scheme's own.
    panel: of a figure; a model is drawn in every panel whose name contains this one.
  """

  position: str
  length: float = 1
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  task: str = ''
  start: str = ''
  share: float = 0
  searched: float = 0
  method: str = 'paper'
  short: float = 0
  label: str = ''
  panel: str = ''


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A number measured of a model, for each seed and if possible each document.

  Attributes:
    model: its name in the claim.
    protocol: of the measurement.
    control: of the measurement.
    at: lengths over L; of a task, sizes over the training size.
    of: how one number is computed from several lengths or controls, one of quantities.DERIVED; '':
      the mean of one measurement.
    controls: those that `of` reads, in place of `control`.
  """

  model: str
  protocol: str = 'fixed_targets'
  control: str = 'none'
  at: tuple[float, ...] = (1,)
  of: str = ''
  controls: tuple[str, ...] = ()

  def __sub__(self, other: 'Quantity | Effect') -> 'Effect':
    return Effect(((1.0, self),)) - other

  def __rmul__(self, number: float) -> 'Effect':
    return number * Effect(((1.0, self),))


@dataclasses.dataclass(frozen=True)
class Effect:
  """A weighted sum of quantities."""

  terms: tuple[tuple[float, Quantity], ...]

  def __sub__(self, other: 'Quantity | Effect') -> 'Effect':
    other = other if isinstance(other, Effect) else Effect(((1.0, other),))
    return Effect(self.terms + (-1.0 * other).terms)

  def __rmul__(self, number: float) -> 'Effect':
    return Effect(tuple((number * weight, quantity) for weight, quantity in self.terms))


NATS, EXACT = 'nats/token', 'exact match'  # units of effects; the second is a share, from 0 to 1
SMALL = 0.03  # nats/token; a threshold below this needs more seeds
EQUAL = 1e-9  # nats/token; the threshold for equal numbers, which needs no more seeds
PUBLISHED, MATCHED = 'published', 'matched'
ROPE = Model('rope')
MATCHED_LABEL = 'RoPE, matched base'
ROPE_MATCHED = Model('rope:preset=matched', label=MATCHED_LABEL)
# Variant -> the model that is extended, and the preset of the schemes that extend it.
BASES = {PUBLISHED: ('rope', ''), MATCHED: ('rope matched', 'preset=matched,')}


def at_base(position: str, variant: str) -> str:
  """A position with the preset of a variant."""
  name, _, rest = position.partition(':')
  given = ','.join(filter(None, (BASES[variant][1].rstrip(','), rest)))
  return f'{name}:{given}' if given else name


TRAINED = {
  'rope': Model('rope', panel=PUBLISHED),
  'rope matched': Model('rope:preset=matched', panel=MATCHED),
}
# Half of the training texts hide values to retrieve; less, or fewer steps, do not teach retrieval.
LONGER = {'steps': {'cpu': 3_000, 'accelerator': 100_000}}  # twice what the scale has
NEEDLES = {'data.needles': 0.5} | LONGER


def nll(model: str, at: float = 1, control: str = 'none', protocol: str = 'fixed_targets'):
  """Loss at `at` L, nats/token."""
  return Quantity(model, protocol, control, (at,))


def found(model: str, at: float = 1, depth: float = 0.5, keys: int = 1, cropped: bool = False):
  """Share of hidden values that are retrieved at `at` L."""
  control = f'depth:{depth:g}' + (f'+keys:{keys}' if keys > 1 else '')
  return Quantity(model, 'passkey', control + ('+cropped' if cropped else ''), (at,))


DEPTHS = (0, 0.25, 0.5, 0.75, 1)  # from the beginning of a text to just before the question


def by_depth(models: Iterable[str], at: Iterable[float]) -> tuple[Quantity, ...]:
  """Retrieval at every depth and length, and of four values in the middle."""
  places = [(depth, 1) for depth in DEPTHS] + [(0.5, 4)]
  pairs = [(model, n) for model in models for n in at]
  return tuple(found(model, n, depth, keys) for model, n in pairs for depth, keys in places)


def solved(model: str, at: float = 1, control: str = 'exact'):
  """Share of a task's examples that are solved exactly, at `at` times the training size."""
  return Quantity(model, 'task', control, (at,))


@dataclasses.dataclass(frozen=True)
class Expect:
  """A test: that an effect lies between two thresholds.

  Attributes:
    says: in words.
    effect: what is estimated.
    paper: the paper's value of it, in the same unit; '' if it has none.
    above: the lower threshold; None: none.
    below: the upper threshold; None: none.
    amount: the effect is an amount, whose zero is no special value; False: a difference.
    control: a prerequisite of the other tests: if it fails, the claim is inconclusive; False: a
      test of the claim.
    unit: of the effect.
    variant: the hyper-parameters that it is for, see Claim; '': all.
  """

  says: str
  effect: Effect
  above: float | None = None
  below: float | None = None
  paper: str = ''
  amount: bool = False
  control: bool = False
  unit: str = NATS
  variant: str = ''


def finds_within(model: str, variant: str, depth: float = 0) -> Expect:
  """The control of retrieval beyond L: that the model retrieves values within it."""
  place = {0: 'at the beginning', 0.5: 'in the middle'}[depth]
  return Expect(
    f'found {place} of L: RoPE',
    Effect(((1.0, found(model, 1, depth)),)),
    above=0.5,
    amount=True,
    control=True,
    unit=EXACT,
    variant=variant,
  )


@dataclasses.dataclass(frozen=True)
class Claim:
  """A published claim, and how it is tested here.

  A claim about RoPE may have two variants, since a short training length changes what its base
  means: 'published' keeps the paper's numbers, 'matched' scales them to the length. The verdict is
  that of 'published'; the other is shown beside it.

  Attributes:
    id: 'C01'.
    name: for the command line.
    title: one sentence.
    paper: arXiv number and, if one makes the claim, table or section.
    published: the paper's figures.
    says: the hypothesis, in words.
    models: by name.
    tests: all must hold; the thresholds are committed before the runs.
    traps: known pitfalls, and what is done about them here.
    note: how this scale differs from the paper's.
    figure: lengths on the axis of its figure, over L.
    shown: further quantities, for the tables.
    least_seeds: the fewest seeds, if more than its thresholds need.
  """

  id: str
  name: str
  title: str
  paper: str
  published: tuple[Published, ...]
  says: str
  models: Mapping[str, Model]
  tests: tuple[Expect, ...]
  traps: tuple[str, ...]
  note: str = ''
  figure: tuple[float, ...] = ()
  shown: tuple[Quantity, ...] = ()
  least_seeds: int = 3

  @property
  def fewest_seeds(self) -> int:
    """The fewest seeds for a verdict: 5 if a threshold is small, 3 otherwise."""
    bounds = [b for t in self.tests if t.unit == NATS for b in (t.above, t.below) if b]
    return max(self.least_seeds, 5 if any(EQUAL < abs(b) < SMALL for b in bounds) else 3)

  @property
  def variants(self) -> tuple[str, ...]:
    """In the order of the tests; ('',) if there is one."""
    return tuple(dict.fromkeys(t.variant for t in self.tests if t.variant)) or ('',)
