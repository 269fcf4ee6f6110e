"""Position interpolation adapts in few steps; fine-tuning raw RoPE at the new length does not."""

from experiments.studies.terms import (
  BASES,
  EXACT,
  NEEDLES,
  Claim,
  Effect,
  Expect,
  Model,
  Published,
  by_depth,
  finds_within,
  found,
  nll,
)

SHARE = 5  # percent of the tokens of training
TEN = 'ten times as long'
# Other fine-tuning here has a fifteenth of the peak rate of training, as published; this the peak.
PEAK = {'optimizer.learning_rate': {'cpu': 3e-3, 'accelerator': 6e-4}}


def models(variant: str, preset: str) -> dict[str, Model]:
  """RoPE, and its fine-tuned models."""
  base = f'rope, {variant}'
  return {
    base: Model(f'rope:{preset}', fields=NEEDLES, panel=variant),
    f'pi, {variant}': Model(f'pi:{preset}factor=4', length=4, start=base, share=SHARE,
                            label='PI, tuned', panel=variant),
    f'raw, {variant}': Model('rope', length=4, start=base, share=SHARE,
                             label='RoPE, tuned at 4 L', panel=variant),
    f'raw, {TEN}, {variant}': Model('rope', length=4, start=base, share=10 * SHARE,
                                    label=f'the same, {TEN}', panel=variant),
    f'same, {variant}': Model('rope', start=base, share=SHARE,
                              label='RoPE, on at L', panel=variant),
    f'pi, peak, {variant}': Model(f'pi:{preset}factor=4', length=4, start=base, share=SHARE,
                                  fields=PEAK, label='PI, at the peak rate', panel=variant),
    f'raw, peak, {variant}': Model('rope', length=4, start=base, share=SHARE,
                                   fields=PEAK, label='RoPE, at the peak rate', panel=variant),
  }  # fmt: skip


def tests(v: str) -> tuple[Expect, ...]:
  """Loss and retrieval at 4 L."""
  rope, pi, raw = f'rope, {v}', f'pi, {v}', f'raw, {v}'
  share = {'amount': True, 'unit': EXACT, 'variant': v}
  of = lambda model, at: Effect(((1.0, found(model, at)),))
  return (
    finds_within(rope, v, 0.5),
    Expect('PI, tuned, at 4 L - RoPE at L', nll(pi, 4) - nll(rope), below=0, variant=v,
           paper='−0.01'),
    Expect('RoPE, tuned at 4 L - PI, tuned', nll(raw, 4) - nll(pi, 4), above=0.02, variant=v),
    Expect(f'RoPE, tuned {TEN} - PI, tuned', nll(f'raw, {TEN}, {v}', 4) - nll(pi, 4), above=0.02,
           variant=v, paper='+0.08'),
    Expect('found in the middle of 4 L: PI', of(pi, 4), above=0.9, paper='at all of 4 L', **share),
    Expect('found in the middle of 4 L: raw', of(raw, 4), below=0.5, paper='up to 1.25 L', **share),
  )  # fmt: skip


CLAIM = Claim(
  id='C16',
  name='pi_adapts',
  title='PI adapts to 4 L with a few percent of the tokens; raw RoPE tuned there does not.',
  paper='arXiv:2306.15595, tables 1, 3 and 4',
  published=(
    Published(
      'LLaMA-7B, PG-19 at 8,192: PI after 0 / 200 / 1,000 steps', '16.10 / 7.12 / 6.95', 'table 3'
    ),
    Published('fine-tuned directly, 10,000 steps, at 8,192', '7.69', 'table 1'),
    Published(
      'window that a passkey is found in: PI at 200 steps; direct at 10,000',
      '8,192; 2,560',
      'table 4',
    ),
  ),
  says='After 5 % of the tokens, PI at 4 L is no worse than RoPE at L and finds more than 0.9 of '
  'hidden values; raw RoPE stays more than 0.02 nats above it, tuned as long or ten times as '
  'long, and finds less than half.',
  models={k: m for v, (_, preset) in BASES.items() for k, m in models(v, preset).items()},
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=(
    'A small model adapts fast also without interpolation: a weaker effect is expected.',
    'Equal tokens, and the same texts in the same order.',
    'More training at L, and both at the peak rate of training, are drawn beside.',
  ),
  figure=(0.5, 1, 2, 4),
  shown=by_depth((f'{name}, {v}' for v in BASES for name in ('pi', 'raw')), (1, 2, 4)),
)
