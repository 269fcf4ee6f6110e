"""The registry of positional schemes. A scheme is one file here and one line in SCHEMES."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from flax import nnx

from pe_research.positions.alibi import ALiBi
from pe_research.positions.base import Dims, NoPE, PositionScheme
from pe_research.positions.learned import Learned
from pe_research.positions.rotary import RoPE
from pe_research.positions.sinusoidal import Sinusoidal
from pe_research.positions.t5 import T5

SCHEMES: dict[str, type[PositionScheme]] = {
  'nope': NoPE,
  'learned': Learned,
  'sinusoidal': Sinusoidal,
  't5': T5,
  'rope': RoPE,
  'alibi': ALiBi,
}


def scheme(name: str) -> type[PositionScheme]:
  """The class of the scheme called `name`; ValueError with the nearest names if there is none."""
  if name not in SCHEMES:
    near = difflib.get_close_matches(name, SCHEMES, n=3, cutoff=0.4)
    hint = f' Did you mean {" or ".join(near)}?' if near else ''
    raise ValueError(f'no positional scheme {name!r}.{hint} Choose one of {", ".join(SCHEMES)}.')
  return SCHEMES[name]


def arguments(name: str) -> dict[str, inspect.Parameter]:
  """The scheme's own configuration: the keyword-only arguments of its constructor.

  NNX's metaclass hides the signature of the class, hence that of `__init__`.
  """
  parameters = inspect.signature(scheme(name).__init__).parameters
  return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY and k != 'rngs'}


def defaults(name: str) -> dict[str, Any]:
  """A config for the scheme: its name and every argument at its default."""
  return {'name': name} | {k: p.default for k, p in arguments(name).items()}


def build(config: Mapping[str, Any], dims: Dims, rngs: nnx.Rngs) -> PositionScheme:
  """The scheme that `config` (a name and arguments) describes, for a model of these sizes."""
  given = dict(config)
  name = given.pop('name')
  known = arguments(name)
  for key in given:
    if key not in known:
      near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
      hint = f' Did you mean {near[0]!r}?' if near else ''
      raise ValueError(
        f'position.{key} is unknown to {name!r}.{hint} It takes {", ".join(known) or "nothing"}.'
      )
  return scheme(name)(dims, **given, rngs=rngs)
