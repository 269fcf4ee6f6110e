"""ALiBi trained short against a sinusoidal model trained at the evaluation length."""

from experiments.studies.terms import Claim, Expect, Model, Published, nll

PLAIN = 'non_overlapping'

CLAIM = Claim(
  id='C03',
  name='train_short',
  title='ALiBi trained at L and read at 8 L beats a sinusoidal model trained at 8 L.',
  paper='arXiv:2108.12409, sec. 4',
  published=(
    Published(
      'ALiBi trained at 512, read at 3,072, against sinusoidal trained at 3,072: perplexity',
      '18.40 against 18.67 ± 0.24',
      '',
    ),
    Published('the same, sliding by 512', '18.30 against 17.95', 'table 7'),
    Published(
      '1.3B parameters: ALiBi 1,024 at 2,048 against sinusoidal 2,048, equal time; equal updates',
      '8.92 against 9.01; 8.92 against 8.83',
      'tables 11 and 12',
      'transcription',
    ),
  ),
  says='Without overlap ALiBi (L) is better at 8 L than sinusoidal (8 L); on the same targets it '
  'is worse. Equal tokens in both.',
  models={
    'alibi': Model('alibi'),
    'sinusoidal long': Model('sinusoidal', length=8, label='Sinusoidal, trained at 8 L'),
    'sinusoidal': Model('sinusoidal'),
  },
  tests=(
    Expect(
      'ALiBi (L) - sinusoidal (8 L) at 8 L, without overlap',
      nll('alibi', 8, protocol=PLAIN) - nll('sinusoidal long', 8, protocol=PLAIN),
      below=0,
      paper='−0.015 at 6 L',
    ),
    Expect(
      'ALiBi (L) - sinusoidal (8 L) at 8 L, same targets',
      nll('alibi', 8) - nll('sinusoidal long', 8),
      above=0,
      paper='+0.019 at 6 L, sliding by 512',
    ),
  ),
  traps=(
    'The headline rests on equal time; here tokens are equal, and no run is given more for speed.',
    'The paper has 6 L (3,072 over 512); 8 L makes whole batches.',
  ),
  figure=(0.5, 1, 2, 4, 8),
  least_seeds=5,
)
