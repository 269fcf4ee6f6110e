"""The pages of the schemes, from the registry, and of the claims, from their committed rows."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.report import cards, render
from experiments.report.claims import rows, texts, writer
from experiments.report.render import escape_markdown, link_papers
from experiments.site import docstrings
from experiments.studies import scales
from experiments.studies.terms import Claim
from pe_research import positions
from pe_research.settings import configs
from pe_research.show import card_flags, card_text, explorer
from pe_research.show.explorer import effects, figure, page
from pe_research.show.explorer import panels as themes

FOLDER = 'schemes'
DIFFERENCES = '\n\nPaper and code: '  # begins the last paragraph of a scheme's docstring
SCALE = scales.CPU  # that of the pages of the claims that lie in the repository
CLAIMS = 'experiments/claims.html'  # pages of their own; from a page of a scheme: ../
EXPLORER = 'experiments/explorer.html'


def page_of(name: str) -> str:
  """The document of the scheme called `name`."""
  return f'{FOLDER}/{name}'


def panels(name: str) -> dict[str, bytes]:
  """SVG drawings of the scheme called `name`, by the theme of the page."""
  shown = page.shown(name)
  length, drawings = tokens(shown), {}
  for theme in themes.THEMES:
    drawn = figure.drawn([shown], length, theme=theme)
    drawings[theme] = figure.written(drawn, 'svg')['.svg']
  return drawings


def tokens(shown: page.Shown) -> int:
  """Length of its drawing: short, unless it equals there the scheme that it trains as."""
  own = positions.scheme(shown.name).trains_as
  if not own:
    return page.TOKENS
  both = shown, page.shown(own)
  for length in (page.TOKENS, 2 * shown.dims.length):
    matrices = [effects.of(one.layers[0], one.dims, length).modifier for one in both]
    if not np.array_equal(*matrices, equal_nan=True):
      return length
  return page.TOKENS


def panel_of(name: str, theme: str) -> str:
  """The file of its drawing, relative to the page of the scheme."""
  return f'panels/{name}-{theme}.svg'


@functools.cache
def findings() -> tuple[rows.ClaimRow, ...]:
  """Every claim with its verdict, in the order of the report."""
  return tuple(rows.judge(rows.load(SCALE)[0]))


def uses(claim: Claim) -> list[str]:
  """Names of the schemes of a claim's models, in the order of the registry.

  Raises:
    ValueError: one is not registered.
  """
  used = {model.position.partition(':')[0] for model in claim.models.values()}
  for name in used:
    positions.scheme(name)
  return [name for name in positions.SCHEMES if name in used]


def example(name: str) -> dict[str, Any]:
  """A config of the scheme called `name` for a model of the card's usual sizes."""
  flags = card_flags.defaults()
  width = flags.width // flags.heads
  model = {'width': flags.width, 'heads': flags.heads, 'head_dim': width}
  position = positions.example(name, width // 2)
  return {'position': position, 'length': flags.length, 'model': model}


def described(name: str) -> tuple[str, str]:
  """The docstring of the scheme called `name`, and its paragraph 'Paper and code: ...', or ''."""
  doc = inspect.cleandoc(positions.scheme(name).__doc__ or '')
  about, _, differences = doc.partition(DIFFERENCES)
  return about, differences[:1].upper() + differences[1:]


def pages() -> Iterator[tuple[str, str]]:
  """Documents with their Markdown: each scheme, all of them, and the claims."""
  for name in positions.SCHEMES:
    yield page_of(name), _scheme(name)
  schemes = positions.SCHEMES.items()
  table = [
    [_link(name), escape_markdown(cls.formula), link_papers(cls.paper)] for name, cls in schemes
  ]
  documents = [(cls.label, page_of(name)) for name, cls in schemes]
  yield (
    f'{FOLDER}/index',
    render.text('site/schemes.md', explorer=EXPLORER, rows=table, documents=documents),
  )
  claims = [(row, map(_link, uses(row.claim))) for row in findings()]
  lead = texts.lead(findings(), SCALE)
  yield 'claims', render.text('site/claims.md', lead=lead, page=CLAIMS, claims=claims)


def _link(name: str) -> str:
  return f'[{escape_markdown(positions.scheme(name).label)}](/{page_of(name)}.md)'


def _scheme(name: str) -> str:
  """The page of a scheme."""
  cls, config = positions.scheme(name), example(name)
  about, differences = described(name)
  shown = page.shown(name)
  scheme = configs.scheme(config)
  card = card_text.card(scheme, config['length'])
  view = cards.view(card, card.label, config['position'])
  columns = view.table.head[1:] if view.table else []
  heads = [f'{c.text} ({c.note})' if c.note else c.text for c in columns]
  missing = 'The docstring of the class does not say.'
  return render.text(
    'site/scheme.md',
    label=cls.label,
    formula=cls.formula,
    about=docstrings.rst(about.splitlines()),
    properties=_properties(name, scheme),
    drawings=[(theme, panel_of(name, theme)) for theme in themes.THEMES],
    tokens=tokens(shown),
    notes=page.notes(shown),
    differences=docstrings.rst((differences or missing).splitlines()),
    arguments=[
      [f'`{field}`', f'`{parameter.default!r}`', escape_markdown(card_flags.about(name, field))]
      for field, parameter in positions.arguments(name).items()
    ],
    model=config['model'],
    length=config['length'],
    given=card_text.described(config['position']),
    card=view,
    columns=[escape_markdown(text) for text in (card.part, *heads)],
    claims=[row for row in findings() if name in uses(row.claim)],
    scale=SCALE.name,
    page=CLAIMS,
  )


def _properties(name: str, scheme: positions.PositionScheme) -> list[list[str]]:
  cls = type(scheme)
  yes = lambda value: 'yes' if value else 'no'
  return [
    ['name in a config', f'`{name}`'],
    ['paper', link_papers(cls.paper)],
    ['relative: logits depend on distance alone', yes(scheme.relative)],
    ['trains as', _link(cls.trains_as) if cls.trains_as else 'itself'],
    ['draws positions in training', yes(cls.draws_positions)],
    ['encoding changes as a text grows', yes(scheme.depends_on_length)],
    ['parameters of its own in every layer', yes(cls.per_layer)],
    ['class', f'{{py:class}}`~{cls.__module__}.{cls.__qualname__}`'],
  ]


def alone() -> dict[str, str]:
  """HTML pages outside Sphinx, by path."""
  return {CLAIMS: writer.html(SCALE, 'explorer.html'), EXPLORER: explorer.html()}
