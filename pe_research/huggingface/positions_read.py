"""Position as the config.json of a Hugging Face model says it, read into a position config.

The meaning of every field is that of transformers 5.23.0, modeling_rope_utils.py, which refuses
less: a field that a rope_type does not have is an error here. There a YaRN or LongRoPE temperature
multiplies cos and sin, so that it acts on what rotates; here it acts on the whole logit, and
`slice_factor` on what rotates. Both are the same where a whole head rotates.
"""

import math
from collections.abc import Mapping
from typing import Any

from pe_research.positions import longrope, yarn

ORIGINAL = 'original_max_position_embeddings'
PARTIAL = 'partial_rotary_factor'
TEMPERED = ('attention_factor', 'mscale', 'mscale_all_dim')
FIELDS = {  # of each rope_type, beside rope_theta and partial_rotary_factor
  'default': (),
  'linear': ('factor', ORIGINAL),  # which it does not read
  'dynamic': ('factor',),
  'proportional': ('factor',),
  'llama3': ('factor', ORIGINAL, 'low_freq_factor', 'high_freq_factor'),
  'yarn': ('factor', ORIGINAL, 'beta_fast', 'beta_slow', 'truncate', 'finetuned', *TEMPERED),
  'longrope': ('factor', ORIGINAL, 'short_factor', 'long_factor', 'attention_factor'),
}


def rope_fields(
  config: Mapping[str, Any], theta: str = 'rope_theta', share: str = PARTIAL
) -> dict[str, Any]:
  """The rope parameters of a config.json, wherever releases of transformers have kept them.

  Args:
    config: of the model.
    theta: name of the base in a config that has it beside them, as older releases do.
    share: the same of partial_rotary_factor.
  """
  found = dict(config.get('rope_scaling') or config.get('rope_parameters') or {})
  found['rope_type'] = found.get('rope_type', found.pop('type', 'default'))
  found.pop('type', None)  # some have both
  for field, name in (('rope_theta', theta), (PARTIAL, share)):
    if config.get(name) is not None:
      found.setdefault(field, config[name])
  found.setdefault('rope_theta', 10_000.0)
  if config.get(ORIGINAL) is not None and ORIGINAL in FIELDS.get(str(found['rope_type']), ()):
    found[ORIGINAL] = config[ORIGINAL]
  if 'truncate' in found:
    found['truncate'] = bool(found['truncate'])  # its null means false; others, the default
  return {field: value for field, value in found.items() if value is not None}


def check_whole(fields: Mapping[str, Any], architecture: str) -> None:
  """Raises ValueError for a class that turns whole heads, where a part is asked for."""
  if fields['rope_type'] != 'proportional' and fields.get(PARTIAL, 1) != 1:
    raise ValueError(
      f'{PARTIAL} is {fields[PARTIAL]}; {architecture} has it with rope_type proportional alone. '
      'Take it out of config.json.'
    )


def served(position: Mapping[str, Any], most: int) -> int:
  """Tokens that a model is for: `most`, or fewer where its scheme stretches less far."""
  if position['name'] not in ('pi', 'yarn', 'longrope') or 'factor' not in position:
    return most
  return min(most, round(position['factor'] * position['train_length']))


def read_rope(
  fields: Mapping[str, Any], *, most: int, layout: str = 'half', sliced: bool = False
) -> dict[str, Any]:
  """The position config of rope parameters.

  Args:
    fields: from `rope_fields`.
    most: max_position_embeddings, tokens.
    layout: of the pairs, as in RoPE.
    sliced: whether what rotates is a slice beside the rest of the head (DeepSeek).

  Raises:
    ValueError: an unknown type, an unknown or a missing field.
  """
  given = dict(fields)
  rope_type, base = given.pop('rope_type'), float(given.pop('rope_theta'))
  fraction = given.pop(PARTIAL, 1.0)
  if rope_type not in FIELDS:
    raise ValueError(
      f'rope_type {rope_type!r} is unknown; there are {", ".join(FIELDS)}. Change config.json.'
    )
  if unknown := [name for name in given if name not in FIELDS[rope_type]]:
    raise ValueError(
      f'rope_type {rope_type!r} has no {", ".join(unknown)}; it has '
      f'{", ".join(FIELDS[rope_type]) or "no fields of its own"}. Change config.json.'
    )
  position = {'base': base, 'layout': layout, 'fraction': fraction}
  try:
    return position | _read(rope_type, given, most, sliced or fraction < 1, sliced)
  except KeyError as error:
    raise ValueError(f'rope_type {rope_type!r} has no {error}, which it needs.') from error


def _read(rope_type: str, given, most: int, parted: bool, sliced: bool) -> dict[str, Any]:
  """The scheme of a rope_type and its own arguments."""
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
    own = {'factor': float(given['factor']), 'train_length': original}
    return {'name': 'llama3'} | own | bounds
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
  """The position config of a table that is added as it is."""
  return {'name': 'learned', 'max_length': rows, 'scaled': False}


def read_alibi(max_bias: float = 8.0) -> dict[str, Any]:
  """The position config of ALiBi on all heads."""
  return {'name': 'alibi', 'max_bias': float(max_bias)}
