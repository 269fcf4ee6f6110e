"""Renders the templates, which hold all HTML and Markdown; Python hands them plain data."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from experiments.report import numbers
from pe_research.show import drawing, palette

TEMPLATES = pathlib.Path(__file__).parent / 'templates'
ARXIV = re.compile(r'arXiv:(\d{4}\.\d{4,5})')


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a table, or the head of a column or a row.

  Attributes:
    text: plain.
    note: small print beside it.
    value: the exact number that `text` rounds; None: `text` is no number.
    kind: 'none' for no value, 'undefined' for one that cannot be (`title` says why), 'worse'.
    title: shown on hover.
    strong: in bold.
    series: index of the colour of its line in a figure; None: it has no line.
  """

  text: str
  note: str = ''
  value: float | None = None
  kind: str = ''
  title: str = ''
  strong: bool = False
  series: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; the first cell of a row is its head.

  Attributes:
    caption: its first sentence names the table for screen readers.
    head: of the columns.
    rows: of cells; text alone is a plain cell.
    kind: CSS class.
  """

  caption: str
  head: Sequence[Cell | str]
  rows: Sequence[Sequence[Cell | str]]
  kind: str = ''


class Figure(NamedTuple):
  """A drawing for wide and one for narrow windows, inline SVG."""

  wide: markupsafe.Markup
  narrow: markupsafe.Markup


def figure(draw: Callable[[bool], Any], name: str) -> Figure | None:
  """Draws for a wide and a narrow window; None where there is nothing to draw.

  Args:
    draw: takes whether the window is narrow, returns a matplotlib figure or None.
    name: with {} for 'wide' and 'narrow'; makes ids unique in the page.
  """
  drawn = draw(False), draw(True)
  return None if None in drawn else Figure(*map(svg, drawn, map(name.format, Figure._fields)))


def svg(drawn: Any, name: str) -> markupsafe.Markup:
  """A matplotlib figure as inline SVG; `name` makes its ids unique in the page."""
  return markupsafe.Markup(drawing.inline(drawn, name))


def text(template: str, **values: Any) -> str:
  """The template filled in; values are escaped in templates of HTML.

  Raises:
    jinja2.UndefinedError: the template uses a value that is missing.
  """
  return ENVIRONMENT.get_template(template).render(values)


def escape_markdown(text: str) -> str:
  """Escapes what MyST would read as markup, also in a table; `quoted` parts are code."""
  parts = re.split(r'(`[^`]+`)', text)
  for i in range(0, len(parts), 2):
    parts[i] = re.sub(r'([\\`*_<>\[\]#~^$&{}])', r'\\\1', parts[i])
  return ''.join(parts).replace('|', r'\|')


def link_papers(text: str) -> str:
  """As `escape_markdown`, with links to the papers on arXiv."""
  return ARXIV.sub(r'[\g<0>](https://arxiv.org/abs/\1)', escape_markdown(text))


ENVIRONMENT = jinja2.Environment(
  loader=jinja2.FileSystemLoader(TEMPLATES),
  autoescape=jinja2.select_autoescape(['html'], default=False),
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
  keep_trailing_newline=True,
)
ENVIRONMENT.filters |= {
  'joined': numbers.joined,
  'thousands': '{:,}'.format,
  'plain': escape_markdown,
  'papers': link_papers,
}
ENVIRONMENT.globals |= {'palette': palette.PALETTE, 'ink': palette.INK}
