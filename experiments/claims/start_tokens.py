"""The first tokens should keep their angles when all others are interpolated."""

from experiments.claims.terms import (
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

KEPT = (0, 1, 2, 4, 16)


def kept(s: int, tokens: int, v: str) -> str:
  """The name of a model."""
  return f's={s}, {tokens} kept, {v}'


def tests(v: str) -> tuple[Expect, ...]:
  """A few tokens help; L / 4 hurt."""
  return (
    *(
      Expect(
        f's = {s}, at {s} L: 2 kept - none',
        nll(kept(s, 2, v), s) - nll(kept(s, 0, v), s),
        below=-0.005,
        variant=v,
      )
      for s in (2, 4)
    ),
    Expect(
      's = 4, at 4 L: 16 kept - none',
      nll(kept(4, 16, v), 4) - nll(kept(4, 0, v), 4),
      above=0,
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
  says='With 2 first tokens kept PI is more than 0.005 nats better at 2 L (s = 2) and 4 L (s = 4); '
  'with 16, a quarter of L, it is worse at 4 L.',
  models=TRAINED
  | {
    kept(s, n, v): Model(
      f'longrope:factor={s},long_factor={s},start_tokens={n}',
      start=rope,
      label=f'PI, s = {s}, {n} kept, {v}',
    )
    for v, (rope, _) in BASES.items()
    for s in (2, 4)
    for n in KEPT
  },
  tests=tests(PUBLISHED) + tests(MATCHED),
  traps=(
    'One number of tokens is tested, chosen before the runs: the best of many would be luck.',
  ),
  figure=(1, 2, 4),
)
