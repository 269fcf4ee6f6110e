"""How far beyond training the loss stays low: sinusoidal, rotary, T5, ALiBi, in this order."""

from experiments.studies.terms import (
  MATCHED,
  PUBLISHED,
  ROPE,
  ROPE_MATCHED,
  Claim,
  Effect,
  Expect,
  Model,
  Published,
  Quantity,
)

# Reach is measured to within the gap of two lengths: L / 64 just beyond L, then more.
AT = (
  *(1 + i / 64 for i in range(16)),
  *(1.25 + i / 32 for i in range(8)),
  *(1.5 + i / 8 for i in range(12)),
  *(3, 4, 6, 8, 16, 32, 64),
)


def reach(model: str) -> Quantity:
  """Doublings of L up to the greatest length with a loss within 0.01 nats of the lowest."""
  return Quantity(model, at=AT, of='reach')


def further(model: str, other: str) -> Effect:
  """The difference of two reaches, in doublings."""
  return reach(model) - reach(other)


CLAIM = Claim(
  id='C04',
  name='order_of_reach',
  title='Reach past the training length grows from sinusoidal over rotary and T5 to ALiBi.',
  paper='arXiv:2108.12409, sec. 2.2',
  published=(
    Published(
      'tokens past 512 or 1,024 until perplexity rises: sinusoidal; rotary; T5; ALiBi',
      '20 to 50; 100 to 200; 600 to 800; above 12,000',
      'sec. 2.2',
      'transcription',
    ),
  ),
  says='The reach, on the same targets, of RoPE is above that of sinusoidal, that of T5 above that '
  'of RoPE, and that of ALiBi above that of T5.',
  models={
    'sinusoidal': Model('sinusoidal'),
    'rope': ROPE,
    'rope matched': ROPE_MATCHED,
    't5': Model('t5'),
    't5 matched': Model('t5:preset=matched', label='T5 bias, matched'),
    'alibi': Model('alibi'),
    'nope': Model('nope'),
    'kerple': Model('kerple'),
    'fire': Model('fire:preset=matched'),
    'xpos': Model('xpos:preset=matched'),
  },
  tests=(
    *(
      test
      for v, rope, t5 in (
        (PUBLISHED, 'rope', 't5'),
        (MATCHED, 'rope matched', 't5 matched'),
      )
      for test in (
        Expect(
          'RoPE - sinusoidal',
          further(rope, 'sinusoidal'),
          above=0,
          variant=v,
          paper='0.26 to 0.48 less 0.06 to 0.13',
          unit='doublings of L',
        ),
        Expect(
          'T5 - RoPE',
          further(t5, rope),
          above=0,
          variant=v,
          paper='1.12 to 1.36 less 0.26 to 0.48',
          unit='doublings of L',
        ),
        Expect(
          'ALiBi - T5',
          further('alibi', t5),
          above=0,
          variant=v,
          paper='above 4.55 less 1.12 to 1.36',
          unit='doublings of L',
        ),
      )
    ),
  ),
  traps=(
    'At L = 64 the last 5 buckets of T5 by its paper, from distance 67 on, are never trained; its '
    'matched form has the last bucket begin within L.',
    'Without overlap a rising loss is hidden by fewer early tokens: reach is of the same targets.',
    'Ranks of NoPE, KERPLE, FIRE and xPos were not published with this one; they are shown only.',
  ),
  figure=(0.5, 1, 1.5, 2, 4, 8, 16),
  least_seeds=5,
)
