"""What the command of a card says of itself, and the flags that every scheme has."""

import argparse

from pe_research.settings import cli

FAR = 16  # times the training length, where the scheme has no target
HELP = {
  'position': 'name of the scheme',
  'preset': "its arguments where none is given: 'published' or 'matched' to the length",
  'length': 'tokens, the training length',
  'longest': f'tokens; the target of the scheme, or {FAR} times the training length',
  'width': 'of the model',
  'heads': 'of the model',
  'head_dim': 'width of a head; width / heads',
  'workdir': 'a saved run; leaves only --longest and --output open',
  'output': 'also draws the card: FILE.svg or FILE.png',
}
DEFAULTS = {
  'position': 'rope',
  'preset': 'published',
  'length': 64,
  'width': 64,
  'heads': 4,
  'workdir': '',
  'output': '',
}
ABOUT = """What a positional scheme means at given lengths: wavelengths, windows, buckets, warnings.

  python -m pe_research.card --position=yarn --factor=8 --length=128
  python -m pe_research.card --position=yarn --factor=8 --length=128 --preset=matched
  python -m pe_research.card --workdir=RUN --output=card.svg

Every argument of the scheme is a flag; --position=NAME --help lists them. The model has the sizes
of configs/lm.py unless flags say otherwise; with --workdir all is that of a saved run.
"""


def parser() -> argparse.ArgumentParser:
  """Flags that every scheme has."""
  made = cli.parser('pe_research.card', ABOUT)
  for field, meaning in HELP.items():
    default = f' (default: {DEFAULTS[field]})' if DEFAULTS.get(field) else ''
    made.add_argument(f'--{field}', metavar='', help=meaning + default)
  return made
