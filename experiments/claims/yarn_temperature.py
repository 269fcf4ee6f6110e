"""The best temperature of YaRN is 0.1 ln s + 1, whatever the model."""

import math

from experiments.studies.terms import (
  BASES,
  TRAINED,
  Claim,
  Effect,
  Expect,
  Model,
  Published,
  Quantity,
)

GRID = tuple(f'scale:{0.05 * i * 0.05 * i:.4f}' for i in range(18, 33))  # squares of 0.9 to 1.6
FACTORS = (2, 4, 8)


def best(model: str, factor: int) -> Effect:
  """The factor on queries and keys with the lowest loss at the target."""
  return Effect(((1.0, Quantity(model, at=(factor,), of='best_scale', controls=GRID)),))


CLAIM = Claim(
  id='C13',
  name='yarn_temperature',
  title='The loss of a stretched model is lowest with queries and keys times 0.1 ln s + 1.',
  paper='arXiv:2309.00071, eq. 22',
  published=(
    Published(
      'LLaMA 7B to 65B: sqrt(1/t) of the lowest perplexity at s = 8',
      '1.208',
      'sec. 3.4',
      'transcription',
    ),
    Published('DeepSeek-V2 needs (arXiv:2405.04434)', '0.0707 ln s + 1', 'sec. 3.1.4'),
  ),
  says='Of NTK-by-parts at its target, the best factor on queries and keys is within 0.05 of '
  '0.1 ln s + 1, for s = 2, 4 and 8.',
  models=TRAINED
  | {
    f's={s}, {variant}': Model(
      f'ntk_by_parts:{preset}factor={s}', start=rope, panel=f'{variant}, s = {s}'
    )
    for variant, (rope, preset) in BASES.items()
    for s in FACTORS
  },
  tests=tuple(
    Expect(
      f'best factor at s = {s}; the formula has {0.1 * math.log(s) + 1:.3f}',
      best(f's={s}, {variant}', s),
      above=0.1 * math.log(s) + 0.95,
      below=0.1 * math.log(s) + 1.05,
      amount=True,
      paper='1.208' if s == 8 else '',
      unit='x queries and keys',
      variant=variant,
    )
    for variant in BASES
    for s in FACTORS
  ),
  traps=(
    'The grid is read at the target length on the same targets; a parabola finds its lowest.',
  ),
  note='The factor was first taken for a difference, of which the rule decides nothing between '
  'zero and the bound; it is an amount. The bounds are as they were before the runs.',
  figure=(1, 2, 4, 8),
  least_seeds=5,
)
