"""Tables of one claim, as data: tests, measurements, published figures and models."""

from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import Any

from experiments.report import numbers
from experiments.report.claims.drawings import label
from experiments.report.claims.rows import claimed_text, effect_text, planner
from experiments.report.render import Table
from experiments.studies import statistics
from experiments.studies.ledger import Finding
from experiments.studies.scales import Scale
from pe_research.common import nested

SHOWN_ELSEWHERE = ('name', 'target_length', 'train_length')  # by the row, or by the factor
USUAL = {'fraction': 1.0, 'layout': 'half', 'partial': 'width', 'slice_factor': 1.0}
IGNORED = ('optimizer.batch', 'data.seed')  # in the number of tokens, or of no influence


def tests(finding: Finding) -> Table:
  """Every test: its effect, where the claim has it, the paper's value, three intervals."""
  rows = []
  for o in finding.outcomes:
    name = f'{o.test.variant}: {o.test.says}' if o.test.variant else o.test.says
    name += ' (control)' if o.test.control else ''
    effect, spans = '–', ['–', '–']
    if o.estimate is not None:
      effect = effect_text(o)
      intervals = o.estimate.by_seed, o.estimate.bootstrap
      spans = [numbers.span(interval) if interval else '–' for interval in intervals]
    decides = '; '.join(filter(None, (o.verdict, o.power, o.why)))
    rows.append([name, effect, claimed_text(o.test), o.test.paper or '–', decides, *spans])
  head = ['Test', 'Effect', 'Claimed', 'The paper has', 'Decides', 'By seeds alone', 'Bootstrap']
  return Table(f'Tests of {finding.claim.id}. {len(finding.seeds)} seeds.', head, rows, 'tests')


def _by_model(
  finding: Finding, wanted: Callable[[Mapping], bool]
) -> Iterator[tuple[list[str], list]]:
  """Model, measurement and length of the rows that are wanted, and those rows, one a seed."""
  for model in finding.claim.models:
    by_measurement: dict[tuple, list] = {}
    for seed in finding.seeds:
      for key, row in finding.rows.get((model, seed), {}).items():
        if wanted(row):
          by_measurement.setdefault(key, []).append(row)
    for key in sorted(by_measurement, key=lambda key: (key[0], key[2], key[1])):
      protocol, control, length = key
      name = [label(finding.claim, model), f'{protocol} {control}', str(length)]
      yield name, by_measurement[key]


def shares(finding: Finding) -> Table | None:
  """Exact answers of every model, seed by seed with Wilson's interval; None without any."""
  rows = []
  for name, measured in _by_model(finding, lambda row: 'hits' in row):
    each = []
    for row in measured:
      low, high = statistics.wilson(row['hits'], row['windows'])
      each.append(f'{row["hits"] / row["windows"]:.3f} ({low:.2f} to {high:.2f})')
    middle = median(row['hits'] / row['windows'] for row in measured)
    rows.append([*name, f'{middle:.3f}', _chance(measured[0]), '; '.join(each)])
  head = ['Model', 'Measured', 'Length', 'Median seed', 'Chance', 'Each seed (95 %, Wilson)']
  caption = f'Exact answers of {finding.claim.id}. Shares of the same prompts for all models.'
  return Table(caption, head, rows) if rows else None


def probes(finding: Finding) -> Table | None:
  """Errors of every probe, seed by seed; None without any."""
  rows = [
    [*name, _chance(measured[0]), '; '.join(f'{row["value"]:.2f}' for row in measured)]
    for name, measured in _by_model(finding, lambda row: 'chance' in row and 'hits' not in row)
  ]
  head = ['Model', 'Measured', 'Length', 'Chance', 'Each seed']
  caption = f'Mean errors of the probes of {finding.claim.id}, tokens.'
  return Table(caption, head, rows) if rows else None


def _chance(row: Mapping[str, Any]) -> str:
  """The value of a random guess."""
  return f'{row["chance"]:.2g}' if 'chance' in row else '–'


def published(finding: Finding) -> Table:
  """The paper's figures, and where each was read."""
  rows = [[p.what, p.value, p.where or '–', p.read] for p in finding.claim.published]
  return Table(f'Published for {finding.claim.id}.', ['What', 'Value', 'Where', 'Read in'], rows)


def models(finding: Finding, scale: Scale) -> Table:
  """A row for each model: its positions, its training, and how it differs from the first."""
  plan, claim = planner(scale), finding.claim
  nodes = {name: plan.node(claim, name, 0) for name in claim.models}
  names = {node.key: name for name, node in nodes.items()}
  first = nested.flat(next(iter(nodes.values())).weights.config)
  rows = []
  for name, node in nodes.items():
    config = node.config
    start = label(claim, names[node.start.key]) if node.start else '–'
    tokens = config['steps'] * config['optimizer']['batch'] * config['length']
    trained = [f'{tokens:,}', str(config['length'])] if node.trains else ['–', '–']
    row = [label(claim, name), _position(config['position']), start, *trained]
    rows.append([*row, _differences(config, first)])
  head = ['Model', 'Positions', 'Weights of', 'Trained on tokens', 'in texts of', 'Differs in']
  return Table(f'Models of {claim.id}.', head, rows)


def _position(position: Mapping[str, Any]) -> str:
  """Its name and arguments, without the usual ones."""
  arguments = {
    k: v
    for k, v in sorted(position.items())
    if k not in SHOWN_ELSEWHERE and v not in (None, '') and USUAL.get(k) != v
  }
  if arguments.pop('file', None):
    return f'{position["name"]}: searched factors'
  texts = [f'{k}={v:g}' if isinstance(v, float) else f'{k}={v}' for k, v in arguments.items()]
  return f'{position["name"]}: {", ".join(texts)}' if texts else position['name']


def _differences(config: Mapping[str, Any], first: Mapping[str, Any]) -> str:
  """Fields of model, data and optimizer that differ from those of the claim's first model."""
  differing = [
    f'{name}={value}'
    for name, value in nested.flat(config).items()
    if name.startswith(('model.', 'data.', 'optimizer.', 'attention.'))
    and not name.startswith(IGNORED)
    and first.get(name) != value
  ]
  return ', '.join(differing) or '–'
