"""The pages of the schemes, from the registry, and of the claims, from their kept rows."""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.report import cards
from experiments.report.claims import rows as rows_lib
from experiments.report.claims import writer as claims
from experiments.site import docstrings, markdown
from experiments.studies import scales
from experiments.studies.terms import Claim
from pe_research import positions
from pe_research.positions import facts
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
  """Drawings of what the scheme called `name` does, SVG, by the theme that they are for."""
  shown = page.shown(name)
  length = tokens(shown)
  draw = lambda theme: figure.drawn([shown], length, theme=theme)
  return {theme: figure.written(draw(theme), 'svg')['.svg'] for theme in themes.THEMES}


def tokens(shown: page.Shown) -> int:
  """Of its panel: few, or as many as it takes until it differs from what it trains as."""
  own = positions.scheme(shown.name).trains_as
  if not own:
    return page.TOKENS
  does = lambda one, n: effects.of(one.layers[0], one.dims, n).modifier
  other, lengths = page.shown(own), (page.TOKENS, 2 * shown.dims.length)
  differs = lambda n: not np.array_equal(does(shown, n), does(other, n), equal_nan=True)
  return next(filter(differs, lengths), page.TOKENS)


def panel_of(name: str, theme: str) -> str:
  """The file of such a drawing, beside the page of the scheme."""
  return f'panels/{name}-{theme}.svg'


@functools.cache
def findings() -> tuple[rows_lib.Row, ...]:
  """Every claim with its verdict, in the order of the report."""
  return tuple(rows_lib.judge(rows_lib.load(SCALE)[0]))


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
  """The docstring of the scheme called `name`: what it is, and how paper and code differ.

  The second is '' where its last paragraph does not say that.
  """
  doc = inspect.cleandoc(positions.scheme(name).__doc__ or '')
  about, _, differences = doc.partition(DIFFERENCES)
  return about, differences[:1].upper() + differences[1:]


def pages() -> Iterator[tuple[str, str]]:
  """Documents with their Markdown: each scheme, all of them, and the claims."""
  for name in positions.SCHEMES:
    yield page_of(name), '\n'.join(_scheme(name))
  yield f'{FOLDER}/index', '\n'.join(_schemes())
  yield 'claims', '\n'.join(_claims())


def _schemes() -> list[str]:
  tried = f'<a href="../{EXPLORER}">The explorer</a> shows what each does to a few tokens.'
  lines = ['# Schemes', '', tried, '']
  head = ['scheme', 'what becomes of embeddings x, or of logits ℓ of query m and key n', 'source']
  rows = [
    [_link(name), markdown.plain(cls.formula), markdown.with_papers(cls.paper)]
    for name, cls in positions.SCHEMES.items()
  ]
  entries = [(cls.label, page_of(name)) for name, cls in positions.SCHEMES.items()]
  return [*lines, *markdown.table(head, rows), *markdown.toctree(entries)]


def _link(name: str) -> str:
  return f'[{markdown.plain(positions.scheme(name).label)}](/{page_of(name)}.md)'


def _claim_link(claim: Claim, up: str) -> str:
  return f'<a href="{up}{CLAIMS}#{claim.id}">{claim.id}</a> {markdown.plain(claim.title)}'


def _claims() -> list[str]:
  head = ['claim', 'verdict', 'schemes']
  rows = [
    [
      _claim_link(row.claim, ''),
      markdown.plain(rows_lib.verdict_text(row)),
      ', '.join(map(_link, uses(row.claim))),
    ]
    for row in findings()
  ]
  lines = ['# Claims', '', markdown.plain(rows_lib.lead([*findings()], SCALE)), '']
  figures = f'<a href="{CLAIMS}">The page of the claims</a> has all tests, with figures.'
  return [*lines, figures, '', *markdown.table(head, rows)]


def _scheme(name: str) -> list[str]:
  cls, config = positions.scheme(name), example(name)
  scheme, (about, differences) = configs.scheme(config), described(name)
  card = card_text.card(scheme, config['length'])
  return [
    f'# {markdown.plain(cls.label)}',
    '',
    '{.formula}',
    markdown.plain(cls.formula),
    '',
    *_said(about),
    *_properties(name, scheme),
    *_figure(name, cls.label),
    '## Known differences between paper and code',
    '',
    *_said(differences or 'The docstring of the class does not say.'),
    *_arguments(name),
    *_card(config, card),
    *_concerned(name),
  ]


def _said(text: str) -> list[str]:
  return ['```{eval-rst}', *docstrings.rst(text.splitlines()), '```', '']


def _properties(name: str, made: positions.PositionScheme) -> list[str]:
  cls = type(made)
  yes = lambda value: 'yes' if value else 'no'
  rows = [
    ['name in a config', f'`{name}`'],
    ['paper', markdown.with_papers(cls.paper)],
    ['relative: logits depend on distance alone', yes(made.relative)],
    ['trains as', _link(cls.trains_as) if cls.trains_as else 'itself'],
    ['draws positions in training', yes(cls.draws_positions)],
    ['encoding changes as a text grows', yes(made.depends_on_length)],
    ['parameters of its own in every layer', yes(cls.per_layer)],
    ['class', f'{{py:class}}`~{cls.__module__}.{cls.__qualname__}`'],
  ]
  return markdown.table(['', ''], rows)


def _figure(name: str, label: str) -> list[str]:
  shown = page.shown(name)
  said = f'What {label} does at {tokens(shown)} tokens, as it is and as what it adds to logits.'
  lines = []
  for theme in themes.THEMES:
    lines += [f'```{{image}} {panel_of(name, theme)}', f':alt: {said}', f':class: only-{theme}']
    lines += ['```', '']
  said = [f'{label}: {markdown.plain(note)}.' for note in page.notes(shown)]
  return [*lines, *said, *([''] if said else [])]


def _arguments(name: str) -> list[str]:
  lines = ['## Arguments', '']
  rows = [
    [f'`{field}`', f'`{parameter.default!r}`', markdown.plain(card_flags.about(name, field))]
    for field, parameter in positions.arguments(name).items()
  ]
  if not rows:
    return [*lines, 'It takes none.', '']
  return [*lines, *markdown.table(['name', 'default', 'meaning'], rows)]


def _card(config: dict[str, Any], card: facts.Card) -> list[str]:
  model, given = config['model'], card_text.described(config['position'])
  sizes = (
    f'For a model of width {model["width"]} with {model["heads"]} heads of {model["head_dim"]}, '
    f'trained at {config["length"]} tokens'
  )
  lines = ['## Card', '', f'{sizes}, with {markdown.plain(given)}.' if given else f'{sizes}.', '']
  for note in card.notes:
    lines += ['```{warning}', markdown.plain(note), '```', '']
  rows = [
    [markdown.plain(fact.name), markdown.plain(f'{facts.text(fact.value)} {fact.unit}'.strip())]
    for fact in (*card.lengths(), *card.facts)
  ]
  lines += markdown.table(['fact', 'value'], rows)
  if not card.part:
    return lines
  drawn = cards.panels(card, card.label, 0)
  lines += markdown.embedded(drawn) if drawn else []
  under = lambda c: ', '.join(filter(None, [c.unit, c.at]))
  head = [
    card.part,
    *(f'{c.quantity} ({under(c)})' if under(c) else c.quantity for c in card.columns),
  ]
  parts = zip(*(column.values for column in card.columns), strict=True)
  rows = [[f'{i}', *map(facts.text, values)] for i, values in enumerate(parts)]
  return [*lines, *markdown.table(list(map(markdown.plain, head)), rows)]


def _concerned(name: str) -> list[str]:
  lines = ['## Claims', '']
  rows = [
    [_claim_link(row.claim, '../'), markdown.plain(rows_lib.verdict_text(row))]
    for row in findings()
    if name in uses(row.claim)
  ]
  if not rows:
    return [*lines, 'No claim uses it.', '']
  said = f'Those that have a model with it, and their verdicts at scale {SCALE.name}.'
  return [*lines, said, '', *markdown.table(['claim', 'verdict'], rows)]


def alone() -> dict[str, str]:
  """Pages that are no documents of the site, by path: HTML."""
  return {CLAIMS: claims.html(SCALE, 'explorer.html'), EXPLORER: explorer.html()}
