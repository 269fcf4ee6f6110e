"""Text for Markdown as MyST reads it."""

import re

ARXIV = re.compile(r'arXiv:(\d{4}\.\d{4,5})')


def plain(text: str) -> str:
  """Escapes what Markdown would read as markup, also in a table; `quoted` parts are code."""
  parts = re.split(r'(`[^`]+`)', text)
  for i in range(0, len(parts), 2):
    parts[i] = re.sub(r'([\\`*_<>\[\]#~^$&{}])', r'\\\1', parts[i])
  return ''.join(parts).replace('|', r'\|')


def with_papers(text: str) -> str:
  """As `plain`, with links to the papers on arXiv."""
  return ARXIV.sub(r'[\g<0>](https://arxiv.org/abs/\1)', plain(text))
