"""A larger base is a better start for longer texts than interpolation."""

from experiments.claims.terms import NEEDLES, Claim, Expect, Model, Published, found, nll

SHARE = 10


def tuned(position: str, label: str) -> Model:
  """At 8 L."""
  return Model(position, length=8, start='rope', share=SHARE, label=label)


CLAIM = Claim(
  id='C23',
  name='abf_beats_pi',
  title='Trained on at 8 L, a base 50 times larger beats interpolation, in loss and in retrieval.',
  paper='arXiv:2309.16039, table 5',
  published=(
    Published(
      'LLaMA-2-7B, 80B tokens at 32k, Books: RoPE; PI; ABF; xPos with ABF',
      '6.548; 6.341; 6.323; 6.331',
      'table 5',
    ),
    Published(
      'first sentence found at 30k: PI; ABF', 'about 60; about 100', 'a figure', 'transcription'
    ),
  ),
  says='At 8 L, ABF is more than 0.003 nats better than PI, and finds values at the beginning 20 '
  'points more often.',
  models={
    'rope': Model('rope', fields=NEEDLES),
    'raw': tuned('rope', 'RoPE, tuned'),
    'pi': tuned('pi:factor=8', 'PI, tuned'),
    'abf': tuned('abf', 'ABF, tuned'),
  },
  tests=(
    Expect('ABF - PI at 8 L', nll('abf', 8) - nll('pi', 8), below=-0.003),
    Expect(
      'found at the beginning of 8 L: ABF - PI',
      found('abf', 8, 0) - found('pi', 8, 0),
      above=0.2,
      unit='exact match',
    ),
  ),
  traps=('The published difference is 0.3 % of one run; five seeds are the least.',),
  figure=(0.5, 1, 2, 4, 8),
  fewest_seeds=5,
)
