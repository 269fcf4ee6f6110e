"""What extension costs at the old length, after fine-tuning."""

from experiments.studies.terms import BASES, TRAINED, Claim, Expect, Model, Published, nll

SHARE = 10


def tuned(variant: str) -> dict[str, Model]:
  """PI and YaRN fine-tuned to 8 L, and RoPE on as many tokens at L."""
  rope, preset = BASES[variant]
  return {
    f'{name}, {variant}': Model(
      f'{name}:{preset}factor=8',
      length=8,
      start=rope,
      share=SHARE,
      panel=variant,
    )
    for name in ('pi', 'yarn')
  } | {
    f'same, {variant}': Model('rope', start=rope, share=SHARE, label='RoPE, on at L', panel=variant)
  }


CLAIM = Claim(
  id='C17',
  name='short_context_cost',
  title='Tuned to 8 L, short texts suffer a little under YaRN, and more under PI.',
  paper='arXiv:2306.15595, table 5; arXiv:2309.00071, table 3',
  published=(
    Published(
      'LLaMA-7B, Proof-pile at 2,048: before; PI to 8k / 16k / 32k',
      '2.77; 2.79 / 2.79 / 2.82',
      '',
      'transcription',
    ),
    Published(
      'LLaMA-2-7B, MMLU: before; YaRN s = 16 / s = 32',
      '43.8; 42.5 / 41.7',
      'table 3',
      'transcription',
    ),
  ),
  says='At L, YaRN (s = 8, tuned) is 0 to 0.03 nats worse than as much more training at L, and PI '
  'is worse than YaRN.',
  models=TRAINED | {k: m for v in BASES for k, m in tuned(v).items()},
  tests=tuple(
    test
    for v in BASES
    for test in (
      Expect(
        'YaRN - more training at L',
        nll(f'yarn, {v}') - nll(f'same, {v}'),
        above=0,
        below=0.03,
        variant=v,
      ),
      Expect(
        'PI - YaRN at L',
        nll(f'pi, {v}') - nll(f'yarn, {v}'),
        above=0,
        variant=v,
        paper='PI: +0.007 over before',
      ),
    )
  ),
  traps=('Without the control any further training would look like a gain.',),
  figure=(0.5, 1, 2, 4, 8),
  least_seeds=5,
)
