"""What was run for a claim: the models, their training, and what is scored."""

from collections.abc import Mapping
from typing import Any

from experiments.report.claims import drawings
from experiments.report.claims.parts import Table
from experiments.report.claims.rows import planner
from experiments.studies.ledger import Finding
from experiments.studies.plan import Node
from experiments.studies.scales import Scale
from pe_research.common import nested

SAID = ('name', 'target_length', 'train_length')  # in the row, or by the factor
USUAL = {'fraction': 1.0, 'layout': 'half', 'partial': 'width', 'slice_factor': 1.0}
COUNTED = ('optimizer.batch', 'data.seed')  # in the number of tokens, or of no matter
HEADS = ['Model', 'Positions', 'Weights of', 'Trained on tokens', 'in texts of', 'Differs in']


def sentence(finding: Finding, scale: Scale) -> str:
  """Sizes, training and scoring that all models share."""
  config = _nodes(finding, scale)[next(iter(finding.claim.models))].weights.config
  model, optimizer, data, wanted = (config[p] for p in ('model', 'optimizer', 'data', 'eval'))
  task = any(m.task for m in finding.claim.models.values())
  trained = (
    f'Tasks are trained up to size {scale.task_size}, in texts of {config["length"]} tokens.'
    if task
    else f'L = {scale.length} tokens of {data["source"]} ({data["tokenizer"]}).'
  )
  scored = (
    'Examples are answered by greedy decoding.'
    if task
    else f'{wanted["windows"]} windows of held-out text; the same last {wanted["targets"]} tokens '
    'of each are scored at every length, unless a test says otherwise.'
  )
  seeds = len(finding.seeds)
  return (
    f'{trained} {model["layers"]} layers of width {model["width"]}, '
    f'{model["heads"]} heads of {model["head_dim"]}; {config["steps"]:,} steps of '
    f'{optimizer["batch"]} texts, AdamW, learning rate {optimizer["learning_rate"]:g} '
    f'({optimizer["schedule"]}). {scored} {seeds} seed{"s" * (seeds != 1)}.'
  )


def models(finding: Finding, scale: Scale) -> Table:
  """A row a model."""
  nodes = _nodes(finding, scale)
  base = next(iter(nodes.values())).weights.config
  names = {node.key: name for name, node in nodes.items()}
  rows = []
  for name, node in nodes.items():
    config = node.config
    start = drawings.label(finding.claim, names[node.start.key]) if node.start else '–'
    tokens = config['steps'] * config['optimizer']['batch'] * config['length']
    trained = [f'{tokens:,}', str(config['length'])] if node.trains else ['–', '–']
    row = [drawings.label(finding.claim, name), _position(config['position']), start, *trained]
    rows.append([*row, _differs(config, base)])
  return Table(f'Models of {finding.claim.id}.', HEADS, rows)


def _nodes(finding: Finding, scale: Scale) -> dict[str, Node]:
  plan, claim = planner(scale), finding.claim
  return {name: plan.node(claim, name, 0) for name in claim.models}


def _position(position: Mapping[str, Any]) -> str:
  """Its name and arguments, the usual ones left out."""
  own = {
    k: v
    for k, v in sorted(position.items())
    if k not in SAID and v not in (None, '') and USUAL.get(k) != v
  }
  if own.pop('file', None):
    return f'{position["name"]}: searched factors'
  texts = [f'{k}={v:g}' if isinstance(v, float) else f'{k}={v}' for k, v in own.items()]
  return f'{position["name"]}: {", ".join(texts)}' if texts else position['name']


def _differs(config: Mapping[str, Any], base: Mapping[str, Any]) -> str:
  """Fields of model, data and optimizer in which a model differs from the first of its claim."""
  usual = nested.flat(base)
  found = [
    f'{name}={value}'
    for name, value in nested.flat(config).items()
    if name.startswith(('model.', 'data.', 'optimizer.', 'attention.'))
    and not name.startswith(COUNTED)
    and usual.get(name) != value
  ]
  return ', '.join(found) or '–'
