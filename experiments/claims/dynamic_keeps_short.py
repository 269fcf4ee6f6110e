"""Dynamic scaling does not change short texts and does not explode on long ones."""

from experiments.studies.terms import (
  BASES,
  EQUAL,
  TRAINED,
  Claim,
  Expect,
  Model,
  Published,
  at_base,
  nll,
)

STATIC = ('pi', 'ntk', 'yarn')
SCHEMES = {
  'dynamic ntk': 'dynamic_ntk',
  'dynamic yarn': 'dynamic_yarn',
  'pi to 2 L': 'pi:factor=2',
} | {name: f'{name}:factor=4' for name in STATIC}
LABELS = {'pi to 2 L': 'PI, s = 2'}


def of(name: str, variant: str) -> str:
  """The name of a model."""
  return f'{name}, {variant}'


def tests(v: str) -> tuple[Expect, ...]:
  """Loss at L, dynamic against static; and at 2 L."""
  rope, own = BASES[v][0], lambda name: of(name, v)
  return (
    *(
      Expect(
        f'{name} - RoPE at L', nll(own(name)) - nll(rope), above=-EQUAL, below=EQUAL, variant=v
      )
      for name in ('dynamic ntk', 'dynamic yarn')
    ),
    *(
      Expect(f'{name} (s = 4) - RoPE at L', nll(own(name)) - nll(rope), above=0.01, variant=v)
      for name in STATIC
    ),
    Expect(
      'dynamic YaRN - PI at 2 L',
      nll(own('dynamic yarn'), 2) - nll(own('pi to 2 L'), 2),
      below=0,
      variant=v,
    ),
  )


CLAIM = Claim(
  id='C12',
  name='dynamic_keeps_short',
  title='Dynamic scaling costs nothing up to L, where a static stretch does, and holds beyond.',
  paper='arXiv:2309.00071, sec. 3.3',
  published=(
    Published(
      'perplexity of one GovReport sample against length',
      'a figure only',
      'fig. 5',
      'transcription',
    ),
  ),
  says='Up to L the dynamic schemes are RoPE to the bit, each static one (s = 4) costs more than '
  '0.01 nats there, and at 2 L dynamic YaRN is better than PI stretched to just that.',
  models=TRAINED
  | {
    of(name, v): Model(at_base(text, v), start=rope, label=LABELS.get(name, ''), panel=v)
    for v, (rope, _) in BASES.items()
    for name, text in SCHEMES.items()
  },
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=(
    'Every token of a window takes the factor of its whole length, in one forward pass.',
    'With a cache the keys of before would be stale; here a cache is computed anew.',
  ),
  figure=(0.5, 1, 2, 4, 8),
)
