"""The hidden states of a decoder without positions encode the position of a token."""

from experiments.studies.terms import Claim, Effect, Expect, Model, Published, Quantity


def error(model: str, at: float = 1, weights: str = '') -> Quantity:
  """A probe's mean error at the middle layer, as a share of the length."""
  control = 'layer:{middle}' + (f'+weights:{weights}' if weights else '')
  return Quantity(model, 'probe', control, (at,), of='per_length')


def past(model: str, at: float) -> Quantity:
  """Its mean error at positions beyond L minus that at those within, as a share of the length."""
  return Quantity(model, 'probe', 'layer:{middle}', (at,), of='later_positions')


CLAIM = Claim(
  id='C07',
  name='nope_knows_positions',
  title='A NoPE decoder encodes absolute positions, which a probe reads from its middle layer.',
  paper='arXiv:2203.16634',
  published=(
    Published(
      '1.3B parameters, 1,024 positions: mean error of a probe at layer 0; at layer 4',
      'about 340; about 20',
      'read off a figure',
      'transcription',
    ),
  ),
  says='The mean error at the middle layer is below a tenth of L (a quarter is chance), training '
  'lowers it; at 4 L it is a larger share of the length than at L, and what positions past L are '
  'read worse than those within is more than in a model trained at 4 L.',
  models={
    'nope': Model('nope'),
    'nope long': Model('nope', length=4, label='NoPE, trained at 4 L'),
    'rope': Model('rope'),
  },
  tests=(
    Expect(
      'error at L',
      Effect(((1.0, error('nope')),)),
      below=0.1,
      paper='about 0.02',
      unit='of the length',
    ),
    Expect(
      'before training - after',
      error('nope', weights='initial') - error('nope'),
      above=0,
      unit='of the length',
    ),
    Expect('at 4 L - at L', error('nope', 4) - error('nope'), above=0, unit='of the length'),
    Expect(
      'at 4 L: past L - within, less the same of one trained at 4 L',
      past('nope', 4) - past('nope long', 4),
      above=0,
      unit='of the length',
    ),
  ),
  traps=(
    'The probe learns and is tested on different documents.',
    'An untrained causal network leaks positions as well: it is the control.',
    'The error grows with the position whether or not training reached it: hence a model trained '
    'at 4 L, on as many tokens.',
  ),
  figure=(0.5, 1, 2, 4),
)
