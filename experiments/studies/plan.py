"""From claims to the jobs that settle them: what to train, to search and to measure, each once."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs import finetune
from experiments.studies import measured, study, validation
from experiments.studies.scales import Scale
from experiments.studies.terms import Claim, Model, Quantity
from launch.job import Job
from pe_research.common import digest, nested
from pe_research.common.checks import choose
from pe_research.runs import conditions, lineage
from pe_research.settings import cli, configs, protocols
from pe_research.storage import files

DIGITS = 10  # of a key in the name of a directory


@dataclasses.dataclass
class Node:
  """A model at one seed: trained, fine-tuned, or the weights of another under its own rules.

  Attributes:
    key: of everything that decides its results.
    config: resolved.
    workdir: of its config, record and rows.
    flags: of pe_research.main, or of pe_research.evaluate where nothing is trained.
    start: whose weights it takes, or None.
    search: of its factors, or None.
    trains: whether there is a training run.
    wanted: measurements asked for.
  """

  key: str
  config: dict[str, Any]
  workdir: pathlib.Path
  flags: list[str]
  start: 'Node | None' = None
  search: Job | None = None
  trains: bool = True
  wanted: set[str] = dataclasses.field(default_factory=set)

  def job_names(self) -> tuple[str, str]:
    """Of its training and of its measurements, whether it has them or not."""
    return self.workdir.name, f'{self.workdir.name} measured'

  @property
  def weights(self) -> 'Node':
    """The node whose training made the weights."""
    return self if self.trains else self.start.weights


class Planner:
  """Makes nodes, the same one for the same thing whichever claim asks."""

  def __init__(self, scale: Scale, workdir: pathlib.Path):
    """Plans for a scale, with everything that is run below `workdir`."""
    self.scale, self.workdir = scale, workdir
    self.nodes: dict[str, Node] = {}
    self._known: dict[tuple[int, str, int], tuple[Claim, Node]] = {}  # by the claim's identity
    self.searches: dict[str, Job] = {}
    self.searched: dict[str, tuple[Node, int]] = {}  # job -> whose weights, on texts of what length

  def add(self, claim: Claim, seeds: Sequence[int]) -> dict[str, list[Node]]:
    """The nodes of a claim by model, one a seed, with what the claim measures noted in them.

    Raises:
      ValueError: names the claim, the model and what is wrong with it.
    """
    validation.check(claim, self.scale.name, quantities(claim))
    made = {}
    for name in claim.models:
      try:
        made[name] = [self.node(claim, name, seed) for seed in seeds]
      except ValueError as error:
        raise ValueError(
          f'{claim.id}, model {name!r}, at scale {self.scale.name}: {error}'
        ) from error
    for quantity in quantities(claim):
      for node in made[quantity.model]:
        node.wanted |= {text for text, _ in self.measurements(quantity, node)}
    for name, own in made.items():
      try:
        for node in own:  # as pe_research.evaluate will
          wanted = {'measurements': sorted(node.wanted)}
          protocols.check(dict(node.config['eval']) | wanted, node.config)
      except ValueError as error:
        raise ValueError(f'{claim.id}, what is measured of {name!r}: {error}') from error
    return made

  def measurements(self, quantity: Quantity, node: Node) -> list[tuple[str, float]]:
    """What has to be measured for a quantity, as PROTOCOL/CONTROL/LENGTH, and each one's `at`."""
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
    if key not in self._known:
      self._known[key] = claim, self._made(claim, name, seed)
    return self._known[key][1]

  def _made(self, claim: Claim, name: str, seed: int) -> Node:
    choose('the model', name, claim.models)
    model = claim.models[name]
    if not model.start:
      return self._trained(model, seed)
    start = self.node(claim, model.start, seed)
    search = self._search(start, model, seed) if model.searched else None
    return (self._tuned if model.share else self._stretched)(model, start, search, seed)

  def _fields(self, model: Model) -> dict[str, Any]:
    """Of a model at this scale."""
    at = lambda value: value if isinstance(value, Mapping) else {self.scale.name: value}
    own = {field: at(value) for field, value in model.fields.items()}
    return {f: value[self.scale.name] for f, value in own.items() if self.scale.name in value}

  def _text(self, model: Model, search: Job | None = None) -> str:
    share = lambda found: str(self.scale.length // int(found[1]))
    text = re.sub(r'\{L/(\d+)\}', share, model.position)
    return text.replace('{searched}', str(search.done) if search else '')

  def _trained(self, model: Model, seed: int) -> Node:
    name, _, rest = self._text(model).partition(':')
    given = dict(item.partition('=')[::2] for item in rest.split(',') if item)
    preset = given.pop('preset', 'published')
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
    flags += [f'--config.position.{field}={value}' for field, value in given.items()]
    if model.length != 1:  # as many tokens in all, as near as whole texts come to it
      plain = cli.read_config(flags)
      batch = max(1, round(plain.optimizer.batch / model.length))
      steps = round(plain.steps * plain.optimizer.batch / (batch * model.length))
      flags += _flags({'optimizer.batch': batch, 'steps': steps})
    resolved = configs.resolve(cli.read_config(flags))
    return self._node(flags, resolved, None, None, f'{name}-seed{seed}')

  def _tuned(self, model: Model, start: Node, search, seed: int) -> Node:
    text = self._text(model, search)
    position = lineage.parse_position(text, start.config)
    preset = ',preset=matched' if 'preset=matched' in text else ''
    length = round(model.length * self.scale.length)
    root = start
    while root.start is not None:
      root = root.start
    budget = finetune.budget(root.config, length, model.share)
    data_seed = start.config['data']['seed'] + 1_000  # another order than before
    fields = {f: start.config[f] for f in ('model', 'data', 'eval', 'attention')}
    fields |= {'optimizer': budget['optimizer'], 'steps': budget['steps']}
    fields['matmul_precision'] = start.config['matmul_precision']
    fields['start.workdir'] = str(start.workdir)
    base = f'--config=configs/lm.py:position={position["name"]}{preset},length={length},seed={seed}'
    fields = nested.flat(fields) | {'data.seed': data_seed} | self._fields(model)
    fields |= {k: v for k, v in self.scale.fields.items() if k.startswith('run.')}
    fields |= {f'position.{k}': v for k, v in position.items() if k != 'name'}
    usual = nested.flat(cli.read_config([base]).to_dict())
    changed = {k: v for k, v in fields.items() if _plain(v) != _plain(usual.get(k))}
    name = f'{start.workdir.name.rpartition("-")[0]}-{position["name"]}'
    flags = [base, *_flags(changed)]
    if search is None:
      return self._node(flags, configs.resolve(cli.read_config(flags)), start, search, name)
    # What will have been found is not known yet, and decides nothing else.
    config = start.config | {'position': position, 'length': length} | budget
    config['data'] = config['data'] | {'seed': data_seed}
    config['start'] = config['start'] | {'workdir': str(start.workdir)}
    return self._node(flags, config, start, search, name)

  def _stretched(self, model: Model, start: Node, search, seed: int) -> Node:
    text = self._text(model, search)
    name = f'{start.workdir.name.rpartition("-")[0]}-as-{text.partition(":")[0]}'
    if search is not None and not search.done.exists():
      position = {'name': text.partition(':')[0], 'file': str(search.done)}
    else:
      position = lineage.parse_position(text, start.config)
    config = start.config | {'position': position}
    if search is None:
      config = configs.resolve(config)
    key = digest.of_json([start.key, search.name if search else config['position']])
    if key not in self.nodes:
      workdir = self.workdir / 'runs' / f'{name}-{key[:DIGITS]}'
      flags = [f'--workdir={start.weights.workdir}', f'--position={text}', f'--into={workdir}']
      self.nodes[key] = Node(key, config, workdir, flags, start, search, trains=False)
    return self.nodes[key]

  def _node(self, flags: list[str], config, start: Node | None, search, name: str) -> Node:
    decides = conditions.experiment(config)
    decides |= {'start': start.key if start else '', 'search': search.name if search else ''}
    if search is not None:
      decides['position'] = config['position']['name']
    key = digest.of_json(decides)
    if key not in self.nodes:
      workdir = self.workdir / 'runs' / f'{name}-{key[:DIGITS]}'
      self.nodes[key] = Node(key, config, workdir, flags, start, search)
    return self.nodes[key]

  def _search(self, start: Node, model: Model, seed: int) -> Job:
    factor, short = model.searched, round(model.short * self.scale.length)
    key = digest.of_json([start.key, factor, short, model.method])
    kind = f'{model.method}-' + (f'short{short}' if short else f'{factor:g}x')
    folder = self.workdir / 'searches' / f'{start.workdir.name}-{kind}'
    if key not in self.searches:
      flags, after = [f'--seed={seed}', f'--method={model.method}'], [start.workdir / 'done.json']
      if short:
        flags += [f'--target-length={short}', f'--short-of={start.search.done}']
        after.append(start.search.done)
      name = f'search-{key[:DIGITS]}'
      self.searches[key] = study.search(name, folder, start.workdir, factor, flags, after)
      self.searched[name] = start, short or round(factor * start.config['length'])
    return self.searches[key]

  def jobs(self) -> list[Job]:
    """All of them: trainings first, in the order in which claims asked, then what needs them."""
    trained = [self._training(node) for node in self.nodes.values() if node.trains]
    measured = [self.measuring(node) for node in self.nodes.values() if node.wanted]
    return [*trained, *self.searches.values(), *measured]

  def making(self, models: Mapping[str, Sequence[Node]]) -> dict[str, Job]:
    """The jobs that the models of a claim take, by name, those of a search included."""
    jobs: list[Job] = []
    for node in (node for own in models.values() for node in own):
      jobs += [self._training(node)] if node.trains else []
      jobs += [node.search] if node.search else []
      jobs += [self.measuring(node)] if node.wanted else []
    return {job.name: job for job in jobs}

  def _training(self, node: Node) -> Job:
    after = [node.start.workdir / 'done.json'] if node.start else []
    after += [node.search.done] if node.search else []
    return study.train(node.job_names()[0], node.workdir, node.flags, after)

  def lost(self, node: Node) -> list[str]:
    """What was measured of a node by its marks, and is not in its rows: the file was cut."""
    if not (node.wanted and self.measuring(node).done.exists()):
      return []
    rows = files.read_rows(node.workdir / 'results.jsonl')
    return sorted(node.wanted - {measured.name(row) for row in rows})

  def measuring(self, node: Node) -> Job:
    """One job for all that the claims of this plan want of a node."""
    wanted = sorted(node.wanted)
    mark = node.workdir / f'measured-{digest.of_json(wanted)[:DIGITS]}.json'
    after = (node.weights.workdir / 'done.json',)
    after += (node.search.done,) if node.search and not node.trains else ()
    flags = [f'--workdir={node.workdir}'] if node.trains else node.flags
    command = ('-m', 'pe_research.evaluate', *flags, f'--done={mark}')
    command += tuple(f'--measurement={text}' for text in wanted)
    name = node.job_names()[1]
    return Job(name, command, node.workdir / 'measure.txt', mark, after)


def quantities(claim: Claim) -> list[Quantity]:
  """All that a claim measures: of its tests, the curves of its figure, and what is shown."""
  tested = [quantity for test in claim.tests for _, quantity in test.effect.terms]
  plain = lambda model: ('task', 'exact') if model.task else ('fixed_targets', 'none')
  drawn = [
    Quantity(name, *plain(model), at=(at,))
    for name, model in claim.models.items()
    for at in claim.figure
  ]
  return tested + drawn + list(claim.shown)


def _flags(fields: Mapping[str, Any]) -> list[str]:
  return [f'--config.{field}={_plain(value)}' for field, value in fields.items()]


def _plain(value: Any) -> Any:
  """A value as a flag says it, lists as tuples."""
  return tuple(value) if isinstance(value, list) else value
