"""Progressive extension: search, fine-tune, search again, recover short texts."""

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


def models(v: str) -> dict[str, Model]:
  """Searched and fine-tuned at 4 L; then searched for 16 L; then searched for short texts."""
  rope, tuned = BASES[v][0], f'tuned, {v}'
  file = 'longrope:file={searched}'
  return {
    tuned: Model(file, length=4, start=rope, searched=4, share=10, label='tuned at 4 L', panel=v),
    f'second, {v}': Model(file, start=tuned, searched=4, label='searched again to 16 L', panel=v),
    f'recovered, {v}': Model(file, start=tuned, searched=4, short=1, label='recovered', panel=v),
  }


def tests(v: str) -> tuple[Expect, ...]:
  """Loss on long and on short texts."""
  rope, tuned, second, recovered = BASES[v][0], f'tuned, {v}', f'second, {v}', f'recovered, {v}'
  return (
    Expect(
      'searched again, at 16 L - tuned, at 4 L',
      nll(second, 16) - nll(tuned, 4),
      below=0.05,
      variant=v,
    ),
    Expect(
      'recovered at L, less half of what tuning cost there',
      nll(recovered) - 0.5 * nll(tuned) - 0.5 * nll(rope),
      below=0,
      paper='recovered - tuned: −0.11 at 4k of 256k',
      variant=v,
    ),
  )


CLAIM = Claim(
  id='C22',
  name='progressive_extension',
  title='A second search takes a tuned model four times further, and short texts are recovered.',
  paper='arXiv:2402.13753, tables 9, 10 and 12',
  published=(
    Published(
      'Books3 at 512k / 1M / 2M, from a model tuned at 256k: PI; YaRN; LongRoPE',
      '6.60 / 8.73 / 20.17; 6.39 / 6.79 / 8.27; 6.17 / 6.35 / 7.08',
      'table 9',
    ),
    Published('recovery at 4k and 8k', '4.16 to 3.71; 3.72 to 3.50', 'table 10', 'transcription'),
  ),
  says='Searched and tuned at 4 L, then searched again to 16 L without training: 16 L is less than '
  '0.05 nats worse than 4 L; factors for short texts take back half of what they lost.',
  models=TRAINED | models(PUBLISHED) | models(MATCHED),
  tests=tests(PUBLISHED) + tests(MATCHED),
  traps=(
    'The second search is worth what its best candidate is on documents that it did not see.',
  ),
  figure=(0.5, 1, 2, 4, 8, 16),
)
