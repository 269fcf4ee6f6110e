"""ALiBi is no better than other schemes at its training length, unless data repeat."""

from experiments.studies.terms import BASES, MATCHED_LABEL, Claim, Expect, Model, Published, nll

# Text that is seen some twenty times: a limit in memory, or a slice of a large data set.
REPEATED = {
  'data.limit': {'cpu': 150_000},
  'data.train_split': {'accelerator': 'train[:3%]'},
}
ONCE = 'no repetition'  # on a CPU, a third of an epoch

CLAIM = Claim(
  id='C05',
  name='alibi_in_distribution',
  title='At the training length ALiBi and RoPE are alike; repeated data favour ALiBi.',
  paper='arXiv:2108.12409, tables 2 and 12',
  published=(
    Published(
      '1.3B parameters, little repetition, at 512 / 2,048: sinusoidal; ALiBi, perplexity',
      '9.71 / 8.83; 9.79 / 8.84',
      'table 12',
      'transcription',
    ),
    Published(
      'WikiText-103, 205 epochs, at 512: sinusoidal; rotary; ALiBi',
      '20.05; 20.07; 19.73',
      'table 2',
    ),
  ),
  says='At L, ALiBi and RoPE differ by less than 0.01 nats; where the training text is seen twenty '
  'times, ALiBi gains on RoPE.',
  models={
    'alibi': Model('alibi', panel=ONCE),
    'rope': Model('rope', panel=ONCE),
    'rope matched': Model('rope:preset=matched', label=MATCHED_LABEL, panel=ONCE),
    'alibi repeated': Model('alibi', fields=REPEATED, panel='20 epochs'),
    'rope repeated': Model('rope', fields=REPEATED, panel='20 epochs'),
    'rope matched repeated': Model(
      'rope:preset=matched', fields=REPEATED, label=MATCHED_LABEL, panel='20 epochs'
    ),
  },
  tests=tuple(
    test
    for v, (rope, _) in BASES.items()
    for test in (
      Expect(
        'ALiBi - RoPE at L',
        nll('alibi') - nll(rope),
        above=-0.01,
        below=0.01,
        paper='+0.008 against sinusoidal',
        variant=v,
      ),
      Expect(
        'the same with twenty epochs - with no repetition',
        (nll('alibi repeated') - nll(f'{rope} repeated')) - (nll('alibi') - nll(rope)),
        below=0,
        paper='−0.017 with 205 epochs',
        variant=v,
      ),
    )
  ),
  traps=(
    'The sign depends on repetition, hence both; at this size loss is far from saturated.',
    'Text that repeats is less text, 1.5 % of it on a CPU: repetition and variety go together.',
  ),
  note='The paper compares with sinusoidal positions at 1.3B parameters; this is a small RoPE.',
  figure=(0.5, 1, 2, 4),
)
