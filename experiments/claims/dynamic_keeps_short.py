"""Dynamic scaling leaves short texts alone and does not blow up on long ones."""

from experiments.claims.terms import ROPE, Claim, Expect, Model, Published, nll

STATIC = ('pi', 'ntk', 'yarn')

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
  models={
    'rope': ROPE,
    'dynamic ntk': Model('dynamic_ntk', start='rope'),
    'dynamic yarn': Model('dynamic_yarn', start='rope'),
    'pi to 2 L': Model('pi:factor=2', start='rope', label='PI, s = 2'),
  }
  | {name: Model(f'{name}:factor=4', start='rope') for name in STATIC},
  tests=(
    *(
      Expect(f'{name} - RoPE at L', nll(name) - nll('rope'), above=-1e-9, below=1e-9)
      for name in ('dynamic ntk', 'dynamic yarn')
    ),
    *(
      Expect(f'{name} (s = 4) - RoPE at L', nll(name) - nll('rope'), above=0.01) for name in STATIC
    ),
    Expect('dynamic YaRN - PI at 2 L', nll('dynamic yarn', 2) - nll('pi to 2 L', 2), below=0),
  ),
  traps=(
    'Every token of a window takes the factor of its whole length, in one forward pass.',
    'With a cache the keys of before would be stale; here a cache is computed anew.',
  ),
  figure=(0.5, 1, 2, 4, 8),
)
