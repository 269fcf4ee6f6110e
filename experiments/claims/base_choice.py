"""Loss beyond training is worst at medium bases; with too small a base, retrieval fails."""

from experiments.studies.terms import EXACT, NEEDLES, Claim, Expect, Model, Published, found, nll

BASES = (10, 30, 73, 300, 1_000, 10_000, 1_000_000)

CLAIM = Claim(
  id='C15',
  name='base_choice',
  title='Extrapolation is worst at a middling base, and retrieval needs one that is large enough.',
  paper='arXiv:2405.14591; arXiv:2310.05209',
  published=(
    Published('smallest base for 4k / 32k tokens, head width 128', '27,000 / 640,000', '', 'notes'),
    Published(
      'fine-tuned with a smaller base (500) a model extrapolates too', 'abstract', '', 'notes'
    ),
  ),
  says='At 4 L, base 300 is worse than base 10 and than base 1,000,000; and at L values at the '
  'beginning are found less often at base 10 than at 10,000, by 5 points.',
  models={
    f'{base:,}': Model(f'rope:base={base}', fields=NEEDLES, label=f'base {base:,}')
    for base in BASES
  },
  tests=(
    Expect('base 300 - base 10 at 4 L', nll('300', 4) - nll('10', 4), above=0),
    Expect('base 300 - base 1,000,000 at 4 L', nll('300', 4) - nll('1,000,000', 4), above=0),
    Expect(
      'found at the beginning of L: base 10 - base 10,000',
      found('10', 1, 0) - found('10,000', 1, 0),
      below=-0.05,
      unit=EXACT,
    ),
  ),
  traps=(
    'The bound of the paper is some 1,700 at L = 64 and heads of 16; 300 and 1,000 are below it.',
    'A base too small makes far and near distances look alike.',
  ),
  figure=(0.5, 1, 2, 4, 8),
)
