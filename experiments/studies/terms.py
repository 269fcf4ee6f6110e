"""The words a claim is written in. Data only: nothing here runs, reads or decides anything."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

PRIMARY = 'primary text'  # read in the paper or in the authors' code and data
TRANSCRIBED = 'transcription'  # read in a transcription of the paper
NOTES = 'notes'  # read in notes, an abstract, or another's implementation
RECALLED = 'recalled'  # not checked; a lead, never printed as a figure
SURE = (PRIMARY, TRANSCRIBED, NOTES, RECALLED)


@dataclasses.dataclass(frozen=True)
class Published:
  """What a paper says.

  Attributes:
    what: which numbers, with their setting.
    value: the numbers.
    where: table, figure or section.
    read: one of SURE: how it reached this file.
  """

  what: str
  value: str
  where: str
  read: str = PRIMARY


@dataclasses.dataclass(frozen=True)
class Model:
  """One model of a claim; lengths and factors are in units of the scale's training length L.

  Attributes:
    position: NAME[:argument=value,...], of the scheme; {L/4} stands for a
      quarter of L in tokens, {searched} for the file of its factors.
    length: trained at, over L.
    fields: further fields of the config, by dotted name, with their values; or with a mapping from
      scale to value, where a scale that is left out keeps its own.
    task: trained on this task instead of text.
    start: name of the model in the same claim whose weights this one has or begins with.
    share: percent of the tokens of `start` to fine-tune on; 0: evaluated as it is.
    searched: factor that LongRoPE's factors are searched for, over the length of `start`; 0: none.
    method: of that search, one of pe_research.search's.
    short: length over L that factors for short texts are searched for instead, the long ones of
      `start` staying; 0: none.
    label: in figures, and with the panel in tables; '' is the scheme's own.
    panel: of a figure; a model is drawn in every panel whose name contains its own.
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
  """A number measured of a model, one for each seed and where possible each document.

  Attributes:
    model: its name in the claim.
    protocol: of the measurement.
    control: of the measurement.
    at: lengths, over L; sizes of a task are over that of training.
    of: '' for the mean itself; or how one number is made of several lengths or controls, one of
      experiments.studies.quantities.DERIVED.
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
SMALL = 0.03  # nats/token; a threshold this near to zero takes more seeds
EQUAL = 1e-9  # nats/token; the threshold of what is the same number, which takes none
PUBLISHED, MATCHED = 'published', 'matched'
ROPE = Model('rope')
MATCHED_LABEL = 'RoPE, matched base'
ROPE_MATCHED = Model('rope:preset=matched', label=MATCHED_LABEL)
# Where a claim is asked of both: the model that is stretched, and what its schemes are told.
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
# Half of the training texts has values to find again; it takes so many, and so long, to learn it.
LONGER = {'steps': {'cpu': 3_000, 'accelerator': 100_000}}  # twice what the scale has
NEEDLES = {'data.needles': 0.5} | LONGER


def nll(model: str, at: float = 1, control: str = 'none', protocol: str = 'fixed_targets'):
  """Loss at `at` L, nats/token."""
  return Quantity(model, protocol, control, (at,))


def found(model: str, at: float = 1, depth: float = 0.5, keys: int = 1, cropped: bool = False):
  """Share of hidden values that are found again at `at` L."""
  control = f'depth:{depth:g}' + (f'+keys:{keys}' if keys > 1 else '')
  return Quantity(model, 'passkey', control + ('+cropped' if cropped else ''), (at,))


DEPTHS = (0, 0.25, 0.5, 0.75, 1)  # from the beginning of a text to the place before the question


def by_depth(models: Iterable[str], at: Iterable[float]) -> tuple[Quantity, ...]:
  """What is found at every depth and length, and of four values in the middle."""
  places = [(depth, 1) for depth in DEPTHS] + [(0.5, 4)]
  pairs = [(model, n) for model in models for n in at]
  return tuple(found(model, n, depth, keys) for model, n in pairs for depth, keys in places)


def solved(model: str, at: float = 1, control: str = 'exact'):
  """Share of a task's examples that are answered exactly, at `at` times the size of training."""
  return Quantity(model, 'task', control, (at,))


@dataclasses.dataclass(frozen=True)
class Expect:
  """What must hold of an effect: that it lies between two numbers.

  Attributes:
    says: in words.
    effect: what is estimated.
    paper: what the paper has of it, in the same unit; '' where it has no number.
    above: what it must exceed; None: nothing.
    below: what it must stay under; None: nothing.
    amount: the effect is an amount, of which zero means nothing; False: a difference.
    control: without it the other tests mean nothing, so that where it does not hold the claim is
      left open; False: a test of the claim.
    unit: of the effect.
    variant: '' where it is asked of all; or of which hyper-parameters, see Claim.
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
  """The control of what is found beyond L: that the model finds values within it."""
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
  """A published claim, and what would settle it here.

  A claim about RoPE may be asked twice, since a short training length changes what its base means:
  'published' keeps the paper's numbers, 'matched' scales them to the length. Its verdict is that of
  'published'; the other is shown beside it.

  Attributes:
    id: 'C01'.
    name: for the command line.
    title: one sentence.
    paper: arXiv number and, where one makes the claim, table or section.
    published: its figures.
    says: the hypothesis, in words.
    models: by name.
    tests: all must hold; the thresholds are committed before the runs.
    traps: what has misled others, and what is done about it here.
    note: how this scale differs from the paper's.
    figure: the length axis of its figure, over L.
    shown: measured besides what is tested, for the tables.
    least_seeds: where the claim needs more of them than its thresholds do.
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
    """Below these the rule decides nothing: 5 where a threshold is small, 3 otherwise."""
    bounds = [b for t in self.tests if t.unit == NATS for b in (t.above, t.below) if b]
    return max(self.least_seeds, 5 if any(EQUAL < abs(b) < SMALL for b in bounds) else 3)

  @property
  def variants(self) -> tuple[str, ...]:
    """In the order of the tests; ('',) where there is one."""
    return tuple(dict.fromkeys(t.variant for t in self.tests if t.variant)) or ('',)
