"""YaRN without training is as good as the last L tokens alone, and retrieves nothing before."""

from experiments.studies.terms import (
  BASES,
  EXACT,
  NEEDLES,
  Claim,
  Expect,
  Model,
  Published,
  by_depth,
  finds_within,
  found,
  nll,
)


def rope(variant: str) -> str:
  """The name of the model at a base."""
  return f'rope, {variant}'


def yarn(variant: str) -> str:
  """The name of that model, extended."""
  return f'yarn, {variant}'


CLAIM = Claim(
  id='C14',
  name='yarn_crops',
  title='Zero-shot YaRN does no better than cropping the text to the training length.',
  paper='arXiv:2512.12167, fig. 5',
  published=(
    Published(
      'perplexity and retrieval of YaRN match those of a cropped text', 'no numbers', 'fig. 5'
    ),
  ),
  says='At 2 and 4 L YaRN (s = 4) and cropping differ by less than 0.02 nats, and YaRN finds '
  'values at the beginning of the text at most 5 points more often.',
  models={
    rope(v): Model(f'rope:{preset}', fields=NEEDLES, label='RoPE', panel=v)
    for v, (_, preset) in BASES.items()
  }
  | {
    yarn(v): Model(
      f'yarn:{preset}factor=4',
      start=rope(v),
      panel=v,
    )
    for v, (_, preset) in BASES.items()
  },
  tests=tuple(finds_within(rope(v), v) for v in BASES)
  + tuple(
    test
    for v in BASES
    for at in (2, 4)
    for test in (
      Expect(
        f'YaRN - cropped at {at} L',
        nll(yarn(v), at) - nll(rope(v), at, 'cropped'),
        above=-0.02,
        below=0.02,
        variant=v,
      ),
      Expect(
        f'found at the beginning of {at} L: YaRN - cropped',
        found(yarn(v), at, 0) - found(rope(v), at, 0, cropped=True),
        below=0.05,
        unit=EXACT,
        variant=v,
      ),
    )
  ),
  traps=(
    'Training texts have values to find again, or no model would look for any.',
    'Cropped, the beginning is out of sight: its score is chance.',
    'A base that finds nothing within L can say nothing beyond it: hence the control.',
  ),
  figure=(0.5, 1, 2, 4),
  shown=by_depth(map(yarn, BASES), (1, 2, 4)) + by_depth(map(rope, BASES), (1,)),
)
