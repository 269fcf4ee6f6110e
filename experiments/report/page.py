"""The report as one HTML page: numbers of a summary in, text out. page.html has its looks."""

import html
import inspect
import pathlib
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.report import cached, cards, figures, tables
from experiments.report.findings import findings, joined
from experiments.report.summary import Section
from experiments.studies import comparability
from experiments.studies.measured import Run
from pe_research.evaluation import measures
from pe_research.show import drawing, palette

TEMPLATE = pathlib.Path(__file__).parent / 'page.html'
CONTROLS = {
  'cropped': 'The input keeps only its last tokens, as many as the training length.',
  'shuffled': 'All tokens of the input but the last, as many as the training length, are shuffled.',
}
INTERVALS = (
  'Intervals are 95 % t intervals. With one seed they are over the documents that hold the scored '
  'tokens, and say how far a difference depends on which documents were held out, not on the '
  'training seed; with several, over seeds and documents, both random. The lowest scheme was '
  'picked on the same documents.'
)


def page(
  runs: Sequence[Run],
  sections: Sequence[Section],
  marks: Sequence[str],
  cache: Mapping[str, Any] | None = None,
  explored: bool = False,
) -> str:
  """The whole page; needs no network, no script and no other file.

  Args:
    runs: all of them.
    sections: of the runs, the main one first.
    marks: differences that were allowed.
    cache: what experiments.cache measured, if it did.
    explored: whether explorer.html is beside it.
  """
  main = sections[0]
  lengths = joined(map(str, main.train_lengths))
  longest = max(section.lengths[-1] for section in sections)
  title = f'Trained at {lengths} tokens, tested up to {longest}'
  seeds = len({run.record['seed'] for run in runs})
  what = f'One decoder, {len(main.schemes)} positional schemes'
  what += f', {seeds} seeds each. ' if seeds > 1 else ', one seed. '
  what += (
    'They differ in more than that: see the warning.'
    if marks
    else 'Runs of one seed share everything else: initial parameters, batches, evaluated text.'
  )
  body = [
    '<header>',
    f'<h1>{html.escape(title)}</h1>',
    f'<p class="lead">{what}</p>',
    '<p><a href="explorer.html">See what these schemes do to attention</a></p>' if explored else '',
    '</header>',
    _warning(marks),
    _to_know(comparability.notes(runs)),
    _compared(runs, main),
    _section(main, 0),
    *(_section(section, i + 1) for i, section in enumerate(sections[1:])),
    _notes(main),
    cards.section(main.schemes, longest),
    cached.section(cache),
    f'<section><h2>Runs</h2>\n{tables.of_runs(main.schemes)}</section>',
    '<section><h2>Conditions</h2>\n<details><summary>What comparable runs must share</summary>\n'
    f'{tables.conditions(runs)}\n</details></section>',
    '<footer class="note">Losses are from <code>results.jsonl</code> beside this page, the rest '
    'is from <code>run.json</code> and <code>config.json</code> of each run; written by '
    '<code>python -m experiments.report</code>.</footer>',
  ]
  return document(title, body)


def document(title: str, body: Sequence[str]) -> str:
  """A whole page of these parts, HTML; empty ones are left out."""
  colors = [[f'--series-{i}: {pair[k]};' for i, pair in enumerate(palette.PALETTE)] for k in (0, 1)]
  return string.Template(TEMPLATE.read_text()).substitute(
    title=html.escape(title),
    light=' '.join(colors[0]),
    dark=' '.join(colors[1]),
    body='\n'.join(part for part in body if part),
  )


def bullets(lines: Sequence[str]) -> str:
  """A list of lines of plain text."""
  return '<ul>' + ''.join(f'<li>{html.escape(line)}</li>\n' for line in lines) + '</ul>'


def _warning(marks: Sequence[str]) -> str:
  if not marks:
    return ''
  return (
    '<section class="warning" role="note"><h2>These runs differ in more than the scheme</h2>\n'
    '<p>The following differences were allowed by hand. Each may explain a difference in loss.</p>'
    f'\n{bullets(marks)}</section>'
  )


def _to_know(notes: Sequence[str]) -> str:
  return f'<section class="note" role="note">{bullets(notes)}</section>' if notes else ''


def _compared(runs: Sequence[Run], section: Section) -> str:
  """What was trained, on what, for how long."""

  def each(get: Callable[[Run], Any]) -> str:
    return joined(dict.fromkeys(str(get(run)) for run in runs))

  def model(run: Run) -> str:
    m = run.config['model']
    heads = f'{m["heads"]} heads of {m["head_dim"]}'
    return f'{m["layers"]} layers, width {m["width"]}, {heads}, {m["mlp"]} {m["mlp_width"]}'

  def tokens(run: Run) -> str:
    batch, length = run.config['optimizer']['batch'], run.config['length']
    return f'{run.record["steps"]:,} steps of {batch} × {length} ({count(run):,} tokens)'

  def count(run: Run) -> int:
    return run.record['steps'] * run.config['optimizer']['batch'] * run.config['length']

  def documents(run: Run) -> str:
    data, facts = run.config['data'], run.record['conditions']
    known = f', {facts["data.documents"]:,} documents' if 'data.documents' in facts else ''
    return f'{data["source"]}{known}, tokens are {data["tokenizer"]}'

  def device(run: Run) -> str:
    number = f' × {run.record["devices"]}' if run.record['devices'] > 1 else ''
    kind = ' '.join(dict.fromkeys(run.record['conditions']['device'].split()))
    return f'{kind}{number}, {run.config["model"]["dtype"]}'

  sizes = [run.record['parameters'] for run in runs]
  sizes = f'{min(sizes):,}' + (f' to {max(sizes):,}' if len(set(sizes)) > 1 else '')
  seeds = sorted({run.record['seed'] for run in runs})
  lengths = [*map(str, section.lengths)]
  entries = {
    'Schemes': ', '.join(scheme.label for scheme in section.schemes),
    'Training length': f'{joined(map(str, section.train_lengths))} tokens',
    'Evaluation lengths': f'{", ".join(lengths)} tokens',
    'Training': each(tokens),
    'Model': each(model),
    'Parameters': sizes,
    'Text': each(documents),
    'Seeds': ', '.join(map(str, seeds)),
    'Device': each(device),
  }
  items = [f'<div><dt>{k}</dt><dd>{html.escape(v)}</dd></div>' for k, v in entries.items()]
  return '<section><h2>What was compared</h2>\n<dl>' + '\n'.join(items) + '</dl></section>'


def _section(section: Section, index: int) -> str:
  """Figure, sentences and tables of one protocol and control; 0 is the main section."""
  name = section.protocol.replace('_', ' ')
  control = '' if section.control == 'none' else f', {section.control}'
  protocol = inspect.getdoc(measures.MEASURES[section.protocol]).splitlines()[0].replace('`', '')
  about = f'Protocol: {name}{control}. {protocol}'
  about = ' '.join(filter(None, [about, CONTROLS.get(section.control), _scored(section)]))
  heading = 'Loss by evaluation length' if index == 0 else f'{name.capitalize()}{control}'
  parts = [
    f'<section><h2>{html.escape(heading)}</h2>',
    f'<p>{html.escape(about)}</p>',
    _mixed(section),
    _figure(section, index),
  ]
  if index == 0:
    parts += ['<h2>What this shows</h2>', bullets(findings(section))]
    parts += [f'<p class="note">{INTERVALS}</p>', '<h2>Numbers</h2>']
  parts += [tables.losses(section, 'bits_per_byte'), tables.reasons(section)]
  parts += [tables.changes(section), tables.pairs(section), tables.losses(section, 'value')]
  return '\n'.join(part for part in [*parts, '</section>'] if part)


def _scored(section: Section) -> str:
  """How much text a value stands for."""
  rows = [row for rows in section.rows.values() for row in rows if row['value'] is not None]
  if not rows:
    return ''

  def span(values) -> str:
    low, high = min(values), max(values)
    return f'{low:,}' if low == high else f'{low:,} to {high:,}'

  tokens, sizes, windows, documents = (
    span([get(row) for row in rows])
    for get in (
      lambda row: row['tokens'],
      lambda row: row['bytes'],
      lambda row: row['windows'],
      lambda row: len(row['documents']),
    )
  )
  stride = f' The stride is {rows[0]["stride"]} tokens.' if 'stride' in rows[0] else ''
  return (
    f'A value is the mean over {tokens} tokens ({sizes} bytes) in {windows} windows of {documents} '
    f'documents, the same for every scheme.{stride}'
  )


def _mixed(section: Section) -> str:
  if not section.mixed:
    return ''
  lengths = joined(map(str, section.mixed))
  return (
    f'<p class="warning">Values at {lengths} tokens were measured with other settings than those '
    f'at {section.lengths[0]}, so a line may change for that reason alone.</p>'
  )


def _figure(section: Section, index: int) -> str:
  """The figure for a wide and for a narrow window, its description and caption."""
  limit = figures.limits(section)
  caption = ['Validation loss against evaluation length']
  if section.several_seeds:
    caption.append('lines are means over seeds, bands reach from the lowest seed to the highest')
  caption.append('a line ends where its scheme has no value')
  if limit.knee is not None:
    caption.append(f'the shaded part of the axis, above {limit.knee:g} bits/byte, is compressed')
  if limit.top > figures.UNIFORM:
    caption.append(
      f'the dotted line at {figures.UNIFORM:g} is a uniform guess, and lines that rise above '
      f'{limit.top:g} leave the figure'
    )
  labels = joined(scheme.label for scheme in section.schemes)
  alternative = html.escape(
    f'Line chart: bits per byte at {section.lengths[0]} to {section.lengths[-1]} tokens for '
    f'{labels}. The tables below hold its numbers.'
  )
  drawings = []
  for kind, narrow in (('wide', False), ('narrow', True)):
    figure = figures.loss_by_length(section, narrow)
    drawings.append(f'<div class="{kind}">{drawing.inline(figure, f"{kind}{index}")}</div>')
  return (
    f'<figure>\n<div role="img" aria-label="{alternative}">\n{"".join(drawings)}</div>\n'
    f'<figcaption>{"; ".join(caption)}.</figcaption>\n</figure>'
  )


def _notes(section: Section) -> str:
  """What schemes have to say about themselves."""
  lines = {
    f'{scheme.label}: {note}'
    for scheme in section.schemes
    for run in scheme.runs
    for note in run.record['notes']
  }
  return f'<section><h2>Notes on schemes</h2>\n{bullets(sorted(lines))}</section>' if lines else ''
