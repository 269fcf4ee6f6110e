"""What every architecture defines: its config.json, read and written, and its tensor names."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pe_research.huggingface.tensors import Tensor
from pe_research.model.decoder_config import DecoderConfig
from pe_research.positions.base import PositionScheme

# Fields of DecoderConfig that are the same in every architecture unless it says otherwise.
DEFAULTS = {
  'latent': None,
  'query_latent': None,
  'rotary_dim': None,
  'value_dim': None,
  'attention_bias': False,
  'mlp_bias': False,
  'norm_bias': False,
  'parallel': False,
  'embedding_scale': False,
  'embedding_norm': False,
  'qk_norm': False,
  'remat': 'none',
  'dtype': 'float32',
}


# Allowed values of options that most classes do not have, and of those with LayerNorm and biases.
PLAIN = {'parallel': (False,), 'embedding_norm': (False,), 'qk_norm': (False,)}
LAYERED = PLAIN | {
  'projection': ('mha',),
  'attention_bias': (True,),
  'mlp_bias': (True,),
  'norm': ('layer',),
  'norm_bias': (True,),
}
EXPANSION = 4  # MLP width over model width, in classes without a field for it


class Fields:
  """The fields of a config.json.

  A field with an unusable value is added to `problems` and replaced by its default (or by 1), so
  that reading continues and all problems are found in one go.
  """

  def __init__(self, values: Mapping[str, Any], problems: list[str], prefix: str = ''):
    """`prefix` is put before field names in messages: 'attn_config.' of a nested object."""
    self.values, self.problems, self.prefix = values, problems, prefix

  def problem(self, text: str) -> None:
    """Adds a problem once."""
    if self.prefix + text not in self.problems:
      self.problems.append(self.prefix + text)

  def get(self, name: str, default: Any) -> Any:
    """The value, or the default if it is absent or null."""
    value = self.values.get(name)
    return default if value is None else value

  def size(self, name: str, default: int | None = None) -> int:
    """A positive integer."""
    value = self.get(name, default)
    if value is None:
      self.problem(f'{name} is missing.')
    elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
      self.problem(f'{name} is {value!r}; it must be a positive integer.')
    else:
      return value
    return default or 1

  def flag(self, name: str, default: bool) -> bool:
    """True or False."""
    value = self.get(name, default)
    if isinstance(value, bool):
      return value
    self.problem(f'{name} is {value!r}; it must be true or false.')
    return default

  def only(self, name: str, *supported: Any) -> Any:
    """One of the supported values; the first is the default."""
    value = self.get(name, supported[0])
    if value in supported:
      return value
    self.problem(f'{name} is {value!r}; supported: {", ".join(map(repr, supported))}.')
    return supported[0]

  def nested(self, name: str) -> 'Fields':
    """The fields of an object in the config."""
    return Fields(self.get(name, {}), self.problems, f'{self.prefix}{name}.')


@dataclasses.dataclass(frozen=True)
class Described:
  """A checkpoint's model in the terms of our config.

  Attributes:
    model: the fields of DecoderConfig except vocab.
    vocab: V.
    length: tokens that the model was trained for.
  """

  model: dict[str, Any]
  vocab: int
  length: int


class Family:
  """One architecture of transformers; each has a file of its own."""

  architecture: ClassVar[str]  # name of its class in transformers
  model_type: ClassVar[str]
  position: ClassVar[str]  # kind of scheme, see positions_write.kind
  prefix: ClassVar[str]  # of tensor names, absent in some checkpoints
  fixed: ClassVar[Mapping[str, tuple]]  # DecoderConfig fields -> values that the class supports
  square: ClassVar[bool] = True  # heads times head_dim must be the width
  expands: ClassVar[bool] = False  # the MLP is always EXPANSION times as wide as the model
  ignored: ClassVar[str] = r'(?!)'  # regex of tensor names that hold no weights
  renamed: ClassVar[Mapping[str, str]] = {}  # tensor name -> its name in older releases
  aliases: ClassVar[Mapping[str, str]] = {}  # field -> the other name that transformers accepts

  def read(self, fields: Fields) -> Described:
    """The model of a checkpoint; what the decoder does not support goes to `fields.problems`."""
    raise NotImplementedError

  def read_position(self, fields: Fields, length: int) -> dict[str, Any]:
    """Name and arguments of the scheme, others at their defaults; ValueError if unsupported."""
    raise NotImplementedError

  def write(self, model: DecoderConfig, scheme: PositionScheme, length: int) -> dict[str, Any]:
    """The architecture's own fields of config.json; raises NotExportable if it has no such."""
    raise NotImplementedError

  def tensors(self, model: DecoderConfig) -> list[Tensor]:
    """All tensors of a checkpoint except the output matrix, `lm_head.weight`."""
    raise NotImplementedError

  def is_ignored(self, name: str) -> bool:
    """Whether a tensor is a buffer that some releases saved with the weights."""
    return re.search(self.ignored, name) is not None

  def model_fields(self, *, width: int, heads: int, **own: Any) -> dict[str, Any]:
    """The fields of DecoderConfig: defaults, fixed values of the class, and its own."""
    fields = DEFAULTS | {name: values[0] for name, values in self.fixed.items()}
    fields |= {'kv_heads': heads, 'head_dim': width // heads}
    fields |= {'mlp_width': EXPANSION * width} if self.expands else {}
    return fields | {'width': width, 'heads': heads} | own

  def obstacles(self, model: DecoderConfig) -> list[str]:
    """Options of the model that the class does not support, in words."""
    found = []
    for name, supported in self.fixed.items():
      value = getattr(model, name)
      if value not in supported:
        found.append(f'model.{name} is {value!r}, supported: {" or ".join(map(repr, supported))}')
    if self.square and model.heads * model.head_dim != model.width:
      found.append(f'model.heads times model.head_dim is not model.width ({model.width})')
    if self.expands and model.mlp_width != EXPANSION * model.width:
      found.append(f'model.mlp_width is {model.mlp_width}, supported: {EXPANSION * model.width}')
    return found
