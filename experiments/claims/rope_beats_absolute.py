"""RoPE learns better and faster than absolute positions."""

from experiments.studies.terms import (
  BASES,
  ROPE,
  ROPE_MATCHED,
  Claim,
  Expect,
  Model,
  Published,
  nll,
)

HALF = {'steps': {'cpu': 750, 'accelerator': 25_000}}
ABSOLUTE = ('sinusoidal', 'learned')

CLAIM = Claim(
  id='C34',
  name='rope_beats_absolute',
  title='At the training length RoPE is better than absolute positions, and sooner.',
  paper='arXiv:2104.09864, sec. 4',
  published=(
    Published(
      'RoFormer against its alternatives, and its convergence in pre-training',
      'consistently better; faster: no figures for a decoder',
      'abstract and sec. 4.2',
      'notes',
    ),
  ),
  says='At L, RoPE is better than sinusoidal and than learned positions, after all steps and after '
  'half as many.',
  models={
    'rope': ROPE,
    'rope matched': ROPE_MATCHED,
    **{name: Model(name) for name in ABSOLUTE},
    'rope, half': Model('rope', fields=HALF, panel='half of the steps'),
    'rope matched, half': Model(
      ROPE_MATCHED.position, fields=HALF, label=ROPE_MATCHED.label, panel='half of the steps'
    ),
    **{f'{name}, half': Model(name, fields=HALF, panel='half of the steps') for name in ABSOLUTE},
  },
  tests=tuple(
    Expect(
      f'RoPE - {other} at L{", half of the steps" if part else ""}',
      nll(f'{rope}{part}') - nll(f'{other}{part}'),
      below=0,
      variant=v,
    )
    for v, (rope, _) in BASES.items()
    for other in ABSOLUTE
    for part in ('', ', half')
  ),
  traps=(
    'The paper trains encoders and a linear attention; this is a decoder.',
    'Half of the steps is a run of its own, whose learning rate falls within them.',
  ),
  figure=(0.5, 1, 2),
)
