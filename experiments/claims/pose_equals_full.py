"""Short texts at skipped positions teach as much as texts of the whole length."""

from experiments.claims.terms import (
  BASES,
  TRAINED,
  Claim,
  Expect,
  Model,
  Published,
  nll,
)

SHARE = 10
LENGTHS = {'pose': 1, 'rand_pos': 1, 'pi': 4}  # over L, of the texts

CLAIM = Claim(
  id='C24',
  name='pose_equals_full',
  title='PoSE, tuned on texts of L, equals tuning on texts of 4 L; random positions do not.',
  paper='arXiv:2309.10400, table 1',
  published=(
    Published(
      'LLaMA-7B (2k) to 16k, GovReport: full length; PoSE; RandPos', '4.59; 4.60; 15.16', 'table 1'
    ),
    Published('Proof-pile', '2.53; 2.60; 7.73', 'table 1'),
  ),
  says='At 4 L, PoSE is less than 0.02 nats worse than full length, and RandPos more than 0.1 '
  'worse than PoSE.',
  models=TRAINED
  | {
    f'{name}, {v}': Model(
      f'{name}:{preset}factor=4', length=length, start=rope, share=SHARE, panel=v
    )
    for v, (rope, preset) in BASES.items()
    for name, length in LENGTHS.items()
  },
  tests=tuple(
    test
    for v in BASES
    for test in (
      Expect(
        'PoSE - full length at 4 L',
        nll(f'pose, {v}', 4) - nll(f'pi, {v}', 4),
        below=0.02,
        paper='+0.002',
        variant=v,
      ),
      Expect(
        'RandPos - PoSE at 4 L',
        nll(f'rand_pos, {v}', 4) - nll(f'pose, {v}', 4),
        above=0.1,
        paper='+1.19',
        variant=v,
      ),
    )
  ),
  traps=(
    'Chunks are of text without a gap; the authors leave text out between them.',
    'Equal tokens: full length has a quarter of the texts.',
  ),
  figure=(0.5, 1, 2, 4),
)
