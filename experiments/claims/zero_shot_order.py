"""Without training: NTK-aware and YaRN lead at half the target; NTK-aware fails at the target."""

from experiments.studies.terms import BASES, TRAINED, Claim, Expect, Model, Published, nll

WAYS = {'pi': 'pi:', 'ntk': 'ntk:', 'yarn': 'yarn:', 'yarn paper': 'yarn:ramp=rotations,'}
PAPER = {(8, 0): '+0.04', (8, 1): '+2.07', (8, 2): '+2.11', (8, 3): '+4.55'}  # by factor and test
FACTORS = (2, 4, 8)
LABELS = {'yarn paper': 'YaRN, ramp of the paper'}


def stretched(variant: str, way: str, factor: int) -> str:
  """The name of a model."""
  return f'{way}, s={factor}, {variant}'


def tests(variant: str, factor: int) -> tuple[Expect, ...]:
  """Loss at half the target, and at the target."""
  pi, ntk, yarn = (stretched(variant, way, factor) for way in ('pi', 'ntk', 'yarn'))
  half = factor / 2
  at, common = f's = {factor}, at', {'variant': variant}
  return (
    Expect(f'{at} half: NTK - YaRN', nll(ntk, half) - nll(yarn, half), -0.05, 0.05,
           paper=PAPER.get((factor, 0), ''), **common),
    Expect(f'{at} half: PI - NTK', nll(pi, half) - nll(ntk, half), above=0.2,
           paper=PAPER.get((factor, 1), ''), **common),
    Expect(f'{at} half: PI - YaRN', nll(pi, half) - nll(yarn, half), above=0.2,
           paper=PAPER.get((factor, 2), ''), **common),
    Expect(f'{at} target: NTK - YaRN', nll(ntk, factor) - nll(yarn, factor), above=0.3,
           paper=PAPER.get((factor, 3), ''), **common),
  )  # fmt: skip


CLAIM = Claim(
  id='C11',
  name='zero_shot_order',
  title='Untrained, NTK-aware and YaRN are best at half of the target; at the target only YaRN is.',
  paper='arXiv:2309.10400, table 6',
  published=(
    Published('LLaMA-7B, s = 8, GovReport at 8k / 16k: linear', '45.89 / 54.33', 'table 6'),
    Published('NTK-aware, the same', '5.80 / 550', 'table 6'),
    Published('YaRN, the same', '5.57 / 5.83', 'table 6'),
    Published(
      'LLaMA-2-7B, PG-19 at 8k / 16k (arXiv:2402.13753): PI; dynamic NTK; YaRN',
      '10.65 / 20.49; 10.21 / 23.29; 32.64 / 87.89',
      'table 1',
    ),
  ),
  says='For s = 2, 4 and 8: at half of s L NTK-aware and YaRN differ by less than 0.05 nats and PI '
  'is worse than both by more than 0.2; at s L NTK-aware is worse than YaRN by more than 0.3.',
  models=TRAINED
  | {
    stretched(variant, way, factor): Model(
      f'{text}{preset}factor={factor}',
      start=rope,
      label=LABELS.get(way, ''),
      panel=f'{variant}, s = {factor}',
    )
    for variant, (rope, preset) in BASES.items()
    for way, text in WAYS.items()
    for factor in FACTORS
  },
  tests=tuple(test for v in BASES for factor in FACTORS for test in tests(v, factor)),
  traps=(
    'The two papers contradict each other about YaRN on prose.',
    "All code ramps YaRN over pairs, the paper over rotations: both are shown, the code's tested.",
    'At a short length beta = 32 lies beyond the fastest pair; matched scales it.',
  ),
  note='First run with three seeds; two more were added after that verdict was seen.',
  figure=(0.5, 1, 2, 4, 8),
)
