"""Scheme cards as HTML: what each scheme means at the lengths of a report."""

import html
from collections.abc import Sequence

from experiments.report import tables
from experiments.report.findings import joined
from experiments.report.summary import Scheme
from pe_research.positions import facts
from pe_research.settings import configs
from pe_research.show import card_figure, card_text, drawing

INTRO = (
  'What each scheme means at these lengths before anything is learned, computed from the config of '
  'its runs. <code>python -m pe_research.card --workdir=RUN</code> prints the same.'
)


def section(schemes: Sequence[Scheme], longest: int) -> str:
  """A card for each scheme, folded up.

  Args:
    schemes: of the report.
    longest: tokens, the longest evaluation length.
  """
  cards = [_card(scheme, longest, i) for i, scheme in enumerate(schemes)]
  return '\n'.join(
    ['<section><h2>Scheme cards</h2>', f'<p class="note">{INTRO}</p>', *cards, '</section>']
  )


def _card(scheme: Scheme, longest: int, index: int) -> str:
  """One card, or why there is none; `index` makes its ids unique in the page."""
  config = scheme.runs[0].config
  try:
    card = card_text.card(configs.scheme(config), config['length'], max(longest, config['length']))
  except ValueError as error:  # a config that this code cannot build is still a line of the report
    text = f'{scheme.label} has no card: {error}'
    return f'<p class="note">{html.escape(text)}</p>'
  count = len(card.notes)
  warned = f' <small>{count} warning{"s" if count > 1 else ""}</small>' if count else ''
  arguments = '. '.join(filter(None, [card.paper, card_text.described(config['position'])]))
  parts = [
    f'<details class="card"><summary>{html.escape(scheme.label)}{warned}</summary>',
    f'<p class="note">{html.escape(arguments)}.</p>',
    *(f'<p><strong>Warning:</strong> {html.escape(note)}</p>' for note in card.notes),
    _facts(card),
    panels(card, scheme.label, index),
    _table(card, scheme.label),
  ]
  return '\n'.join(part for part in [*parts, '</details>'] if part)


def _facts(card: facts.Card) -> str:
  items = [
    f'<div><dt>{html.escape(fact.name)}</dt>'
    f'<dd>{html.escape(f"{facts.text(fact.value)} {fact.unit}".strip())}</dd></div>'
    for fact in (*card.lengths(), *card.facts)
  ]
  return '<dl>' + '\n'.join(items) + '</dl>'


def panels(card: facts.Card, label: str, index: int) -> str:
  """A drawing for each quantity, one size for all windows: side by side or below each other.

  HTML, '' where the card has no parts; `index` makes its ids unique in the page.
  """
  drawings, quantities = [], []
  for i, columns in enumerate(card_figure.panels(card)):
    figure = card_figure.panel(card, columns)
    quantities.append(columns[0].name)
    alternative = f'{label}: {columns[0].name} of each {card.part}, the numbers of the table below.'
    drawings.append(
      f'<div role="img" aria-label="{html.escape(alternative)}">'
      f'{drawing.inline(figure, f"card{index}-{i}")}</div>'
    )
  if not drawings:
    return ''
  drawn = [column for columns in card_figure.panels(card) for column in columns]
  caption = [f'{joined(quantities).capitalize()} of each {card.part}']
  if any(column.unit == 'tokens' for column in drawn):
    caption.append('shaded: longer than the training length')
  if any(float('inf') in column.values for column in drawn):
    caption.append('a triangle at the upper edge has no end')
  return (
    f'<figure class="panels">\n{"".join(drawings)}\n'
    f'<figcaption>{html.escape("; ".join(caption))}.</figcaption>\n</figure>'
  )


def _table(card: facts.Card, label: str) -> str:
  """A row for each part."""
  if not card.part:
    return ''
  heads = [card.part.capitalize()]
  under = lambda column: ', '.join(filter(None, [column.unit, column.at]))
  heads += [
    f'{html.escape(c.quantity)}<small>{html.escape(under(c))}</small>' for c in card.columns
  ]
  rows = [
    [f'<th scope="row">{part}</th>', *(f'<td>{facts.text(value)}</td>' for value in values)]
    for part, values in enumerate(zip(*(c.values for c in card.columns), strict=True))
  ]
  return tables.grid(f'{html.escape(label)} by {card.part}.', heads, rows, kind='parts')
