"""The registry of positional schemes: each has a file, an import here and a line in SCHEMES."""

import inspect
from collections.abc import Mapping
from typing import Any

from flax import nnx

from pe_research.common import checks
from pe_research.positions.alibi import ALiBi
from pe_research.positions.base import Dims, NoPE, PositionScheme
from pe_research.positions.by_parts import Llama3, NTKByParts
from pe_research.positions.drope import DroPE
from pe_research.positions.fire import FIRE
from pe_research.positions.interpolation import ABF, NTK, PI, DynamicNTK
from pe_research.positions.kerple import Kerple
from pe_research.positions.learned import Learned
from pe_research.positions.log_scale import LogN, SSMax, SSMaxRoPE
from pe_research.positions.longrope import LongRoPE
from pe_research.positions.random_positions import PoSE, Randomized, RandPos
from pe_research.positions.rnope import RNoPE
from pe_research.positions.rotary import PRoPE, RoPE
from pe_research.positions.sinusoidal import Sinusoidal
from pe_research.positions.t5 import T5
from pe_research.positions.xpos import XPos
from pe_research.positions.yarn import DynamicYaRN, YaRN

SCHEMES: dict[str, type[PositionScheme]] = {
  'nope': NoPE,
  'learned': Learned,
  'sinusoidal': Sinusoidal,
  't5': T5,
  'rope': RoPE,
  'alibi': ALiBi,
  'kerple': Kerple,
  'fire': FIRE,
  'xpos': XPos,
  'p_rope': PRoPE,
  'rnope': RNoPE,
  'ssmax': SSMax,
  'ssmax_rope': SSMaxRoPE,
  'randomized': Randomized,
  'pi': PI,
  'ntk': NTK,
  'dynamic_ntk': DynamicNTK,
  'ntk_by_parts': NTKByParts,
  'yarn': YaRN,
  'dynamic_yarn': DynamicYaRN,
  'longrope': LongRoPE,
  'llama3': Llama3,
  'abf': ABF,
  'log_n': LogN,
  'drope': DroPE,
  'pose': PoSE,
  'rand_pos': RandPos,
}

NONE = 'nope'  # no positional encoding: the scheme of a config without its own
# One of each kind: added to embeddings, learned bias, rotary, fixed bias.
FAMILIES = ('sinusoidal', 't5', 'rope', 'alibi')


def scheme(name: str) -> type[PositionScheme]:
  """The class of the scheme `name`; ValueError with the nearest names if there is none."""
  if name not in SCHEMES:
    raise ValueError(
      f'no positional scheme {name!r}.{checks.nearest(name, SCHEMES)} '
      f'Choose one of {", ".join(SCHEMES)}.'
    )
  return SCHEMES[name]


def arguments(name: str) -> dict[str, inspect.Parameter]:
  """The configuration of a scheme: the keyword-only arguments of its constructor.

  `**kwargs` in a constructor adds its parent's arguments. NNX's metaclass hides the signature of
  the class, so that of `__init__` is read.
  """
  merged: dict[str, inspect.Parameter] = {}
  for cls in scheme(name).__mro__:
    if '__init__' in vars(cls):
      parameters = inspect.signature(cls.__init__).parameters.values()
      named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != 'rngs'}
      merged |= {k: p for k, p in named.items() if k not in merged}
      if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        break
  return merged


def defaults(name: str) -> dict[str, Any]:
  """A config for the scheme: its name and every argument at its default."""
  return {'name': name} | {k: p.default for k, p in arguments(name).items()}


def example(name: str, pairs: int, factor: float = 4.0) -> dict[str, Any]:
  """A config with defaults, and with `factor` where a scheme needs one.

  Args:
    name: of the scheme.
    pairs: rotary pairs of a head; LongRoPE's factors rise over them from 1 to `factor`.
    factor: target length over training length.
  """
  config = defaults(name)
  if 'factor' in config and config['factor'] is None and not scheme(name).depends_on_length:
    config['factor'] = factor
  if 'long_factor' in config:
    share = [i / max(pairs - 1, 1) for i in range(pairs)]
    config['long_factor'] = [round(factor ** (x * x), 3) for x in share]  # not a geometric curve
  return config


def resolve(config: Mapping[str, Any], dims: Dims) -> dict[str, Any]:
  """`config` (a name and arguments) with every argument, None filled in where it has a default.

  Raises:
    ValueError: an unknown argument, or a missing one that has no default.
  """
  name, allowed = config['name'], arguments(config['name'])
  for key in config:
    if key not in allowed and key != 'name':
      raise ValueError(
        f'position.{key} is unknown to {name!r}.{checks.nearest(key, allowed)} '
        f'It takes {", ".join(allowed) or "nothing"}.'
      )
  given = defaults(name) | dict(config)
  del given['name']
  return {'name': name} | scheme(name).resolve(given, dims)


def build(
  position: str | Mapping[str, Any], dims: Dims, rngs: nnx.Rngs | None = None, **given: Any
) -> PositionScheme:
  """A scheme for a model of these sizes.

  Args:
    position: its name, or a config with name and arguments.
    dims: sizes of the model.
    rngs: for schemes that draw parameters.
    **given: further arguments; the others have their defaults.

  Raises:
    ValueError: an unknown name or argument, a bad value, or parameters and no `rngs`.
  """
  config = {'name': position, **given} if isinstance(position, str) else {**position, **given}
  config = resolve(config, dims)
  name = config.pop('name')
  return scheme(name)(dims, **config, rngs=_NoRngs(name) if rngs is None else rngs)


class _NoRngs:
  """Placeholder for missing rngs: raises where a scheme draws parameters."""

  def __init__(self, name: str):
    self._name = name

  def __getattr__(self, stream: str):
    raise ValueError(f'{self._name!r} draws parameters; give build(..., rngs=nnx.Rngs(seed)).')
