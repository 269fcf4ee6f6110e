"""A decoder without positions is nearly as good as one with, at its training length."""

from experiments.claims.terms import LONGER, Claim, Expect, Model, Published, nll

LARGER = {
  'model.width': {'cpu': 128, 'accelerator': 1024},
  'model.layers': {'cpu': 4, 'accelerator': 24},
  'model.heads': {'accelerator': 16},
}
SCHEMES = ('nope', 'learned', 'rope', 'sinusoidal', 'alibi')

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
  models={name: Model(name, panel='as they are') for name in SCHEMES}
  | {f'{name}, longer': Model(name, fields=LONGER, panel='2 x steps') for name in ('nope', 'rope')}
  | {
    f'{name}, larger': Model(name, fields=LARGER, panel='larger')
    for name in ('nope', 'learned', 'rope')
  },
  tests=(
    Expect('NoPE - learned at L', nll('nope') - nll('learned'), below=0.02, paper='+0.027'),
    Expect('NoPE - RoPE at L', nll('nope') - nll('rope'), above=0.02, below=0.12, paper='+0.090'),
    Expect(
      'NoPE - RoPE with twice the steps, less the same',
      nll('nope, longer') - nll('rope, longer') - nll('nope') - (-1.0 * nll('rope')),
      below=0,
    ),
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
  note='The larger model has 5 times the parameters on a CPU, 4 times on an accelerator.',
  figure=(0.5, 1),
)
