"""Plans the jobs that claims need: what to train, to search and to measure, each once."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs import finetune
from experiments.studies import study, validation
from experiments.studies.planned_models import DIGITS, Node
from experiments.studies.scales import Scale
from experiments.studies.terms import Claim, Model, Quantity
from launch.job import Job
from pe_research.common import digest, nested
from pe_research.common.checks import choose
from pe_research.runs import conditions, lineage
from pe_research.settings import cli, configs, protocols


class Planner:
  """Makes the nodes of claims; claims that need the same node share it."""

  def __init__(self, scale: Scale, workdir: pathlib.Path):
    """Plans for a scale, with everything that is run below `workdir`."""
    self.scale, self.workdir = scale, workdir
    self.nodes: dict[str, Node] = {}
    self.searches: dict[str, Job] = {}
    self.searched: dict[str, tuple[Node, int]] = {}  # job name -> its weights, length in tokens
    self._planned: dict[tuple[int, str, int], tuple[Claim, Node]] = {}  # by the claim's identity

  def add(self, claim: Claim, seeds: Sequence[int]) -> dict[str, list[Node]]:
    """The nodes of a claim by model, one for each seed; adds to `wanted` what the claim measures.

    Raises:
      ValueError: names the claim, the model and what is wrong with it.
    """
    validation.check(claim, self.scale.name, quantities(claim))
    nodes = {}
    for name in claim.models:
      try:
        nodes[name] = [self.node(claim, name, seed) for seed in seeds]
      except ValueError as error:
        raise ValueError(
          f'{claim.id}, model {name!r}, at scale {self.scale.name}: {error}'
        ) from error
    for quantity in quantities(claim):
      for node in nodes[quantity.model]:
        node.wanted |= {text for text, _ in self.measurements(quantity, node)}
    for name, own in nodes.items():
      try:
        for node in own:  # as pe_research.evaluate will check
          wanted = {'measurements': sorted(node.wanted)}
          protocols.check(dict(node.config['eval']) | wanted, node.config)
      except ValueError as error:
        raise ValueError(f'{claim.id}, what is measured of {name!r}: {error}') from error
    return nodes

  def measurements(self, quantity: Quantity, node: Node) -> list[tuple[str, float]]:
    """The measurements that a quantity needs, PROTOCOL/CONTROL/LENGTH, each with its `at`."""
    task = quantity.protocol == 'task'
    unit = self.scale.task_size if task else self.scale.length
    middle = -(-node.config['model']['layers'] // 2)
    controls = quantity.controls or (quantity.control,)
    filled = [control.format(middle=middle, L=self.scale.length) for control in controls]
    return [
      (f'{quantity.protocol}/{control}/{round(at * unit)}', at)
      for at in quantity.at
      for control in filled
    ]

  def node(self, claim: Claim, name: str, seed: int) -> Node:
    """The node of one model of a claim at one seed."""
    key = id(claim), name, seed
    if key not in self._planned:
      self._planned[key] = claim, self._plan(claim, name, seed)
    return self._planned[key][1]

  def _plan(self, claim: Claim, name: str, seed: int) -> Node:
    choose('the model', name, claim.models)
    model = claim.models[name]
    if not model.start:
      return self._trained(model, seed)
    start = self.node(claim, model.start, seed)
    search = self._search(start, model, seed) if model.searched else None
    if model.share:
      return self._fine_tuned(model, start, search, seed)
    return self._extended(model, start, search)

  def _fields(self, model: Model) -> dict[str, Any]:
    """The further fields of a model at this scale."""
    scale, fields = self.scale.name, {}
    for field, value in model.fields.items():
      by_scale = value if isinstance(value, Mapping) else {scale: value}
      if scale in by_scale:
        fields[field] = by_scale[scale]
    return fields

  def _position(self, model: Model, search: Job | None = None) -> str:
    """The position of a model, its lengths and file filled in."""
    text = re.sub(r'\{L/(\d+)\}', lambda m: str(self.scale.length // int(m[1])), model.position)
    return text.replace('{searched}', str(search.done) if search else '')

  def _trained(self, model: Model, seed: int) -> Node:
    name, _, rest = self._position(model).partition(':')
    arguments = dict(item.partition('=')[::2] for item in rest.split(',') if item)
    preset = arguments.pop('preset', 'published')
    fields = dict(self.scale.fields)
    if model.task:
      size = self.scale.task_size
      family = f'configs/tasks.py:task={model.task},size={size},position={name},preset={preset}'
      fields |= self.scale.task_fields
      fields = {k: v for k, v in fields.items() if not k.startswith(('eval.', 'data.'))}
    else:
      length = round(model.length * self.scale.length)
      family = f'configs/lm.py:position={name},preset={preset},length={length}'
    fields |= self._fields(model)
    flags = [f'--config={family},seed={seed}', *_flags(fields)]
    flags += [f'--config.position.{field}={value}' for field, value in arguments.items()]
    if model.length != 1:  # the same number of tokens, up to whole texts
      plain = cli.read_config(flags)
      batch = max(1, round(plain.optimizer.batch / model.length))
      steps = round(plain.steps * plain.optimizer.batch / (batch * model.length))
      flags += _flags({'optimizer.batch': batch, 'steps': steps})
    return self._node(flags, _resolved(flags), None, None, f'{name}-seed{seed}')

  def _fine_tuned(self, model: Model, start: Node, search: Job | None, seed: int) -> Node:
    text, saved = self._position(model, search), start.config
    position = lineage.parse_position(text, saved)
    length = round(model.length * self.scale.length)
    budget = finetune.budget(start.root.config, length, model.share)
    data = saved['data'] | {'seed': saved['data']['seed'] + 1_000}  # another order than before
    fields = {part: saved[part] for part in ('model', 'data', 'eval', 'attention')}
    fields |= {'data': data, 'optimizer': budget['optimizer'], 'steps': budget['steps']}
    fields |= {'matmul_precision': saved['matmul_precision'], 'start.workdir': str(start.workdir)}
    fields = nested.flat(fields) | self._fields(model)
    fields |= {k: v for k, v in self.scale.fields.items() if k.startswith('run.')}
    fields |= {f'position.{k}': v for k, v in position.items() if k != 'name'}
    preset = ',preset=matched' if 'preset=matched' in text else ''
    base = f'--config=configs/lm.py:position={position["name"]}{preset},length={length},seed={seed}'
    defaults = nested.flat(cli.read_config([base]).to_dict())
    changed = {k: v for k, v in fields.items() if _flag(v) != _flag(defaults.get(k))}
    flags = [base, *_flags(changed)]
    if search is None:
      config = _resolved(flags)
    else:  # the factors, which are not known yet, determine nothing else
      config = saved | {'position': position, 'length': length, 'data': data} | budget
      config['start'] = config['start'] | {'workdir': str(start.workdir)}
    return self._node(flags, config, start, search, f'{start.family}-{position["name"]}')

  def _extended(self, model: Model, start: Node, search: Job | None) -> Node:
    text = self._position(model, search)
    scheme = text.partition(':')[0]
    if search is not None and not search.done.exists():
      position = {'name': scheme, 'file': str(search.done)}
    else:
      position = lineage.parse_position(text, start.config)
    config = start.config | {'position': position}
    if search is None:
      config = configs.resolve(config)
    key = digest.of_json([start.key, search.name if search else config['position']])
    workdir = self._workdir(f'{start.family}-as-{scheme}', key)
    flags = [f'--workdir={start.weights.workdir}', f'--position={text}', f'--into={workdir}']
    node = Node(key, config, workdir, flags, start, search, trains=False)
    return self.nodes.setdefault(key, node)

  def _node(
    self, flags: list[str], config, start: Node | None, search: Job | None, name: str
  ) -> Node:
    decisive = conditions.experiment(config)
    decisive |= {'start': start.key if start else '', 'search': search.name if search else ''}
    if search is not None:
      decisive['position'] = config['position']['name']
    key = digest.of_json(decisive)
    node = Node(key, config, self._workdir(name, key), flags, start, search)
    return self.nodes.setdefault(key, node)

  def _workdir(self, name: str, key: str) -> pathlib.Path:
    return self.workdir / 'runs' / f'{name}-{key[:DIGITS]}'

  def _search(self, start: Node, model: Model, seed: int) -> Job:
    factor, short = model.searched, round(model.short * self.scale.length)
    key = digest.of_json([start.key, factor, short, model.method])
    kind = f'{model.method}-' + (f'short{short}' if short else f'{factor:g}x')
    folder = self.workdir / 'searches' / f'{start.workdir.name}-{kind}'
    if key not in self.searches:
      flags, after = [f'--seed={seed}', f'--method={model.method}'], [start.done]
      if short:
        flags += [f'--target-length={short}', f'--short-of={start.search.done}']
        after.append(start.search.done)
      name = f'search-{key[:DIGITS]}'
      self.searches[key] = study.search(name, folder, start.workdir, factor, flags, after)
      self.searched[name] = start, short or round(factor * start.config['length'])
    return self.searches[key]

  def jobs(self) -> list[Job]:
    """All jobs: trainings, in the order in which claims asked, then searches, then measurements."""
    trainings = [node.training_job() for node in self.nodes.values() if node.trains]
    measurements = [node.measurement_job() for node in self.nodes.values() if node.wanted]
    return [*trainings, *self.searches.values(), *measurements]


def quantities(claim: Claim) -> list[Quantity]:
  """All that a claim measures: for its tests, for the curves of its figure, and what is shown."""
  tested = [quantity for test in claim.tests for _, quantity in test.effect.terms]
  drawn = []
  for name, model in claim.models.items():
    protocol, control = ('task', 'exact') if model.task else ('fixed_targets', 'none')
    drawn += [Quantity(name, protocol, control, (at,)) for at in claim.figure]
  return [*tested, *drawn, *claim.shown]


def _resolved(flags: Sequence[str]) -> dict[str, Any]:
  return configs.resolve(cli.read_config(flags))


def _flags(fields: Mapping[str, Any]) -> list[str]:
  return [f'--config.{field}={_flag(value)}' for field, value in fields.items()]


def _flag(value: Any) -> Any:
  """A value as a flag takes it, lists as tuples."""
  return tuple(value) if isinstance(value, list) else value
