"""Position fields of a Hugging Face config.json, written for a scheme.

The inverse of positions_read, for transformers 4.57 and 5.23; a scheme that no class there computes
is refused.
"""

import math
from collections.abc import Mapping
from typing import Any

from pe_research.huggingface.positions_read import ORIGINAL, PARTIAL
from pe_research.positions import interpolation, random_positions, rotary, yarn
from pe_research.positions.alibi import ALiBi
from pe_research.positions.base import PositionScheme
from pe_research.positions.by_parts import Llama3, NTKByParts
from pe_research.positions.learned import Learned
from pe_research.positions.longrope import LongRoPE

MAX_BIAS = 8  # of ALiBi in transformers


class NotExportable(ValueError):
  """No Hugging Face class computes what the scheme does."""

  def __init__(self, reason: str):
    super().__init__(f'not exportable, because {reason}.')
    self.reason = reason


def kind(scheme: PositionScheme) -> str:
  """Kind of a scheme: 'rotation', 'distance' or 'table'; NotExportable for any other."""
  for name, cls in (('rotation', rotary.RoPE), ('distance', ALiBi), ('table', Learned)):
    if isinstance(scheme, cls):
      return name
  raise NotExportable(f'no Hugging Face decoder has {scheme.label!r}')


def write_rope(
  scheme: PositionScheme,
  *,
  width: int,
  length: int,
  layouts: tuple[str, ...],
  partial: bool,
  sliced: bool = False,
  older: tuple[str, str] = ('rope_theta', PARTIAL),
) -> dict[str, Any]:
  """The fields for transformers 5, rope_parameters, and those for transformers 4 beside it.

  Transformers 4 does not know rope_parameters. Without its own fields it takes base 10,000 and no
  stretch, and says nothing.

  Args:
    scheme: of the model.
    width: R, channels of a head that the scheme receives.
    length: training length of the model, tokens.
    layouts: supported by the class.
    partial: whether the class supports partial_rotary_factor.
    sliced: whether the rotated channels are a slice beside the head (DeepSeek).
    older: fields of transformers 4 for the base and for partial_rotary_factor.

  Raises:
    NotExportable: names what the class does not support.
  """
  if scheme.layout not in layouts:
    raise NotExportable(
      f'position.layout is {scheme.layout!r}, supported: {" or ".join(map(repr, layouts))}'
    )
  write = WRITERS.get(type(scheme))
  if write is None:
    raise NotExportable(f'no rope_type computes {scheme.label!r}')
  fields, most = write(scheme, length)
  left_out = 'width' if scheme.rotated < width else 'frequencies'
  share = scheme.rotated if left_out == 'width' else 2 * scheme.moving
  if left_out == 'width' and share < width and not partial:
    raise NotExportable(f'{share} of {width} channels of a head rotate, supported: all')
  if left_out == 'frequencies' and share < width:
    if fields['rope_type'] not in ('default', 'linear'):
      raise NotExportable(f'no rope_type computes {scheme.label!r} with pairs that do not rotate')
    fields['rope_type'] = 'proportional'
  if partial or share < width:
    fields[PARTIAL] = share / width
  fields |= _temperature(scheme, fields, sliced, share < width)
  found = {'max_position_embeddings': most, 'rope_parameters': fields}
  return found | _in_version_4(fields, most, *older)


def _in_version_4(fields: Mapping[str, Any], most: int, base: str, share: str) -> dict[str, Any]:
  """The same rule as transformers 4 reads it."""
  found = {base: fields['rope_theta']} | ({share: fields[PARTIAL]} if PARTIAL in fields else {})
  if fields['rope_type'] == 'default':
    return found
  scaling = {name: value for name, value in fields.items() if name not in ('rope_theta', PARTIAL)}
  if fields['rope_type'] == 'yarn' and most != fields['factor'] * fields[ORIGINAL]:
    raise NotExportable(
      f'transformers 4 computes the factor of yarn as max_position_embeddings over {ORIGINAL}, '
      f'{most} / {fields[ORIGINAL]}, which is not {fields["factor"]:g}; choose position.factor '
      'and position.train_length whose product is a whole number, not below length'
    )
  if fields['rope_type'] == 'longrope':
    found[ORIGINAL] = fields[ORIGINAL]  # the length from which the long factors count
  return found | {'rope_scaling': scaling}


def _default(scheme: rotary.RoPE, length: int, base: float | None = None):
  base = float(scheme.base if base is None else base)
  return {'rope_type': 'default', 'rope_theta': base}, length


def _abf(scheme: interpolation.ABF, length: int):
  return _default(scheme, length, scheme.new_base)


def _ntk(scheme: interpolation.NTK, length: int):
  base = interpolation.widened(scheme.base, scheme.factor, scheme.rotated)  # nothing else changes
  return _default(scheme, max(length, scheme.target_length), base)


def _stretched(rope_type: str, *names: str):
  """A writer of factor, train_length, and the fields `names`, which are named alike here."""

  def write(scheme: interpolation.Stretched, length: int):
    fields, most = _default(scheme, max(length, scheme.target_length))
    fields |= {'rope_type': rope_type, 'factor': scheme.factor}
    if rope_type != 'linear':
      fields[ORIGINAL] = scheme.train_length
    return fields | {name: getattr(scheme, name) for name in names}, most

  return write


def _dynamic(scheme: interpolation.DynamicNTK, length: int):
  fields, _ = _default(scheme, length)
  return fields | {'rope_type': 'dynamic', 'factor': float(scheme.factor)}, scheme.train_length


def _by_parts(scheme: NTKByParts, length: int):
  if scheme.ramp == 'rotations':
    raise NotExportable("rope_type 'yarn' has no ramp by rotations (position.ramp), only by pairs")
  fields, most = _stretched('yarn', 'beta_fast', 'beta_slow')(scheme, length)
  return fields | {'truncate': scheme.ramp == 'pairs'}, most


def _longrope(scheme: LongRoPE, length: int):
  if scheme.start_tokens or (scheme.depends_on_length and scheme.short_start_tokens):
    raise NotExportable("rope_type 'longrope' has no start_tokens; set position.start_tokens to 0")
  if scheme.depends_on_length and scheme.switch_length != scheme.train_length:
    raise NotExportable(
      f'position.switch_length is {scheme.switch_length}; the long factors of rope_type '
      f"'longrope' begin after the training length, {scheme.train_length}"
    )
  fields, most = _stretched('longrope')(scheme, length)
  short = scheme.short_factor or scheme.long_factor
  return fields | {'short_factor': list(short), 'long_factor': list(scheme.long_factor)}, most


WRITERS = {
  rotary.RoPE: _default,
  rotary.PRoPE: _default,
  random_positions.Randomized: _default,  # draws positions in training only, as do the next two
  random_positions.PoSE: _stretched('linear'),
  random_positions.RandPos: _stretched('linear'),
  interpolation.ABF: _abf,
  interpolation.NTK: _ntk,
  interpolation.PI: _stretched('linear'),
  interpolation.DynamicNTK: _dynamic,
  Llama3: _stretched('llama3', 'low_freq_factor', 'high_freq_factor'),
  NTKByParts: _by_parts,
  yarn.YaRN: _by_parts,
  LongRoPE: _longrope,
}


def _temperature(scheme, fields, sliced: bool, partial: bool) -> dict[str, float]:
  """Fields for the factor of cos and sin, and in DeepSeek also for that of the whole logit."""
  if fields['rope_type'] not in ('yarn', 'longrope'):
    return {}
  whole = math.sqrt(scheme.logit_scale(None, scheme.train_length))
  turned = scheme.slice_factor
  if sliced and fields['rope_type'] == 'yarn':
    if scheme.factor == 1:
      if whole != 1:
        raise NotExportable(
          f'the logits are multiplied by {whole**2:g}; with DeepSeek it must be 1 at factor 1'
        )
      return {'attention_factor': turned}
    own = {n: getattr(scheme, n, None) for n in ('mscale', 'mscale_all_dim')}
    if all(own.values()) and turned == scheme.ratio(scheme.factor):
      return own
    weight = (whole - 1) / (0.1 * math.log(scheme.factor))
    if weight < 0:
      raise NotExportable(
        f'the logits are multiplied by {whole**2:g}; with DeepSeek it must be at least 1'
      )
    return {'mscale_all_dim': weight, 'attention_factor': turned}
  if (sliced or partial) and whole != 1:
    raise NotExportable(
      f'{scheme.label!r} multiplies whole logits by {whole**2:g}; in transformers a temperature '
      'acts on the rotated channels only'
    )
  return {'attention_factor': whole * turned}


def table_scales(scheme: PositionScheme) -> dict[str, float]:
  """Parameter name -> the factor that the scheme applies to it in the forward pass."""
  return {'table': scheme.scale} if isinstance(scheme, Learned) else {}


def check_alibi(scheme: ALiBi, heads: int) -> None:
  """Raises NotExportable unless all heads have the bias that transformers computes."""
  if scheme.biased_heads != heads:
    raise NotExportable(
      f'{scheme.biased_heads} of {heads} heads have a bias (position.biased_heads), supported: all'
    )
  if scheme.max_bias != MAX_BIAS:
    raise NotExportable(f'position.max_bias is {scheme.max_bias:g}, supported: {MAX_BIAS}')
