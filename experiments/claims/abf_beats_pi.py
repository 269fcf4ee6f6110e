"""Fine-tuning to longer texts: a larger base (ABF) against position interpolation."""

from experiments.studies.terms import (
  BASES,
  EXACT,
  NEEDLES,
  Claim,
  Expect,
  Model,
  Published,
  at_base,
  by_depth,
  finds_within,
  found,
  nll,
)

SHARE = 10


def models(v: str) -> dict[str, Model]:
  """RoPE, and its fine-tuned models at 8 L."""
  base = f'rope, {v}'
  ways = {
    'raw': ('rope', 'RoPE, tuned'),
    'pi': (at_base('pi:factor=8', v), 'PI, tuned'),
    'abf': (at_base('abf', v), 'ABF, tuned'),
  }
  return {base: Model(at_base('rope', v), fields=NEEDLES, panel=v)} | {
    f'{name}, {v}': Model(text, length=8, start=base, share=SHARE, label=label, panel=v)
    for name, (text, label) in ways.items()
  }


def tests(v: str) -> tuple[Expect, ...]:
  """Loss and retrieval at 8 L."""
  rope, pi, abf = (f'{name}, {v}' for name in ('rope', 'pi', 'abf'))
  return (
    finds_within(rope, v),
    Expect('ABF - PI at 8 L', nll(abf, 8) - nll(pi, 8), below=-0.003, paper='−0.003', variant=v),
    Expect(
      'found at the beginning of 8 L: ABF - PI',
      found(abf, 8, 0) - found(pi, 8, 0),
      above=0.2,
      paper='about +0.4',
      unit=EXACT,
      variant=v,
    ),
  )


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
  models={name: model for v in BASES for name, model in models(v).items()},
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=('The published difference is 0.3 % of one run; five seeds are the least.',),
  figure=(0.5, 1, 2, 4, 8),
  shown=by_depth((f'{name}, {v}' for v in BASES for name in ('raw', 'pi', 'abf')), (1, 4, 8)),
)
