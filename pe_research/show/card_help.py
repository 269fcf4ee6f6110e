"""Flags and help of the card command; imports nothing slow, so that --help is fast."""

import argparse

from pe_research.settings import cli

FAR = 16  # times the training length: the longest length, if the scheme has no target
# Name of each flag: its default, the form of its value, its meaning.
FLAGS = {
  'position': ('rope', 'NAME', 'name of the scheme'),
  'preset': (
    'published', 'NAME',
    "default arguments of the scheme: 'published', or 'matched' to the training length",
  ),
  'length': (64, 'TOKENS', 'training length'),
  'longest': (
    None, 'TOKENS', f"longest length (default: the scheme's target, else {FAR} x --length)",
  ),
  'width': (64, 'N', 'width of the model, in channels'),
  'heads': (4, 'N', 'query heads of the model'),
  'head_dim': (None, 'N', 'width of a head, in channels (default: width / heads)'),
  'workdir': ('', 'DIR', 'a saved run; only --longest and --output may be given with it'),
  'output': ('', 'FILE', 'also draw the card into FILE.svg or FILE.png'),
}  # fmt: skip
DEFAULTS = {name: default for name, (default, *_) in FLAGS.items() if default is not None}
ABOUT = """What a positional scheme means at given lengths: wavelengths, windows, buckets, warnings.

  python -m pe_research.card --position=yarn --factor=8 --length=128
  python -m pe_research.card --position=yarn --factor=8 --length=128 --preset=matched
  python -m pe_research.card --workdir=RUN --output=card.svg

Every argument of the scheme is a flag; --position=NAME --help lists them. Default sizes are those
of configs/lm.py.
"""


def flag(name: str) -> str:
  """'--head-dim' of 'head_dim'."""
  return f'--{name.replace("_", "-")}'


def parser() -> argparse.ArgumentParser:
  """Parser of the flags that all schemes have."""
  common = cli.parser('pe_research.card', ABOUT)
  for name, (default, form, meaning) in FLAGS.items():
    shown = f' (default: {default})' if default else ''
    common.add_argument(flag(name), metavar=form, help=meaning + shown)
  return common
