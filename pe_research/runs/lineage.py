"""One run from another: evaluated under another scheme, or trained on from its checkpoint."""

import pathlib
from collections.abc import Mapping
from typing import Any

from pe_research import positions
from pe_research.common import nested, provenance
from pe_research.proof import program_store
from pe_research.runs import run_folder
from pe_research.settings import configs, protocols
from pe_research.storage import files, paths

# Parts of a config that a continued run may change.
FREE = ('length', 'steps', 'seed', 'position', 'optimizer', 'eval', 'run', 'start', 'attention')
FREE_FIELDS = ('data.seed', 'data.loader', 'model.remat', 'model.dtype')


def family(name: str) -> str:
  """The scheme whose weights `name` can use: its own, or the one that it stretches."""
  return positions.scheme(name).trains_as or name


def stretching(name: str) -> list[str]:
  """Schemes that can stretch weights trained with `name`."""
  return [other for other in positions.SCHEMES if family(other) == family(name) != other]


def original_length(config: Mapping[str, Any]) -> int:
  """Tokens at which the weights were first trained, before any stretching."""
  return config['position'].get('train_length', config['length'])


def carried_over(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  """The position arguments of a run that its weights take along to the scheme `name`."""
  position = config['position']
  same = name == position['name']
  return dict(position) if same else positions.scheme(position['name']).trained_arguments(position)


def check_plain(config: Mapping[str, Any], where: object) -> None:
  """Raises ValueError unless the run's scheme is one that others stretch, not yet stretched."""
  name = config['position']['name']
  if not stretching(name):
    raise ValueError(
      f'{where} was trained with {name!r}, which no scheme stretches; name a run of another.'
    )
  if family(name) != name:
    raise ValueError(
      f'{where} was trained with {name!r}, which is stretched already; name a run of '
      f'{family(name)!r}.'
    )


def root(config: Mapping[str, Any]) -> Mapping[str, Any]:
  """The config of the run at the beginning of a chain of `start.workdir`."""
  while config['start']['workdir']:
    config = run_folder.load_config(paths.place(config['start']['workdir']))
  return config


def parse_position(text: str, saved: Mapping[str, Any]) -> dict[str, Any]:
  """The position config that 'yarn:factor=4,ramp=rotations' describes, for a saved run.

  Arguments that the run's scheme has as well (base, layout, ...) are taken from the run, and so is
  the length that the weights were trained at.

  Args:
    text: NAME[:argument=value,...]; preset=matched takes that preset.
    saved: the config of the run.

  Raises:
    ValueError: an unknown name or argument, or one that contradicts the run.
  """
  name, _, rest = text.partition(':')
  pairs = [item.partition('=')[::2] for item in rest.split(',') if item]
  for field in dict(pairs):
    values = [v for f, v in pairs if f == field]
    if len(values) > 1:
      raise ValueError(
        f'--position={name} says {field} twice, {" and ".join(values)}; say it once.'
      )
  arguments = dict(pairs)
  check_family(name, saved)
  preset = arguments.pop('preset', 'published')
  config = configs.position(name, original_length(saved), preset)
  inherited = _inherited(name, saved, config)
  for field, value in inherited.items():
    config[field] = value
  for field, value in arguments.items():
    where = f'--position={name}:{field}'
    if field == 'name':
      raise ValueError(f'{where}={value} names a second scheme; write --position={value}:...')
    configs.set_field(config, field, value, where)
  _check_inherited(config.to_dict(), inherited)
  return config.to_dict()


def _inherited(name: str, saved: Mapping[str, Any], position: Mapping[str, Any]) -> dict[str, Any]:
  """The arguments in `position`, of the scheme `name`, that the weights of a run determine."""
  weights = positions.arguments(family(name)).keys()
  taken = {k: v for k, v in carried_over(saved, name).items() if k in weights and k in position}
  length = {'train_length': original_length(saved)} if 'train_length' in position else {}
  return taken | length


def check_family(name: str, saved: Mapping[str, Any]) -> None:
  """Raises ValueError where the scheme `name` cannot use the weights of the run."""
  trained = saved['position']['name']
  if family(name) != family(trained):
    fit = stretching(trained)
    hint = f'Its weights serve {", ".join(fit)}.' if fit else 'No scheme stretches that.'
    raise ValueError(
      f'the run was trained with {trained!r}, which {name!r} cannot take over'
      f'{f" (it stretches {family(name)!r})" if family(name) != name else ""}. {hint}'
    )


def _check_inherited(position: Mapping[str, Any], inherited: Mapping[str, Any]) -> None:
  for field, value in inherited.items():
    if position[field] not in (None, value):
      raise ValueError(
        f'position.{field} is {position[field]}, and the weights were trained with {value}; say '
        'that, or start from another run.'
      )


def check_new(config: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """`check_start`, for a run in `workdir` that starts from another and has not begun."""
  start = config['start']
  if (start['workdir'] or start['pretrained']) and not (workdir / 'run.json').exists():
    check_start(config)


def check_start(config: Mapping[str, Any]) -> None:
  """Whether a resolved config can be trained from the weights that its `start` names.

  Raises:
    ValueError: they do not exist, or do not fit; says what differs.
  """
  start, position = config['start'], config['position']
  if start['workdir'] and start['pretrained']:
    raise ValueError(
      f'start.workdir is {start["workdir"]} and start.pretrained {start["pretrained"]}; name one.'
    )
  saved = origin_of(config)
  check_family(position['name'], saved)
  _check_inherited(position, _inherited(position['name'], saved, position))
  before, after = (
    nested.flat({k: v for k, v in whole.items() if k not in FREE}) for whole in (saved, config)
  )
  if start['pretrained']:  # its config has fewer fields
    after = {field: value for field, value in after.items() if field in before}
  changed = nested.difference(before, after)
  changed = [line for line in changed if line.split(':')[0] not in FREE_FIELDS]
  if changed:
    where = paths.place(start['workdir'] or start['pretrained'])
    raise ValueError(
      f'the weights in {where} cannot be continued from, since these differ (saved -> config):\n  '
      + '\n  '.join(changed)
      + '\nOnly scheme, length, steps, seeds, optimizer and evaluation may change.'
    )


def origin_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config of the run that a config starts from, or of the published model."""
  from pe_research.huggingface import importing  # slow to import

  start = config['start']
  if start['pretrained']:
    return importing.checkpoint(pathlib.Path(start['pretrained'])).config
  return run_folder.load_config(paths.place(start['workdir']))


def published(config: Mapping[str, Any], parameters: str) -> dict[str, Any]:
  """As `source`, for weights of the published model that a config starts from."""
  saved = origin_of(config)
  record = {'scheme': saved['position']['name'], 'train_length': saved['length']}
  return _source(pathlib.Path(config['start']['pretrained']), 0, parameters, record)


def source(workdir: pathlib.Path, step: int, parameters: str) -> dict[str, Any]:
  """What a record says of the checkpoint that weights came from; `parameters` is their digest."""
  return _source(workdir, step, parameters, run_folder.load_record(workdir))


def _source(folder: pathlib.Path, step: int, parameters: str, record: Mapping[str, Any]):
  return {
    'run': folder.name,
    'step': step,
    'parameters': parameters,
    'scheme': record['scheme'],
    'train_length': record['train_length'],
    'fingerprint': record.get('fingerprint'),
    'start': record.get('start'),
  }


def derive(
  config: Mapping[str, Any],
  into: pathlib.Path,
  origin: pathlib.Path,
  weights: Mapping[str, Any],
) -> None:
  """Makes `into` the folder of a run that was never trained: the weights of another, unchanged.

  Args:
    config: resolved, that of `origin` but for position and eval.
    into: where its config, record and results are kept.
    origin: folder of the run that the weights are of.
    weights: of `source`.

  Raises:
    WorkdirError: `into` belongs to another config, to other weights or to a trained run.
  """
  saved = files.read_json(into / 'config.json')
  asked = {f: saved['eval'][f] for f in protocols.SELECTION if f in saved['eval']} if saved else {}
  # More may be measured of the same run later; how it is measured stays.
  run_folder.check_config(into, config | {'eval': config['eval'] | asked})
  there = files.read_json(into / 'run.json')
  if there is not None and there.get('weights_of') != weights:
    whose = there.get('weights_of') or {'run': 'its own', 'step': there['steps']}
    raise files.WorkdirError(
      f'{into} holds results of the weights of {whose["run"]} (step {whose["step"]}); these are of '
      f'{origin.name} (step {weights["step"]}). Choose another --into.'
    )
  record = run_folder.load_record(origin)
  trained = {v for k, v in record['conditions'].items() if k.startswith('program.')}
  trained |= set(record.get('programs', {}).values())
  texts = {k: v for k, v in program_store.read(origin).items() if k in trained}
  program_store.add(into, texts)
  files.write_json(into / 'config.json', config)
  files.write_json(
    into / 'run.json',
    record
    | {
      'scheme': config['position']['name'],
      'steps': weights['step'],
      'notes': configs.scheme(config).notes(original_length(config)),
      'weights_of': weights,
      'evaluated_by': provenance.provenance(),
    },
  )
