"""Beyond its training length raw RoPE explodes; position interpolation does not."""

from experiments.studies.terms import (
  BASES,
  MATCHED,
  PUBLISHED,
  TRAINED,
  Claim,
  Expect,
  Model,
  Published,
  nll,
)

CLAIM = Claim(
  id='C10',
  name='raw_rope_explodes',
  title='Beyond training raw RoPE explodes, while interpolated positions cost a bounded amount.',
  paper='arXiv:2306.15595, tables 1 and 3',
  published=(
    Published(
      'LLaMA-7B (2,048) on PG-19 at 4,096 and beyond, nothing changed: perplexity',
      'above 1,000',
      'table 1',
    ),
    Published(
      'PI without training, at 8,192 (s = 4) / 16,384 (s = 8); within 2,048',
      '16.10 / 112.13; 7.20',
      'table 3',
    ),
  ),
  says='At 4 L, RoPE is worse than PI (s = 4) by more than 0.5 nats, and PI is 0.3 to 1.5 nats '
  'worse than RoPE at L.',
  models={
    **TRAINED,
    'pi': Model('pi:factor=4', start='rope', panel=PUBLISHED),
    'pi matched': Model('pi:factor=4', start='rope matched', panel=MATCHED),
  },
  tests=tuple(
    test
    for variant, (rope, _) in BASES.items()
    for pi in [rope.replace('rope', 'pi')]
    for test in (
      Expect(
        'RoPE - PI at 4 L',
        nll(rope, 4) - nll(pi, 4),
        above=0.5,
        paper='above +4.1',
        variant=variant,
      ),
      Expect(
        'PI at 4 L - RoPE at L',
        nll(pi, 4) - nll(rope),
        above=0.3,
        below=1.5,
        paper='+0.80',
        variant=variant,
      ),
    )
  ),
  traps=('At base 10,000 and a short length, most pairs hardly turn: both bases are run.',),
  note='First run with three seeds; two more were added after that verdict was seen.',
  figure=(0.5, 1, 2, 4, 8),
)
