"""PoSE: short texts at skipped positions teach as much as texts of the whole length."""

from experiments.studies.terms import BASES, TRAINED, Claim, Expect, Model, Published, at_base, nll

SHARE = 10
# Model -> scheme, length of its texts over L, label.
TUNED = {
  'pose': ('pose:factor=4', 1, ''),
  'pose whole': ('pose:factor=4,text=whole', 1, 'PoSE, whole text'),
  'rand_pos': ('rand_pos:factor=4', 1, ''),
  'pi': ('pi:factor=4', 4, ''),
}


def tuned(name: str, variant: str) -> Model:
  """One of TUNED, fine-tuned from the RoPE of a variant."""
  position, length, label = TUNED[name]
  return Model(
    at_base(position, variant),
    length=length,
    start=BASES[variant][0],
    share=SHARE,
    label=label,
    panel=variant,
  )


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
    Published(
      'PoSE to 16k by the text of its chunks, GovReport; Proof-pile: some left out; whole',
      '4.60, 4.68; 2.60, 2.61',
      'table 4',
    ),
  ),
  says='At 4 L, PoSE is less than 0.02 nats worse than full length, and RandPos more than 0.1 '
  'worse than PoSE.',
  models=TRAINED | {f'{name}, {v}': tuned(name, v) for v in BASES for name in TUNED},
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
    'PoSE leaves text out between chunks, as in table 1; on whole text, as in table 4, it is shown '
    'beside that and decides nothing.',
    'Equal tokens: full length has a quarter of the texts.',
  ),
  figure=(0.5, 1, 2, 4),
)
