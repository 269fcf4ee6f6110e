"""The sweep report as one HTML page, from the runs and their sections."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from experiments.report import cards, figures, render, tables
from experiments.report.findings import findings
from experiments.report.numbers import joined
from experiments.report.summary import Section
from experiments.studies import comparability
from experiments.studies.measured import Run
from pe_research.evaluation import measures


def page(
  runs: Sequence[Run],
  sections: Sequence[Section],
  differences: Sequence[str],
  cache: Mapping[str, Any] | None = None,
  explorer: bool = False,
) -> str:
  """The whole page; it needs no network, no script and no other file.

  Args:
    runs: all of them.
    sections: of the runs, the main one first.
    differences: between the runs, that were allowed.
    cache: what experiments.cache measured; None: it was not run.
    explorer: whether explorer.html is beside the page.
  """
  main = sections[0]
  longest = max(section.lengths[-1] for section in sections)
  lengths = joined(map(str, main.train_lengths))
  notes = {
    f'{scheme.label}: {note}'
    for scheme in main.schemes
    for run in scheme.runs
    for note in run.record['notes']
  }
  return render.text(
    'report.html',
    title=f'Trained at {lengths} tokens, tested up to {longest}',
    count=len(main.schemes),
    seeds=len({run.record['seed'] for run in runs}),
    differences=differences,
    explorer=explorer,
    notes=comparability.notes(runs),
    compared=_compared(runs, main).items(),
    sections=[_section(section, i) for i, section in enumerate(sections)],
    scheme_notes=sorted(notes),
    cards=[cards.of_scheme(scheme, longest, i) for i, scheme in enumerate(main.schemes)],
    cache=tables.cache(cache),
    runs=[(tables.row_head(scheme), run) for scheme in main.schemes for run in scheme.runs],
    uniform=figures.UNIFORM,
    has_final=any('final_parameters' in run.record for run in runs),
    conditions=list(tables.conditions(runs)),
  )


def _compared(runs: Sequence[Run], section: Section) -> dict[str, str]:
  """What was trained, on what, for how long."""

  def each(describe: Callable[[Run], str]) -> str:
    return joined(dict.fromkeys(map(describe, runs)))

  seeds = sorted({run.record['seed'] for run in runs})
  return {
    'Schemes': ', '.join(scheme.label for scheme in section.schemes),
    'Training length': f'{joined(map(str, section.train_lengths))} tokens',
    'Evaluation lengths': f'{", ".join(map(str, section.lengths))} tokens',
    'Training': each(_training),
    'Model': each(_model),
    'Parameters': _range(run.record['parameters'] for run in runs),
    'Text': each(_text),
    'Seeds': ', '.join(map(str, seeds)),
    'Device': each(_device),
  }


def _training(run: Run) -> str:
  steps, length = run.record['steps'], run.config['length']
  batch = run.config['optimizer']['batch']
  return f'{steps:,} steps of {batch} × {length} ({steps * batch * length:,} tokens)'


def _model(run: Run) -> str:
  model = run.config['model']
  heads = f'{model["heads"]} heads of {model["head_dim"]}'
  mlp = f'{model["mlp"]} {model["mlp_width"]}'
  return f'{model["layers"]} layers, width {model["width"]}, {heads}, {mlp}'


def _text(run: Run) -> str:
  data, count = run.config['data'], run.record['conditions'].get('data.documents')
  documents = '' if count is None else f', {count:,} documents'
  return f'{data["source"]}{documents}, tokens are {data["tokenizer"]}'


def _device(run: Run) -> str:
  count = f' × {run.record["devices"]}' if run.record['devices'] > 1 else ''
  kind = ' '.join(dict.fromkeys(run.record['conditions']['device'].split()))
  return f'{kind}{count}, {run.config["model"]["dtype"]}'


def _range(values: Iterable[int]) -> str:
  """'1,024', or '1,024 to 2,048' where values differ."""
  values = set(values)
  low, high = min(values), max(values)
  return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def _section(section: Section, index: int) -> dict[str, Any]:
  """Text, figure and tables of one protocol and control; 0 is the main section."""
  protocol = inspect.getdoc(measures.MEASURES[section.protocol]).splitlines()[0].replace('`', '')
  return {
    'name': section.protocol.replace('_', ' '),
    'control': section.control,
    'protocol': protocol,
    'scored': _scored(section.scored),
    'mixed': list(map(str, section.mixed)),
    'lengths': section.lengths,
    'labels': [scheme.label for scheme in section.schemes],
    'several_seeds': section.several_seeds,
    'limits': figures.limits(section),
    'figure': render.figure(
      lambda narrow: figures.loss_by_length(section, narrow), f'{{}}{index}'
    ),
    'findings': findings(section) if index == 0 else [],
    'losses': tables.losses(section, 'bits_per_byte'),
    'ends': tables.ends(section),
    'comparisons': [
      tables.changes(section), tables.pairs(section), tables.losses(section, 'value')
    ],
  }  # fmt: skip


def _scored(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """How much text a value stands for; {} without values."""
  if not rows:
    return {}
  counts = {name: _range(row[name] for row in rows) for name in ('tokens', 'bytes', 'windows')}
  documents = _range(len(row['documents']) for row in rows)
  return counts | {'documents': documents, 'stride': rows[0].get('stride')}
