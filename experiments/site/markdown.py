"""Pieces of Markdown as MyST reads it."""

import re
from collections.abc import Iterable, Sequence

ARXIV = re.compile(r'arXiv:(\d{4}\.\d{4,5})')


def plain(text: str) -> str:
  """Text that says what it says, with `quoted` parts as code; also in a table."""
  parts = re.split(r'(`[^`]+`)', text)
  for i in range(0, len(parts), 2):
    parts[i] = re.sub(r'([\\`*_<>\[\]#~^$&{}])', r'\\\1', parts[i])
  return ''.join(parts).replace('|', r'\|')


def with_papers(text: str) -> str:
  """Plain text, in which the papers on arXiv are links."""
  return ARXIV.sub(r'[\g<0>](https://arxiv.org/abs/\1)', plain(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  """Lines of a table of cells that are Markdown, and an empty one."""
  lines = [head, ['---'] * len(head), *rows]
  return [*(f'| {" | ".join(cells)} |' for cells in lines), '']


def toctree(entries: Sequence[tuple[str, str]], caption: str = '') -> list[str]:
  """Lines that put documents, by title and name, into the navigation; '' is a document's own."""
  if not entries:
    return []
  named = [f'{title} </{page}>' if title else f'/{page}' for title, page in entries]
  options = [':hidden:', *([f':caption: {caption}'] if caption else [])]
  return ['```{toctree}', *options, '', *named, '```', '']


def embedded(html: str) -> list[str]:
  """Lines that put HTML into the page as it is."""
  return ['```{raw} html', html, '```', '']
