"""Position fields of a Hugging Face config.json, read into a position config.

Fields mean what they do in transformers 5.23.0, modeling_rope_utils.py, but a field that a
rope_type does not have is an error here. There the temperature of YaRN or LongRoPE multiplies cos
and sin, so it acts on the rotated channels; here it acts on the whole logit, and `slice_factor`
acts on the rotated channels. Both are the same if the whole head rotates.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pe_research.huggingface.family import number
from pe_research.positions import longrope, yarn

ORIGINAL = 'original_max_position_embeddings'
PARTIAL = 'partial_rotary_factor'
TEMPERED = ('attention_factor', 'mscale', 'mscale_all_dim')
ROPE = ('rope_theta', 'rope_scaling', 'rope_parameters', PARTIAL, ORIGINAL)  # at the top level
POSITIONAL = re.compile(
  r'(^|_)rope|rotary|sliding|^layer_types$|alibi|scaling|attn_logit|(^|_)sink'
)
POSITIVE = ('rope_theta', PARTIAL, ORIGINAL, 'factor', 'low_freq_factor', 'high_freq_factor')
# Required and optional fields of each rope_type, besides rope_theta and partial_rotary_factor.
FIELDS = {
  'default': ((), ()),
  'linear': (('factor',), (ORIGINAL,)),  # ORIGINAL is not used
  'dynamic': (('factor',), ()),
  'proportional': ((), ('factor',)),
  'llama3': (('factor', 'low_freq_factor', 'high_freq_factor'), (ORIGINAL,)),
  'yarn': ((), ('factor', ORIGINAL, 'beta_fast', 'beta_slow', 'truncate', 'finetuned', *TEMPERED)),
  'longrope': (('short_factor', 'long_factor'), ('factor', ORIGINAL, 'attention_factor')),
}


def rope_fields(
  config: Mapping[str, Any], theta: str = 'rope_theta', share: str = PARTIAL
) -> dict[str, Any]:
  """The rope parameters of a config.json, of current and older releases of transformers.

  Args:
    config: config.json.
    theta: top-level field for the base, in older releases.
    share: top-level field for partial_rotary_factor, in older releases.

  Raises:
    ValueError: two fields give two rules, which releases read differently; names both.
  """
  older, found = (_rule(config, name) for name in ('rope_scaling', 'rope_parameters'))
  names = {'rope_theta': theta, PARTIAL: share, ORIGINAL: ORIGINAL}
  outside = {
    field: number(name, config[name])
    for field, name in names.items()
    if config.get(name) is not None
  }
  rule = 'rope_parameters' if found else 'rope_scaling'
  if older and found:  # both releases read the first, and the base beside it
    beside = outside.keys() & found.keys() & {'rope_theta'}
    given = {field: outside[field] for field in beside}
    given |= {PARTIAL: found[PARTIAL]} if PARTIAL in found else {}
    older = given | older
    for field in dict.fromkeys((*found, *older)):
      both = f'rope_parameters.{field}', f'rope_scaling.{field}'
      _agree(found.get(field, 'absent'), older.get(field, 'absent'), *both)
  found = found or older
  for field, value in outside.items():
    if field != ORIGINAL or _has_original(found):
      _agree(found.setdefault(field, value), value, f'{rule}.{field}', names[field])
  if 'truncate' in found:
    found['truncate'] = bool(found['truncate'])  # null means false; in other fields, the default
  if not isinstance(found.get(ORIGINAL, 1), int):
    raise ValueError(f'{ORIGINAL} is {found[ORIGINAL]}; it must be a whole number of tokens.')
  plain = {'rope_type': 'default', 'rope_theta': 10_000.0}
  return plain | {field: value for field, value in found.items() if value is not None}


def _has_original(found: Mapping[str, Any]) -> bool:
  return ORIGINAL in FIELDS.get(str(found.get('rope_type')), ((), ()))[1]


def _rule(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  """The object rope_scaling or rope_parameters, its numbers as numbers."""
  given = config.get(name) or {}
  if not isinstance(given, dict):
    raise ValueError(f'{name} is {given!r}; it must be an object or null.')
  kinds = [field for field, value in given.items() if isinstance(value, dict)]
  if kinds:
    raise ValueError(
      f'{name} is given per layer type ({", ".join(kinds)}); only one rule for all layers is read.'
    )
  found = {field: _value(f'{name}.{field}', value) for field, value in given.items()}
  kind = found.pop('type', None)
  if kind is not None:
    _agree(found.setdefault('rope_type', kind), kind, f'{name}.rope_type', f'{name}.type')
  return found


def _value(name: str, value: Any) -> Any:
  if isinstance(value, list) and name.endswith(('short_factor', 'long_factor')):
    return [number(name, part) for part in value]
  if value is None or isinstance(value, bool) or name.endswith('type'):
    return value
  return number(name, value)


def _agree(one: Any, other: Any, name: str, other_name: str) -> None:
  if one != other:
    raise ValueError(
      f'{name} is {one!r} and {other_name} is {other!r}; which of them counts differs between '
      'releases of transformers. Keep one.'
    )


def unknown(
  config: Mapping[str, Any], known: Collection[str], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  """Fields of a config.json that are about positions, are not `known`, and say something.

  Objects inside of it are searched too, but for the rules of RoPE, which are read whole. None,
  False and layers that all have full attention say nothing.
  """
  for field, value in config.items():
    name, said = prefix + field, value
    if name in known:
      continue
    if field == 'layer_types' and isinstance(value, list):
      said = any(one != 'full_attention' for one in value)
    if POSITIONAL.search(field) and said not in (None, False, [], {}, ''):
      yield name, value
    elif isinstance(value, dict):
      yield from unknown(value, known, f'{name}.')


def served(position: Mapping[str, Any], most: int) -> int:
  """Tokens that a model supports: `most`, or fewer if its scheme extends less far."""
  if position['name'] not in ('pi', 'yarn', 'longrope') or 'factor' not in position:
    return most
  return min(most, round(position['factor'] * position['train_length']))


def read_rope(
  fields: Mapping[str, Any],
  *,
  most: int,
  layout: str = 'half',
  partial: bool = True,
  sliced: bool = False,
) -> dict[str, Any]:
  """The position config, with the arguments that the fields decide.

  Args:
    fields: as from `rope_fields`.
    most: max_position_embeddings, tokens.
    layout: of the pairs, as in RoPE.
    partial: whether the class supports partial_rotary_factor with every rope_type.
    sliced: whether the rotated channels are a slice beside the head (DeepSeek).

  Raises:
    ValueError: an unknown type, unknown or missing fields; lists all of them.
  """
  given = dict(fields)
  rope_type, base = given.pop('rope_type'), float(given.pop('rope_theta'))
  fraction, problems = given.pop(PARTIAL, 1.0), []
  if not partial and rope_type != 'proportional' and fraction != 1:
    problems.append(f"{PARTIAL} is {fraction}; this class supports it with 'proportional' only")
  if rope_type not in FIELDS:
    problems.append(f'rope_type {rope_type!r} is unknown; supported: {", ".join(FIELDS)}')
  else:
    required, optional = FIELDS[rope_type]
    if missing := [name for name in required if name not in given]:
      problems.append(f'rope_type {rope_type!r} needs {", ".join(missing)}')
    if others := [name for name in given if name not in required + optional]:
      problems.append(
        f'rope_type {rope_type!r} has no {", ".join(others)}; supported: '
        f'{", ".join(required + optional) or "no fields"}'
      )
  problems += [
    f'{name} is {value}; it must be above 0'
    for name, value in fields.items()
    if name in POSITIVE and value <= 0
  ]
  if problems:
    raise ValueError(f'{"; ".join(problems)}. Change config.json.')
  position = {'base': base, 'layout': layout, 'fraction': fraction}
  return position | _read(rope_type, given, most, sliced or fraction < 1, sliced)


def _read(rope_type: str, given, most: int, parted: bool, sliced: bool) -> dict[str, Any]:
  """Name and arguments of the scheme of a rope_type; `parted`: not the whole head rotates."""
  original = given.get(ORIGINAL, most)
  if rope_type == 'default':
    return {'name': 'rope'}
  if rope_type == 'linear':
    trained = max(1, math.ceil(most / given['factor']))
    return {'name': 'pi', 'factor': float(given['factor']), 'train_length': trained}
  if rope_type == 'dynamic':
    return {'name': 'dynamic_ntk', 'factor': float(given['factor']), 'train_length': most}
  if rope_type == 'proportional':
    stretch = {'name': 'rope'}
    if given.get('factor', 1) != 1:
      stretch = _read('linear', given, most, parted, sliced)
    return stretch | {'partial': 'frequencies'}
  if rope_type == 'llama3':
    bounds = {name: float(given[name]) for name in ('low_freq_factor', 'high_freq_factor')}
    return {'name': 'llama3', 'factor': float(given['factor']), 'train_length': original} | bounds
  if rope_type == 'yarn':
    return _read_yarn(given, most, parted, sliced)
  factors = {name: tuple(map(float, given[name])) for name in ('short_factor', 'long_factor')}
  reach = {'factor': float(given['factor'])} if 'factor' in given else {'target_length': most}
  own = {'name': 'longrope', 'train_length': original} | factors | reach
  turned = given.get('attention_factor')
  if not parted:
    return own | {'temperature': 'su', 'attention_factor': turned and float(turned)}
  if turned is None:
    stretch = given.get('factor', most / original)
    turned = longrope.temperature_of('su', max(stretch, 1.0), original)
  return own | {'temperature': 'none', 'slice_factor': float(turned)}


def _read_yarn(given, most: int, parted: bool, sliced: bool) -> dict[str, Any]:
  original = given.get(ORIGINAL, most)
  factor = float(given.get('factor', most / original))
  own = {
    'name': 'yarn',
    'factor': factor,
    'train_length': original,
    'ramp': 'pairs' if given.get('truncate', True) else 'unrounded',
    'beta_fast': float(given.get('beta_fast') or 32),
    'beta_slow': float(given.get('beta_slow') or 1),
  }
  weights = {n: float(given[n]) for n in ('mscale', 'mscale_all_dim') if given.get(n)}
  turned = given.get('attention_factor')
  if turned is None and (not parted or (sliced and len(weights) == 2)):
    return own | weights
  if turned is None:
    turned = yarn.mscale(factor)
    if len(weights) == 2:
      turned = yarn.mscale(factor, weights['mscale'])
      turned /= yarn.mscale(factor, weights['mscale_all_dim'])
  if not parted:
    return own | {'attention_factor': float(turned)}
  whole = yarn.mscale(factor, weights.get('mscale_all_dim', 0.0)) if sliced else 1.0
  return own | {'attention_factor': float(whole), 'slice_factor': float(turned)}


def read_learned(rows: int) -> dict[str, Any]:
  """The position config of a learned table that is added without a scale."""
  return {'name': 'learned', 'max_length': rows, 'scaled': False}


def read_alibi(max_bias: float = 8.0) -> dict[str, Any]:
  """The position config of ALiBi on all heads."""
  return {'name': 'alibi', 'max_bias': float(max_bias)}
