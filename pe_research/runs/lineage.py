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

UNLIKE = ('length', 'steps', 'seed', 'position', 'optimizer', 'eval', 'run', 'start')


def family(name: str) -> str:
  """The scheme whose weights `name` can use: its own, or the one that it stretches."""
  return positions.scheme(name).trains_as or name


def stretching(name: str) -> list[str]:
  """Those that stretch what `name` was trained as."""
  return [other for other in positions.SCHEMES if family(other) == family(name) != other]


def original_length(config: Mapping[str, Any]) -> int:
  """Tokens at which the weights were first trained, before any stretching."""
  return config['position'].get('train_length', config['length'])


def known(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  """The position arguments that a run's weights bring along to the scheme `name`."""
  position = config['position']
  stays = name == position['name']
  return dict(position) if stays else positions.scheme(position['name']).trained_arguments(position)


def check_plain(config: Mapping[str, Any], where: object) -> None:
  """Raises ValueError unless the run was trained with a scheme that others stretch, as it is."""
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
  """The config of the run that was trained from drawn parameters, following `start`."""
  while config['start']['workdir']:
    config = run_folder.load_config(paths.place(config['start']['workdir']))
  return config


def given(text: str, saved: Mapping[str, Any]) -> dict[str, Any]:
  """The position config that 'yarn:factor=4,ramp=rotations' describes, for a saved run.

  What the run's own scheme has as well (base, layout, ...) is the run's, and so is the length that
  the weights were trained at.

  Args:
    text: NAME[:argument=value,...]; preset=matched takes that preset.
    saved: the config of the run.

  Raises:
    ValueError: an unknown name or argument, or one that contradicts the run.
  """
  name, _, rest = text.partition(':')
  pairs = [item.partition('=')[::2] for item in rest.split(',') if item]
  for field in dict(pairs):
    twice = [v for f, v in pairs if f == field]
    if len(twice) > 1:
      raise ValueError(f'--position={name} says {field} twice, {" and ".join(twice)}; say it once.')
  pairs = dict(pairs)
  check_family(name, saved)
  length, preset = original_length(saved), pairs.pop('preset', 'published')
  config = configs.position(name, length, preset)
  own = {k: v for k, v in known(saved, name).items() if k in config and k != 'name'}
  if 'train_length' in config:
    own['train_length'] = length
  inherited = inherit(name, own)
  for field, value in inherited.items():
    config[field] = value
  for field, value in pairs.items():
    where = f'--position={name}:{field}'
    if field == 'name':
      raise ValueError(f'{where}={value} names a second scheme; write --position={value}:...')
    configs.set_field(config, field, value, where)
  check_inherited(config.to_dict(), inherited)
  return config.to_dict()


def inherit(name: str, own: Mapping[str, Any]) -> dict[str, Any]:
  """The part of a run's position config that its weights depend on."""
  weights = positions.arguments(family(name)).keys() | {'train_length'}
  return {field: value for field, value in own.items() if field in weights}


def check_family(name: str, saved: Mapping[str, Any]) -> None:
  """Raises ValueError where weights of the run mean nothing to the scheme `name`."""
  trained = saved['position']['name']
  if family(name) != family(trained):
    fit = stretching(trained)
    hint = f'Its weights serve {", ".join(fit)}.' if fit else 'No scheme stretches that.'
    raise ValueError(
      f'the run was trained with {trained!r}, which {name!r} cannot take over'
      f'{f" (it stretches {family(name)!r})" if family(name) != name else ""}. {hint}'
    )


def check_inherited(position: Mapping[str, Any], inherited: Mapping[str, Any]) -> None:
  """Raises ValueError where a position config contradicts the run whose weights it takes."""
  for field, value in inherited.items():
    if field in position and position[field] not in (None, value):
      raise ValueError(
        f'position.{field} is {position[field]}, and the weights were trained with {value}; say '
        'that, or start from another run.'
      )


def check_new(config: Mapping[str, Any], workdir: pathlib.Path) -> None:
  """`check_start`, where the run in `workdir` is to start from another and has not begun."""
  start = config['start']
  if (start['workdir'] or start['pretrained']) and not (workdir / 'run.json').exists():
    check_start(config)


def check_start(config: Mapping[str, Any]) -> None:
  """Whether a resolved config can go on from the run that it names.

  Raises:
    ValueError: that run does not exist, or its weights do not fit; says what differs.
  """
  start = config['start']
  if start['workdir'] and start['pretrained']:
    raise ValueError(
      f'start.workdir is {start["workdir"]} and start.pretrained {start["pretrained"]}; name one.'
    )
  where = paths.place(start['workdir'] or start['pretrained'])
  saved = origin_of(config)
  check_family(config['position']['name'], saved)
  name = config['position']['name']
  own = {k: v for k, v in known(saved, name).items() if k != 'name'}
  own['train_length'] = original_length(saved)
  check_inherited(config['position'], inherit(name, own))
  parts = lambda c: {k: v for k, v in c.items() if k not in UNLIKE and k != 'attention'}
  before, after = (nested.flat(parts(c)) for c in (saved, config))
  if start['pretrained']:  # which decides no more than it says
    after = {field: value for field, value in after.items() if field in before}
  free = ('data.seed', 'data.loader', 'model.remat', 'model.dtype')
  changed = [line for line in nested.difference(before, after) if line.split(':')[0] not in free]
  if changed:
    raise ValueError(
      f'the weights in {where} cannot be continued from, since these differ (saved -> config):\n  '
      + '\n  '.join(changed)
      + '\nOnly scheme, length, steps, seeds, optimizer and evaluation may change.'
    )


def origin_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config of what a config starts from: that of a run, or what a published model decides."""
  from pe_research.huggingface import importing  # slow to import

  start = config['start']
  if start['pretrained']:
    return importing.source(pathlib.Path(start['pretrained']))
  return run_folder.load_config(paths.place(start['workdir']))


def published(config: Mapping[str, Any], parameters: str) -> dict[str, Any]:
  """What a record says of a published model that weights came from, as `source` does of a run."""
  saved = origin_of(config)
  return {
    'run': pathlib.Path(config['start']['pretrained']).name,
    'step': 0,
    'parameters': parameters,
    'scheme': saved['position']['name'],
    'train_length': saved['length'],
    'fingerprint': None,
    'start': None,
  }


def source(workdir: pathlib.Path, step: int, parameters: str) -> dict[str, Any]:
  """What a record says of the checkpoint that weights came from; `parameters` is their digest."""
  record = files.read_json(workdir / 'run.json')
  return {
    'run': workdir.name,
    'step': step,
    'parameters': parameters,
    'scheme': record['scheme'],
    'train_length': record['train_length'],
    'fingerprint': record['fingerprint'],
    'start': record.get('start'),
  }


def derive(
  config: Mapping[str, Any], into: pathlib.Path, origin: pathlib.Path, step: int, parameters: str
) -> None:
  """Makes `into` the directory of a run that was never trained: other rules, the same weights.

  Args:
    config: resolved, that of `origin` but for position and eval.
    into: where its config, record and results are kept.
    origin: the run that the weights are of.
    step: that they were saved after.
    parameters: their digest.

  Raises:
    WorkdirError: `into` belongs to another config, to other weights or to a run of its own.
  """
  saved = files.read_json(into / 'config.json')
  asked = {f: saved['eval'][f] for f in protocols.SELECTION if f in saved['eval']} if saved else {}
  # More may be measured of the same run later; how it is measured stays.
  run_folder.check_config(into, config | {'eval': config['eval'] | asked})
  weights, there = source(origin, step, parameters), files.read_json(into / 'run.json')
  if there is not None and there.get('weights_of') != weights:
    whose = there.get('weights_of') or {'run': 'its own', 'step': there['steps']}
    raise files.WorkdirError(
      f'{into} holds results of the weights of {whose["run"]} (step {whose["step"]}); these are of '
      f'{origin.name} (step {step}). Choose another --into.'
    )
  record = files.read_json(origin / 'run.json')
  trained = {v for k, v in record['conditions'].items() if k.startswith('program.')}
  trained |= set(record.get('programs', {}).values())
  texts = {k: v for k, v in program_store.read(origin).items() if k in trained}
  program_store.add(into, texts)
  scheme = configs.scheme(config)
  files.write_json(into / 'config.json', config)
  files.write_json(
    into / 'run.json',
    record
    | {
      'scheme': config['position']['name'],
      'steps': step,
      'notes': scheme.notes(original_length(config)),
      'weights_of': weights,
      'evaluated_by': provenance.provenance(),
    },
  )
