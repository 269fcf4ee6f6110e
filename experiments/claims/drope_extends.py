"""Positions dropped late in training: as good at L, and better beyond."""

from experiments.claims.terms import NEEDLES, Claim, Expect, Model, Published, found, nll

SHARE = 12.5


def far(model: str, other: str, at: int):
  """How much more often values at the beginning are found."""
  return found(model, at, 0) - found(other, at, 0)


CLAIM = Claim(
  id='C25',
  name='drope_extends',
  title='RoPE dropped at the end of training costs nothing at L and finds more beyond it.',
  paper='arXiv:2512.12167, tables 1 and 6',
  published=(
    Published(
      '494M, dropped at 14k of 16k steps, validation perplexity: RoPE; DroPE; NoPE',
      '21.72; 21.73; 23.77',
      'table 6',
    ),
    Published(
      'retrieval at 2 L, three tasks, %: DroPE; NTK; YaRN',
      '28.0 / 41.6 / 23.3; 21.1 / 19.4 / 16.5; 17.8 / 0.5 / 14.6',
      'table 1',
    ),
  ),
  says='After 12.5 % more tokens without positions, DroPE is less than 0.01 nats worse at L than '
  'RoPE with as many; at 2 and 4 L it finds values at the beginning at least 10 points more often '
  'than NTK-aware and YaRN, with its fitted scale and without.',
  models={
    'rope': Model('rope', fields=NEEDLES),
    'same': Model('rope', start='rope', share=SHARE, label='RoPE, on at L'),
    'dropped': Model('drope', start='rope', share=SHARE, label='DroPE at L'),
    'nope': Model('nope', fields=NEEDLES),
    'rnope': Model('rnope:period=3', fields=NEEDLES),
  }
  | {
    f'{name} {s}': Model(text.format(s=s), start=start, label=label, panel=f's = {s}')
    for s in (2, 4)
    for name, text, start, label in (
      ('drope', 'drope:factor={s}', 'dropped', 'DroPE'),
      ('drope plain', 'drope:factor={s},coefficient=0', 'dropped', 'DroPE, logits as they are'),
      ('ntk', 'ntk:factor={s}', 'same', 'NTK-aware'),
      ('yarn', 'yarn:factor={s}', 'same', 'YaRN'),
    )
  },
  tests=(
    Expect('DroPE - RoPE at L', nll('dropped') - nll('same'), below=0.01),
    *(
      Expect(
        f'found at the beginning of {s} L: {name} - {other}',
        far(f'{name} {s}', f'{other} {s}', s),
        above=0.1,
        unit='exact match',
      )
      for s in (2, 4)
      for name in ('drope', 'drope plain')
      for other in ('ntk', 'yarn')
    ),
  ),
  traps=(
    "The paper tunes DroPE's scale at each length and nothing of the baselines: here it is its "
    'published value, and 1 as well.',
    'RoPE gets the same further tokens.',
  ),
  figure=(0.5, 1, 2, 4),
)
