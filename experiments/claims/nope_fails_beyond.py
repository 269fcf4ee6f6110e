"""NoPE, too, fails beyond its training length, and a temperature repairs part of it."""

from experiments.studies.terms import (
  BASES,
  ROPE,
  ROPE_MATCHED,
  Claim,
  Expect,
  Model,
  Published,
  Quantity,
  nll,
)

SCALES = (0, 0.03, 0.06, 0.12, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 4)
GRID = tuple(f'scale:{s:g}' for s in SCALES)


def tuned(model: str, at: float, controls: tuple[str, ...] = ('none', *GRID)) -> Quantity:
  """Loss on half of the documents, with the logit scale that is best on the others."""
  return Quantity(model, at=(at,), of='tuned', controls=controls)


def plain(model: str, at: float) -> Quantity:
  """The same without a logit scale."""
  return tuned(model, at, ('none',))


CLAIM = Claim(
  id='C09',
  name='nope_fails_beyond',
  title='NoPE fails past its length, and scaling its logits repairs at least half; not so of RoPE.',
  paper='arXiv:2404.12224',
  published=(
    Published(
      'NoPE extends further than RoPE, and fails by distraction', 'no figure', 'abstract', 'notes'
    ),
    Published(
      'retrieval at 2 L, three tasks (arXiv:2512.12167): NoPE; RoPE, %',
      '9.2 / 36.2 / 21.4; 0 / 0 / 0',
      'table 1',
    ),
  ),
  says='NoPE loses more than 0.05 nats from L to 4 L; one logit scale, chosen on other documents, '
  'takes away at least half of that, and less than a fifth of what RoPE loses.',
  models={
    'nope': Model('nope'),
    'rope': ROPE,
    'rope matched': ROPE_MATCHED,
    'ssmax': Model('ssmax'),
  },
  tests=(
    Expect('NoPE at 4 L - at L', nll('nope', 4) - nll('nope', 1), above=0.05),
    Expect(
      'NoPE: scaled loss less half of the unscaled',
      tuned('nope', 4) - 0.5 * plain('nope', 4) - 0.5 * plain('nope', 1),
      below=0,
    ),
    *(
      Expect(
        'RoPE: scaled loss less four fifths of the unscaled',
        tuned(rope, 4) - 0.8 * plain(rope, 4) - 0.2 * plain(rope, 1),
        above=0,
        variant=v,
      )
      for v, (rope, _) in BASES.items()
    ),
  ),
  traps=(
    'The scale is tuned for both alike, on documents that are not scored.',
    'SSMax, which learns its scale, is shown beside them.',
  ),
  figure=(0.5, 1, 2, 4, 8, 16),
)
