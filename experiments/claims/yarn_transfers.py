"""YaRN doubles its factor in half the steps, on texts no longer than before."""

from experiments.studies.terms import (
  BASES,
  MATCHED,
  PUBLISHED,
  TRAINED,
  Claim,
  Expect,
  Model,
  Published,
  nll,
)


def models(v: str) -> dict[str, Model]:
  """S = 4; from there s = 8; and s = 8 at once, on as many tokens in all."""
  rope, preset = BASES[v]
  yarn = lambda s: f'yarn:{preset}factor={s}'
  return {
    f'4, {v}': Model(yarn(4), length=4, start=rope, share=10, label='YaRN, s = 4', panel=v),
    f'4 then 8, {v}': Model(
      yarn(8), length=4, start=f'4, {v}', share=5, label='YaRN, s = 4, then 8', panel=v
    ),
    f'8, {v}': Model(yarn(8), length=4, start=rope, share=15, label='YaRN, s = 8', panel=v),
  }


def tests(v: str) -> tuple[Expect, ...]:
  """At 8 L, twice the length of any training text."""
  four, staged, direct = (f'{name}, {v}' for name in ('4', '4 then 8', '8'))
  return (
    Expect(
      'staged at 8 L - at 4 L',
      nll(staged, 8) - nll(staged, 4),
      below=0.02,
      variant=v,
      paper='−0.03 from 64k to 128k',
    ),
    Expect(
      'staged - at once, at 8 L',
      nll(staged, 8) - nll(direct, 8),
      above=-0.02,
      below=0.02,
      variant=v,
    ),
    Expect(
      's = 4 alone at 8 L - at 4 L',
      nll(four, 8) - nll(four, 4),
      above=0.1,
      variant=v,
      paper='above +1.4 at 1.5 times its target',
    ),
  )


CLAIM = Claim(
  id='C19',
  name='yarn_transfers',
  title='YaRN tuned at s = 4 goes to s = 8 in half the steps, on texts of 4 L.',
  paper='arXiv:2309.00071, table 2',
  published=(
    Published('LLaMA-2-7B, s = 16: at 8k / 64k / 98k', '3.51 / 2.42 / above 10', 'table 2'),
    Published(
      's = 32, from there: at 8k / 64k / 98k / 128k', '3.56 / 2.45 / 2.36 / 2.37', 'table 2'
    ),
  ),
  says='Tuned at s = 4 and then s = 8, on texts of 4 L: 8 L is at most 0.02 nats worse than 4 L, '
  'and within 0.02 of s = 8 at once with as many tokens; s = 4 alone loses more than 0.1 at 8 L.',
  models=TRAINED | models(PUBLISHED) | models(MATCHED),
  tests=tests(PUBLISHED) + tests(MATCHED),
  traps=('The same tokens in all: 10 % and 5 %, or 15 %.',),
  figure=(0.5, 1, 2, 4, 8),
)
