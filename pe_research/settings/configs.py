"""Configs: arguments of config files, derived values, checks."""

import dataclasses
import json
import math
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from flax import nnx
from ml_collections import config_dict

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.common import nested
from pe_research.common.checks import at_least, at_most, choose, finite, nearest
from pe_research.model.decoder_config import DecoderConfig
from pe_research.settings import protocols

CHOICES = {
  'data.tokenizer': ('bytes', 'sentencepiece', 'json'),
  'data.loader': ('memory', 'grain'),
  'optimizer.schedule': ('cosine', 'wsd', 'constant'),
  'matmul_precision': ('default', 'high', 'highest'),
}
LEAST = {  # smallest values, and their units
  'length': (1, 'tokens'),
  'seed': (0, ''),
  'start.step': (0, ''),
  'data.needle_keys': (1, ''),
  'data.limit': (1, 'tokens'),
  'run.patience': (0, 'seconds'),
  'run.save_every': (1, ''),
  'run.log_every': (1, ''),
  'run.keep': (1, ''),
  'optimizer.batch': (1, ''),
  'optimizer.accumulate': (1, ''),
  'optimizer.learning_rate': (0, ''),
  'optimizer.warmup': (0, ''),
  'optimizer.clip': (0, ''),
  'optimizer.weight_decay': (0, ''),
  'optimizer.eps': (0, ''),
}
LONGEST = 2**31 - 1  # positions and steps are int32
LARGEST = {  # whole numbers; others at most LONGEST
  'seed': 2**32 - 1,  # JAX takes 32 bits: the next one gives the numbers of 0
  'data.seed': 2**32 - 1,
  'optimizer.batch': 2**24,
  'data.task_size': 2**20,
  'eval.windows': 2**24,
}
OPTIONAL_FIELDS = ('start.step', 'data.limit')
SHARES = {'optimizer.final': 'the peak', 'optimizer.decay': 'steps', 'data.needles': 'windows'}


def parse_arg(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
  """Reads 'position=alibi,length=128' over typed defaults, as get_config(arg) receives it."""
  parsed = dict(defaults)
  for item in (arg or '').split(','):
    if not item:
      continue
    name, equals, text = item.partition('=')
    if name not in defaults or not equals:
      raise ValueError(
        f'config argument {item!r} is not understood.{nearest(name, defaults)} '
        f'Write name=value with one of the names {", ".join(defaults)}.'
      )
    try:
      parsed[name] = type(defaults[name])(text)
    except ValueError as error:
      raise ValueError(
        f'config argument {name}={text!r} is not {type(defaults[name]).__name__}.'
      ) from error
  return ml_collections.ConfigDict(parsed)


PRESETS = ('published', 'matched')
OPTIONAL = {
  int | None: int,
  float | None: float,
  str | None: str,
  Sequence[float] | None: tuple,
}


def position(name: str, length: int, preset: str = 'published') -> ml_collections.ConfigDict:
  """Every argument of the scheme called `name`, as a config that takes typed overrides.

  The preset 'published' has the defaults; 'matched' replaces those that make no sense for a
  training length of `length` tokens.
  """
  choose('preset', preset, PRESETS)
  matched = positions.scheme(name).matched(length) if preset == 'matched' else {}
  config = ml_collections.ConfigDict({'name': name})
  for field, parameter in positions.arguments(name).items():
    kind = OPTIONAL.get(parameter.annotation)
    value = matched.get(field, parameter.default)
    config[field] = config_dict.placeholder(kind) if kind else value
    if value is not None:
      config[field] = value
  return config


def set_field(config: ml_collections.ConfigDict, field: str, text: str, where: str) -> None:
  """Sets a field from text, by the field's type; errors say `where` the text was given."""
  if field not in config:
    raise ValueError(
      f'{where} is unknown.{nearest(field, config)} Choose one of {", ".join(config)}.'
    )
  kind = config.get_type(field)
  try:
    if kind is bool:
      config[field] = {'true': True, 'false': False}[text.lower()]
    elif kind is tuple:
      config[field] = tuple(float(part) for part in text.strip('()[]').split(';'))
    else:
      config[field] = kind(text)
  except (KeyError, ValueError) as error:
    wanted = 'a;b;... of numbers' if kind is tuple else kind.__name__
    raise ValueError(f'{where}={text} is not {wanted}.') from error


def dims(config: Mapping[str, Any]) -> positions.Dims:
  """The sizes that the scheme of a config is built for."""
  encodes = positions.scheme(config['position']['name']).encodes()
  return positions.Dims.of(config['model'], config['length'], encodes)


def scheme(config: Mapping[str, Any]) -> positions.PositionScheme:
  """The scheme of a resolved config, with its parameters as shapes only."""
  return nnx.eval_shape(lambda: positions.build(config['position'], dims(config), nnx.Rngs(0)))


def without_scheme(config: Mapping[str, Any]) -> dict[str, Any]:
  """The same config without a positional scheme."""
  return dict(config) | {'position': positions.defaults(positions.NONE)}


def resolve_position(config: Mapping[str, Any]) -> dict[str, Any]:
  """The position of a config with all its arguments filled in, ready for JSON."""
  resolved = positions.resolve(config['position'], dims(config))
  return json.loads(json.dumps({field: resolved[field] for field in config['position']}))


def resolve(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
  """Fills in derived values and checks everything, before anything long begins.

  Returns:
    A plain nested dict, ready for JSON, in which every value is the one that will be used.

  Raises:
    ValueError: names the field, its value, the limit and the fix.
  """
  plain = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else config
  try:
    return _resolve(json.loads(json.dumps(plain)))
  except KeyError as error:
    raise ValueError(
      f'the config has no field {error}; configs/lm.py has it. Give it there, or train again.'
    ) from error


def _resolve(config: dict[str, Any]) -> dict[str, Any]:
  model, optimizer, data, evaluation = (config[k] for k in ('model', 'optimizer', 'data', 'eval'))
  _check_values(nested.flat(config))
  at_least('steps', config['steps'], 0 if config['start']['pretrained'] else 1)
  _resolve_model(model, data)
  config['position'] = resolve_position(config)
  scheme(config).check_length(config['length'])
  Spec(**config['attention'])
  _check_optimizer(optimizer, config['steps'])
  data['seed'] = config['seed'] if data['seed'] is None else data['seed']
  _check_data(data)
  protocols.check(evaluation, config)
  for axis, size in config['run']['mesh'].items():
    if size != -1:
      at_least(f'run.mesh.{axis}', size, 1, 'devices')
  return config


def _check_values(fields: Mapping[str, Any]) -> None:
  """Checks fields, by dotted name, that do not depend on others."""
  for field, choices in CHOICES.items():
    choose(field, fields[field], choices)
  for field, (least, unit) in LEAST.items():
    if fields[field] is not None or field not in OPTIONAL_FIELDS:
      at_least(field, fields[field], least, unit)
  for field, value in fields.items():
    for one in value if isinstance(value, list | tuple) else (value,):
      if isinstance(one, float):
        finite(field, one)
      elif isinstance(one, int):
        most = LARGEST.get(field, LONGEST)
        at_most(field, one, most)
        at_least(field, one, -most)
  for field, whole in SHARES.items():
    if not 0 <= fields[field] <= 1:
      raise ValueError(f'{field} is {fields[field]}; it is a share of {whole}, 0 to 1.')
  for field in ('optimizer.b1', 'optimizer.b2'):
    if not 0 <= fields[field] < 1:
      raise ValueError(f'{field} is {fields[field]}; it must be in [0, 1).')


def _resolve_model(model: dict[str, Any], data: dict[str, Any]) -> None:
  fields = {field.name for field in dataclasses.fields(DecoderConfig)} - {'vocab'}
  if absent := sorted(fields - model.keys()):
    raise ValueError(
      f'the config has no model.{", model.".join(absent)}; configs/lm.py has it. Give it there, or '
      'train again.'
    )
  at_least('model.width', model['width'], 1)
  at_least('model.heads', model['heads'], 1)
  if model['head_dim'] is None:
    if model['width'] % model['heads']:
      raise ValueError(
        f'model.width ({model["width"]}) is not a multiple of model.heads ({model["heads"]}); '
        'change one of them, or set model.head_dim.'
      )
    model['head_dim'] = model['width'] // model['heads']
  if model['projection'] is None:
    grouped = model['kv_heads'] not in (None, model['heads'])
    model['projection'] = ('mqa' if model['kv_heads'] == 1 else 'gqa') if grouped else 'mha'
  if model['projection'] == 'mla':
    sizes = {'latent': 4 * model['head_dim'], 'query_latent': 0, 'value_dim': model['head_dim']}
    sizes['rotary_dim'] = 2 * max(1, model['head_dim'] // 4)
    model |= {field: size for field, size in sizes.items() if model[field] is None}
  if model['kv_heads'] is None:
    if model['projection'] == 'gqa':
      raise ValueError("model.projection 'gqa' needs model.kv_heads, a divisor of model.heads.")
    model['kv_heads'] = 1 if model['projection'] == 'mqa' else model['heads']
  if model['mlp_width'] is None:
    share = 8 / 3 if model['mlp'] == 'swiglu' else 4  # equal parameters, gated or not
    model['mlp_width'] = 8 * math.ceil(model['width'] * share / 8)
  if data['tokenizer'] == 'bytes':
    data['vocab'] = 256
  at_least('data.vocab', data['vocab'], 2, 'tokens')
  DecoderConfig(vocab=data['vocab'], **model)


def _check_optimizer(optimizer: Mapping[str, Any], steps: int) -> None:
  if optimizer['batch'] % optimizer['accumulate']:
    raise ValueError(
      f'optimizer.batch ({optimizer["batch"]}) is not a multiple of optimizer.accumulate '
      f'({optimizer["accumulate"]}).'
    )
  if steps and optimizer['warmup'] >= steps:
    raise ValueError(
      f'optimizer.warmup is {optimizer["warmup"]} steps of {steps}; it must be fewer than all.'
    )


def _check_data(data: Mapping[str, Any]) -> None:
  if data['limit'] is not None and data['loader'] == 'grain':
    raise ValueError(
      "data.limit counts tokens in memory; with data.loader='grain' take a slice of the set, "
      "data.train_split='train[:1%]'."
    )
  if data['needles'] and data['packing']:
    raise ValueError('data.needles and data.packing do not go together; a needle is in one text.')
  if data['tokenizer'] == 'json' and not pathlib.Path(data['tokenizer_file']).is_file():
    raise ValueError(
      f"data.tokenizer_file is {data['tokenizer_file']!r}, and data.tokenizer is 'json'; name a "
      'tokenizer.json.'
    )
  if not data['validation_split'] and not 0 < data['validation_fraction'] < 1:
    raise ValueError(
      f'data.validation_fraction is {data["validation_fraction"]}; it must be between 0 and 1.'
    )
  if data['loader'] == 'grain' and not data['validation_split']:
    raise ValueError(
      "data.loader is 'grain', which does not read every document to split by content; name the "
      "held-out part in data.validation_split, for example 'validation' or 'train[99%:]'."
    )


def anywhere(
  config: Mapping[str, Any], mesh: Mapping[str, int] = types.MappingProxyType({})
) -> dict[str, Any]:
  """The config of a saved run, for the devices here: `mesh`, or all of them along 'data'.

  Runs whose record has no run.patience are never ended.
  """
  mesh = {axis: 1 for axis in config['run']['mesh']} | {'data': -1} | dict(mesh)
  return dict(config) | {'run': {'patience': 0.0} | config['run'] | {'mesh': mesh}}
