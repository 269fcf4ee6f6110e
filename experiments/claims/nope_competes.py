"""A decoder without positions is nearly as good as one with, at its training length."""

from experiments.studies.terms import (
  BASES,
  LONGER,
  MATCHED_LABEL,
  ROPE_MATCHED,
  Claim,
  Expect,
  Model,
  Published,
  nll,
)

LARGER = {
  'model.width': {'cpu': 128, 'accelerator': 1024},
  'model.layers': {'cpu': 4, 'accelerator': 24},
  'model.heads': {'accelerator': 16},
}
SCHEMES = ('nope', 'learned', 'rope', 'sinusoidal', 'alibi')
MATCHED = ROPE_MATCHED.position
AS_THEY_ARE, TWICE = 'as they are', '2 x steps'


def tests(v: str) -> tuple[Expect, ...]:
  """Against RoPE with one base: the gap, and how more training changes it."""
  rope, _ = BASES[v]
  distance = lambda more='': nll(f'nope{more}') - nll(f'{rope}{more}')
  return (
    Expect('NoPE - RoPE at L', distance(), above=0.02, below=0.12, paper='+0.090', variant=v),
    Expect(
      'NoPE - RoPE with twice the steps, less the same',
      distance(', longer') - distance(),
      below=0,
      variant=v,
    ),
  )


CLAIM = Claim(
  id='C06',
  name='nope_competes',
  title='Without any positions a decoder loses little, and less the longer it trains.',
  paper='arXiv:2203.16634',
  published=(
    Published(
      'WikiText-103, L = 512: none; learned; sinusoidal; ALiBi, perplexity',
      '20.97; 20.42; 20.16; 19.71',
      '',
    ),
    Published('the Pile, 1.3B parameters, L = 1,024, the same', '13.10; 13.05; 12.93; 12.51', ''),
    Published('500M parameters: NoPE; RoPE (arXiv:2512.12167)', '23.77; 21.72', 'table 6'),
  ),
  says='At L, NoPE is within 0.02 nats of learned positions and 0.02 to 0.12 worse than RoPE; with '
  'twice the steps that distance shrinks.',
  models={name: Model(name, panel=AS_THEY_ARE) for name in SCHEMES}
  | {f'{name}, longer': Model(name, fields=LONGER, panel=TWICE) for name in ('nope', 'rope')}
  | {
    'rope matched': Model(MATCHED, label=MATCHED_LABEL, panel=AS_THEY_ARE),
    'rope matched, longer': Model(MATCHED, fields=LONGER, label=MATCHED_LABEL, panel=TWICE),
  }
  | {f'{name}, larger': Model(name, fields=LARGER, panel='larger') for name in ('nope', 'learned')},
  tests=(
    Expect('NoPE - learned at L', nll('nope') - nll('learned'), below=0.02, paper='+0.027'),
    *(test for v in BASES for test in tests(v)),
    Expect(
      'NoPE - learned at L, larger',
      nll('nope, larger') - nll('learned, larger'),
      below=0.02,
      paper='+0.004 at 1.3B',
    ),
  ),
  traps=(
    'NoPE makes positions out of the causal mask, which takes layers: 3 and 4 are few.',
    'Nothing but the scheme differs: one learning rate for all, as everywhere here.',
  ),
  note='The larger model has 5 times the parameters on a CPU, 4 times on an accelerator; '
  'the paper has four sizes.',
  figure=(0.5, 1),
)
