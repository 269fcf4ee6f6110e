"""The first tokens should keep their angles when all others are interpolated."""

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

KEPT = {'none': '0', **{f'L/{part}': f'{{L/{part}}}' for part in (64, 32, 16, 4)}}


def kept(s: int, share: str, v: str) -> str:
  """The name of a model."""
  return f's={s}, {share} kept, {v}'


def tests(v: str) -> tuple[Expect, ...]:
  """Keeping L/32 tokens helps; keeping L/16 hurts."""
  return (
    *(
      Expect(
        f's = {s}, at {s} L: L/32 kept - none',
        nll(kept(s, 'L/32', v), s) - nll(kept(s, 'none', v), s),
        below=-0.005,
        paper={2: '−0.015, L/64 kept', 4: '−0.042, L/256 kept'}[s],
        variant=v,
      )
      for s in (2, 4)
    ),
    Expect(
      's = 4, at 4 L: L/16 kept - none',
      nll(kept(4, 'L/16', v), 4) - nll(kept(4, 'none', v), 4),
      above=0,
      paper='+0.53',
      variant=v,
    ),
  )


CLAIM = Claim(
  id='C21',
  name='start_tokens',
  title='PI gains where its first tokens are not interpolated, and loses where too many are not.',
  paper='arXiv:2402.13753, table 2',
  published=(
    Published(
      'PI at 8k, with 0 / 64 / 256 first tokens kept',
      '10.65 / 10.49 / 11.74',
      'table 2',
      'transcription',
    ),
    Published('PI at 16k, with 0 / 16 / 256', '20.49 / 19.64 / 34.65', 'table 2', 'transcription'),
  ),
  says='With its first L/32 tokens kept PI is more than 0.005 nats better at 2 L (s = 2) and 4 L '
  '(s = 4); with L/16 kept it is worse at 4 L.',
  models=TRAINED
  | {
    kept(s, share, v): Model(
      f'longrope:factor={s},long_factor={s},start_tokens={tokens}',
      start=rope,
      label=f'PI, {share} kept',
      panel=f'{v}, s = {s}',
    )
    for v, (rope, _) in BASES.items()
    for s in (2, 4)
    for share, tokens in KEPT.items()
  },
  tests=tests(PUBLISHED) + tests(MATCHED),
  traps=(
    'One number of tokens is tested, chosen before the runs: the best of many would be luck.',
  ),
  note='That the effect is one of a first token that all attend to is not tested: no text has one.',
  figure=(1, 2, 4),
)
