"""DroPE, which drops positions late in training: as good at L, and better beyond."""

from experiments.studies.terms import (
  BASES,
  EXACT,
  NEEDLES,
  Claim,
  Expect,
  Model,
  Published,
  Quantity,
  at_base,
  by_depth,
  finds_within,
  found,
  nll,
)

SHARE = 12.5
# The peak of training: the paper recalibrates at a higher learning rate than that of training, and
# at a fifteenth of it, the rate of other fine-tuning here, a model without positions learns little.
RATE = {'optimizer.learning_rate': {'cpu': 3e-3, 'accelerator': 6e-4}}
GRID = (0.125, 0.25, 0.5, 0.7, 0.85, 1.1, 1.2, 1.4, 1.7, 2.0, 4.0, 8.0)
SCALES = ('depth:0', *(f'depth:0+scale:{s:g}' for s in GRID))
PAPER = {'ntk': '+0.07 to +0.22', 'yarn': '+0.09 to +0.41'}  # three tasks at 2 L


def of(name: str, variant: str) -> str:
  """The name of a model."""
  return f'{name}, {variant}'


def models(v: str) -> dict[str, Model]:
  """RoPE trained further with and without positions, and both extended."""
  rope, same, dropped = (of(name, v) for name in ('rope', 'same', 'dropped'))
  made = {
    rope: Model(at_base('rope', v), fields=NEEDLES, panel=v),
    same: Model('rope', start=rope, share=SHARE, fields=RATE, label='RoPE, on at L', panel=v),
    dropped: Model('drope', start=rope, share=SHARE, fields=RATE, label='DroPE at L', panel=v),
  }
  for s in (2, 4):
    for name, text, start, label in (
      ('drope', f'drope:factor={s}', dropped, 'DroPE'),
      ('drope plain', f'drope:factor={s},coefficient=0', dropped, 'DroPE, logits as they are'),
      ('ntk', at_base(f'ntk:factor={s}', v), same, 'NTK-aware'),
      ('yarn', at_base(f'yarn:factor={s}', v), same, 'YaRN'),
    ):
      made[of(f'{name} {s}', v)] = Model(text, start=start, label=label, panel=f'{v}, s = {s}')
  return made


def best(model: str, at: int) -> Quantity:
  """Retrieval from the beginning, with the logit scale that is best on other documents."""
  return Quantity(model, 'passkey', at=(at,), of='tuned', controls=SCALES)


def tests(v: str) -> tuple[Expect, ...]:
  """Loss at L; retrieval at 2 and 4 L with the fitted scale, without it, and with tuned scales."""
  far = lambda name, s: found(of(f'{name} {s}', v), s, 0)
  tuned = lambda name, s: best(of(f'{name} {s}', v), s)
  return (
    finds_within(of('same', v), v),
    Expect(
      'DroPE - RoPE at L',
      nll(of('dropped', v)) - nll(of('same', v)),
      below=0.01,
      paper='+0.0005',
      variant=v,
    ),
    *(
      Expect(
        f'found at the beginning of {s} L: {name} - {other}',
        far(name, s) - far(other, s),
        above=0.1,
        paper=PAPER[other] if (name, s) == ('drope', 2) else '',
        unit=EXACT,
        variant=v,
      )
      for s in (2, 4)
      for name in ('drope', 'drope plain')
      for other in ('ntk', 'yarn')
    ),
    *(
      Expect(
        f'found at the beginning of {s} L, scales tuned: drope - {other}',
        tuned('drope plain', s) - tuned(other, s),
        above=0.1,
        unit=EXACT,
        variant=v,
      )
      for s in (2, 4)
      for other in ('ntk', 'yarn')
    ),
  )


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
  'than NTK-aware and YaRN, with its fitted scale, without, and with a scale tuned for all alike.',
  models={name: model for v in BASES for name, model in models(v).items()}
  | {'nope': Model('nope', fields=NEEDLES), 'rnope': Model('rnope:period=3', fields=NEEDLES)},
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=(
    "The paper tunes DroPE's scale at each length and nothing of the baselines: here it is its "
    'published value, and 1, and one tuned for all of them on other documents.',
    'RoPE gets the same further tokens at the same learning rate.',
    'A base that finds nothing within L can say nothing beyond it: hence the control.',
  ),
  note='Texts are trained on at the peak learning rate of training; at a fifteenth of it, in a '
  'first run, DroPE was 1.13 nats behind RoPE at L, and 0.7 behind NoPE from the start.',
  figure=(0.5, 1, 2, 4),
  shown=by_depth(
    (of(f'{name} 2', v) for v in BASES for name in ('drope', 'drope plain', 'ntk', 'yarn')), (2,)
  )
  + by_depth((of(name, v) for v in BASES for name in ('same', 'dropped')), (1,)),
)
