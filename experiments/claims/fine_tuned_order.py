"""After fine-tuning: YaRN as good as PI, NTK-aware worse, only YaRN good beyond the target."""

from experiments.studies.terms import BASES, TRAINED, Claim, Expect, Model, Published, nll

WAYS = ('pi', 'ntk', 'yarn')
SHARE = 10


def tests(v: str) -> tuple[Expect, ...]:
  """Loss at the target, and a quarter beyond it."""
  pi, ntk, yarn = (f'{way}, {v}' for way in WAYS)
  return (
    Expect('YaRN - PI at 4 L', nll(yarn, 4) - nll(pi, 4), above=-0.02, below=0.01, variant=v,
           paper='+0.003 at 2 L'),
    Expect('NTK - YaRN at 4 L', nll(ntk, 4) - nll(yarn, 4), above=0.03, paper='+0.07 at 2 L',
           variant=v),
    Expect('YaRN - PI at 5 L', nll(yarn, 5) - nll(pi, 5), below=-0.1, paper='−0.29 at 2.5 L',
           variant=v),
  )  # fmt: skip


CLAIM = Claim(
  id='C18',
  name='fine_tuned_order',
  title='Tuned at the target, YaRN equals PI and beats NTK-aware, and goes on a little further.',
  paper='arXiv:2309.00071, table 1',
  published=(
    Published('LLaMA-2-7B, s = 2, at 8,192: PI; NTK; YaRN', '3.34; 3.59; 3.35', 'table 1'),
    Published('at 10,240', '8.07; 6.24; 6.04', 'table 1'),
    Published(
      "at 16,384, in the authors' data but not in the table",
      '102.74; 74.44; 77.23',
      'proofpile-long-small-8k.csv',
    ),
    Published(
      'LLaMA-7B to 16k (arXiv:2309.10400): linear; NTK; YaRN', '4.59; 7.24; 4.53', 'table 6'
    ),
  ),
  says='Tuned to 4 L with equal tokens: at 4 L YaRN is -0.02 to 0.01 nats from PI and NTK-aware '
  'more than 0.03 behind; at 5 L YaRN is better than PI by more than 0.1.',
  models=TRAINED
  | {
    f'{way}, {v}': Model(f'{way}:{preset}factor=4', length=4, start=rope, share=SHARE, panel=v)
    for v, (rope, preset) in BASES.items()
    for way in WAYS
  },
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=(
    "The paper's 400M tokens for YaRN are 210M by its own batch and steps; here all are equal.",
  ),
  figure=(0.5, 1, 2, 4, 5, 8),
)
