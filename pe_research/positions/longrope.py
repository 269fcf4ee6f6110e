"""LongRoPE: a factor for each pair, unchanged first tokens, and other factors for short texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.common import checks
from pe_research.positions import base as base_lib
from pe_research.positions import facts, fixed_point, interpolation, longrope_file, rotary, yarn

NAME = 'longrope'  # of LongRoPE in the registry, for the search for its factors
TEMPERATURES = ('none', 'su', 'yarn')


def temperature_of(policy: str, factor: float, train_length: int) -> float:
  """The multiplier of queries and keys under a policy of TEMPERATURES, for s = factor."""
  if policy == 'none' or factor == 1:
    return 1.0
  if policy == 'yarn':
    return float(yarn.mscale(factor))
  return math.sqrt(1 + math.log(factor) / math.log(train_length))


class LongRoPE(interpolation.Stretched):
  """Pair i rotates by n theta_i / lambda_i at position n, by n theta_i at the first n-hat of them.

  If factors for short texts are given, documents of at most `switch_length` tokens use them and
  all others the long factors: all positions of a document change at once. Without them every
  length uses the long factors, as in the paper before its search for short contexts (sec. 3.3).

  Paper and code: they differ in the temperature, and transformers' remark that the paper recommends
  'su' is wrong. transformers and Phi-3 have no n-hat, and the authors' released search never looks
  for one. `temperature` is one of
    none: the paper, which has no temperature.
    su: the authors' code and transformers; queries and keys times sqrt(1 + ln s / ln L), at every
      length.
    yarn: an option of the authors' code, 0.1 ln s + 1.
  """

  label = 'LongRoPE'
  paper = 'arXiv:2402.13753, eq. 3'
  formula = 'θᵢ / λᵢ from position n̂ on, θᵢ before'

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    file: str = '',
    lineage: str = '',
    long_factor: Sequence[float] | None = None,
    start_tokens: int | None = None,
    short_factor: Sequence[float] | None = None,
    short_start_tokens: int | None = None,
    switch_length: int | None = None,
    temperature: str | None = None,
    attention_factor: float | None = None,
    slice_factor: float = 1.0,
    factor: float | None = None,
    target_length: int | None = None,
    train_length: int | None = None,
    **rope,
  ):
    """Takes the factors; `resolve` reads them from the file of a search, if one is named.

    Args:
      dims: sizes of the model.
      file: path of such a file; its contents replace the other arguments, and `file` becomes ''.
      lineage: name and hash of the file that the factors came from, a record only.
      long_factor: lambda of each rotated pair, fastest first, or one for all; must not decrease.
      start_tokens: n-hat, the first positions, whose angles stay; None means 0.
      short_factor: as `long_factor`, for short documents; None: `long_factor` is for all.
      short_start_tokens: as `start_tokens`, for short documents; None means 0.
      switch_length: tokens up to which a document is short; None means `train_length`.
      temperature: 'none', 'su' or 'yarn', see the class; None: that of the file, or else 'none'.
      attention_factor: multiplies queries and keys; None computes it by `temperature`.
      slice_factor: multiplies only the rotated channels of queries and keys.
      factor: s, as in Stretched, which the temperature depends on.
      target_length: tokens, s L, as in Stretched.
      train_length: tokens, L, as in Stretched.
      **rope: as in RoPE.
    """
    super().__init__(
      dims, factor=factor, target_length=target_length, train_length=train_length, **rope
    )
    if file:
      raise ValueError(
        f'position.file {file} is not read here; build schemes by positions.build, which reads it.'
      )
    pairs = self.rotated // 2
    self.file, self.lineage = file, lineage
    self.long_factor = longrope_file.check(
      'long_factor', base_lib.resolved('long_factor', long_factor), pairs
    )
    self.short_factor = short_factor
    if short_factor is not None:
      self.short_factor = longrope_file.check('short_factor', short_factor, pairs)
    self.start_tokens = base_lib.resolved('start_tokens', start_tokens)
    self.short_start_tokens = base_lib.resolved('short_start_tokens', short_start_tokens)
    self.switch_length = base_lib.resolved('switch_length', switch_length)
    for name in ('start_tokens', 'short_start_tokens', 'switch_length'):
      tokens = getattr(self, name)
      if tokens < 0 or tokens != int(tokens):
        raise ValueError(
          f'position.{name} is {tokens} tokens; it must be a whole number, at least 0.'
        )
    if short_factor is None:
      for name, default in (('short_start_tokens', 0), ('switch_length', self.train_length)):
        if getattr(self, name) != default:
          raise ValueError(
            f'position.{name} is {getattr(self, name)}, and there are no factors for short texts; '
            'give position.short_factor as well.'
          )
    elif not 1 <= self.switch_length <= self.target_length:
      raise ValueError(
        f'position.switch_length is {self.switch_length}, the longest short text; it must be 1 to '
        f'{self.target_length} tokens, the target length.'
      )
    checks.choose('position.temperature', temperature, TEMPERATURES)
    if not 0 < base_lib.resolved('attention_factor', attention_factor) < math.inf:
      raise ValueError(f'position.attention_factor is {attention_factor:g}; it must be positive.')
    if not 0 < slice_factor < math.inf:
      raise ValueError(f'position.slice_factor is {slice_factor:g}; it must be positive.')
    self.temperature, self.attention_factor = temperature, attention_factor
    self.slice_factor = slice_factor
    starts = self.start_tokens, self.short_start_tokens
    self.depends_on_length = self.short_factor is not None and (
      (self.long_factor, starts[0]) != (self.short_factor, starts[1])
    )
    self.relative = not (starts[0] or (self.depends_on_length and starts[1]))

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base_lib.Dims) -> dict[str, Any]:
    """Reads the file, if one is named, and fills in what neither it nor the arguments have."""
    file, found = given['file'], {}
    if file:
      found, lineage = longrope_file.read(file)
      given = _from_file(given, found, dims) | {'file': '', 'lineage': lineage}
    given = super().resolve(given, dims)
    partial = given['partial'] != 'width'
    rotated = rotary.channels(dims, 1.0 if partial else given['fraction'])
    if file:
      model = {field: given[field] for field in longrope_file.FIELDS if field != 'rotated'}
      longrope_file.check_made_for(file, found, model | {'rotated': rotated})
    if given['long_factor'] is None:
      raise ValueError(
        "'LongRoPE' has no factors: give position.file, as written by python -m "
        f'pe_research.search, or position.long_factor, {rotated // 2} numbers.'
      )
    for name in ('long_factor', 'short_factor'):
      if given[name] is not None:
        given[name] = longrope_file.check(name, given[name], rotated // 2)
    trained, temperature = given['train_length'], given['temperature'] or 'none'
    checks.choose('position.temperature', temperature, TEMPERATURES)
    if temperature == 'su' and trained == 1:
      raise ValueError("position.temperature 'su' divides by ln L, and position.train_length is 1.")
    return base_lib.fill(
      given | {'temperature': temperature},
      start_tokens=0,
      short_start_tokens=0,
      switch_length=trained,
      attention_factor=temperature_of(temperature, given['factor'], trained),
    )

  def _by_length(self, length, short, long):
    """`short` where the document is at most switch_length tokens, else `long`."""
    if not self.depends_on_length:
      return long
    is_short = length <= self.switch_length
    if not isinstance(length, jax.Array):
      return short if is_short else long
    return jnp.where(is_short[..., None], np.asarray(short), np.asarray(long))

  def frequencies(self, length) -> np.ndarray | jax.Array:
    """Theta / lambda, float64 [rotated/2], or [B or 1, L or 1, rotated/2] for each length."""
    factors = self._by_length(length, self.short_factor, self.long_factor)
    theta = self.spectrum(self.base)
    return theta / (factors if isinstance(factors, jax.Array) else np.asarray(factors))

  def angles(self, pos: jax.Array, length) -> jax.Array:
    """Float32 [B or 1, L, rotated/2] radians, those of RoPE at the first n-hat positions."""
    stretched = super().angles(pos, length)
    if not (self.start_tokens or self.short_start_tokens):
      return stretched
    first = self._by_length(length, self.short_start_tokens, self.start_tokens)
    rope = fixed_point.angles(pos, fixed_point.fixed_point(rotary.RoPE.frequencies(self, length)))
    return jnp.where(pos[..., None] < first, rope, stretched)

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """The square of the multiplier of queries and keys, at every length."""
    return self.attention_factor**2

  def regime(self, length):
    """Whether the long factors are in use."""
    return length > self.switch_length

  def notes(self, length: int) -> list[str]:
    """Says if the factors do not come from the file of a search."""
    unknown = (
      'the factors were given by hand, for illustration or from a published model, and not found '
      'by a search of this project (python -m pe_research.search finds those of a run).'
    )
    return super().notes(length) + ([] if self.lineage else [unknown])

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the first tokens, and the longest short text."""
    added = [facts.Fact('first tokens left alone', self.start_tokens, 'tokens')]
    if self.depends_on_length:
      added = [
        facts.Fact('factors for short texts serve up to', self.switch_length, 'tokens'),
        facts.Fact('first tokens left alone, short', self.short_start_tokens, 'tokens'),
        facts.Fact('first tokens left alone, long', self.start_tokens, 'tokens'),
      ]
    return super().card(length, longest).more(*added)


def _from_file(
  given: Mapping[str, Any], found: Mapping[str, Any], dims: base_lib.Dims
) -> dict[str, Any]:
  """All arguments, with the contents of the file that they name."""
  file = given['file']
  names = 'long_factor', 'start_tokens', 'short_factor', 'short_start_tokens', 'switch_length'
  twice = [name for name in names if given[name] is not None]
  if twice:
    raise ValueError(
      f'position.{twice[0]} cannot be given beside position.file {file}, which has it; '
      'leave one of them out.'
    )
  trained = dims.length if given['train_length'] is None else given['train_length']
  longrope_file.check_made_for(file, found, {'train_length': trained})
  read = {name: found.get(name) for name in names}
  read['temperature'] = given['temperature'] or found.get('temperature')
  if given['factor'] is None and given['target_length'] is None:
    read['target_length'] = found['target_length']
  return dict(given) | read


class Searched(rotary.RoPE):
  """LongRoPE at one length with factors as data: one compiled program for all candidates.

  For the search in pe_research/search.
  """

  def __init__(
    self,
    dims: base_lib.Dims,
    *,
    turns: fixed_point.Turns,
    start_tokens: jax.Array,
    attention_factor: float,
    **rope,
  ):
    """Takes the frequencies instead of the factors.

    Args:
      dims: sizes of the model.
      turns: uint32 [rotated/2] limbs of theta / lambda, see fixed_point.fixed_point.
      start_tokens: int32 scalar, n-hat.
      attention_factor: multiplies queries and keys.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    self.turns, self.start_tokens = nnx.data(turns), nnx.data(start_tokens)
    self.attention_factor = attention_factor

  def angles(self, pos: jax.Array, length) -> jax.Array:
    """Float32 [B or 1, L, rotated/2] radians, those of RoPE at the first n-hat positions."""
    rope = super().angles(pos, length)
    return jnp.where(pos[..., None] < self.start_tokens, rope, fixed_point.angles(pos, self.turns))

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """The square of the multiplier of queries and keys."""
    return self.attention_factor**2
