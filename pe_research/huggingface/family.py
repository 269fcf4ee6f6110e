"""What every architecture defines: its config.json, read and written, and its tensor names."""

import dataclasses
import math
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
ACTIVATIONS = {  # name in config.json -> model.mlp
  'gelu': 'gelu_exact',
  'gelu_new': 'gelu',
  'gelu_fast': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'relu': 'relu',
}
ACTIVATION_NAMES = {'gelu_exact': 'gelu', 'gelu': 'gelu_new', 'relu': 'relu'}  # as they are written
EXPANSION = 4  # MLP width over model width, in classes without a field for it
REQUIRED = None  # in Family.names: a size without a default
DERIVED = ...  # a size with the default in `_derived`


def _derived(name: str, model: Mapping[str, Any]) -> int:
  sizes = {
    'kv_heads': model['heads'],
    'head_dim': model['width'] // model['heads'],
    'mlp_width': EXPANSION * model['width'],
  }
  return sizes[name]


def number(name: str, value: Any) -> int | float:
  """A number of a config.json, which some tools write as text; a whole one is an int.

  Raises:
    ValueError: it is none, or not finite; names the field.
  """
  try:
    found = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    found = math.nan
  if not math.isfinite(found):
    raise ValueError(f'{name} is {value!r}; it must be a number.')
  return int(found) if found == int(found) else found


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

  def read(self, name: str, default: int | float | bool | None) -> Any:
    """A flag, a size or any number, by the type of the default."""
    if isinstance(default, bool):
      return self.flag(name, default)
    return self.number(name, default) if isinstance(default, float) else self.size(name, default)

  def number(self, name: str, default: float) -> float:
    """A number of either kind."""
    try:
      return float(number(name, self.get(name, default)))
    except ValueError as error:
      self.problem(str(error))
      return default

  def size(self, name: str, default: int | None = None) -> int:
    """A positive integer."""
    value = self.get(name, default)
    if value is None:
      self.problem(f'{name} is missing.')
      return 1
    try:
      size = number(name, value)
    except ValueError:
      size = 0
    if isinstance(size, int) and size >= 1:
      return size
    self.problem(f'{name} is {value!r}; it must be a positive integer.')
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
    if any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in supported):
      return value
    self.problem(f'{name} is {value!r}; supported: {", ".join(map(repr, supported))}.')
    return supported[0]

  def nested(self, name: str) -> 'Fields':
    """The fields of an object in the config."""
    value = self.get(name, {})
    if not isinstance(value, dict):
      self.problem(f'{name} is {value!r}; it must be an object.')
      value = {}
    return Fields(value, self.problems, f'{self.prefix}{name}.')


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
  # Field of config.json -> field of DecoderConfig and default; width and heads come first.
  names: ClassVar[Mapping[str, tuple[str, Any]]]
  length: ClassVar[tuple[str, int]]  # field for the training length, and default
  tied: ClassVar[bool] = False  # default of tie_word_embeddings
  activation: ClassVar[tuple[str, str] | None] = (
    None  # field, and default; None: model.mlp is fixed
  )
  supported: ClassVar[Mapping[str, tuple]] = {}  # other fields -> supported values, default first
  fixed: ClassVar[Mapping[str, tuple]]  # DecoderConfig fields -> values that the class supports
  square: ClassVar[bool] = True  # heads times head_dim must be the width
  expands: ClassVar[bool] = False  # the MLP is always EXPANSION times as wide as the model
  ignored: ClassVar[str] = r'(?!)'  # regex of tensor names that hold no weights
  renamed: ClassVar[Mapping[str, str]] = {}  # tensor name -> its older name, which all read
  aliases: ClassVar[Mapping[str, str]] = {}  # field -> the other name that transformers accepts
  position_fields: ClassVar[tuple[str, ...]] = ()  # fields about positions that it reads

  def read(self, fields: Fields) -> Described:
    """The model of a checkpoint; what the decoder does not support goes to `fields.problems`."""
    for name, values in self.supported.items():
      fields.only(name, *values)
    model = DEFAULTS | {name: values[0] for name, values in self.fixed.items()}
    for name, (own, default) in self.names.items():
      model[own] = fields.read(name, _derived(own, model) if default is DERIVED else default)
    for own in ('kv_heads', 'head_dim', 'mlp_width'):
      model.setdefault(own, _derived(own, model))
    if self.activation:
      name, default = self.activation
      model['mlp'] = ACTIVATIONS[fields.only(name, default, *ACTIVATIONS)]
    model['tied'] = fields.flag('tie_word_embeddings', self.tied)
    return Described(model, fields.size('vocab_size'), fields.size(*self.length))

  def read_position(self, fields: Fields, length: int) -> dict[str, Any]:
    """Name and arguments of the scheme, others at their defaults; ValueError if unsupported."""
    raise NotImplementedError

  def write(self, model: DecoderConfig, scheme: PositionScheme, length: int) -> dict[str, Any]:
    """The architecture's own fields of config.json, with `write_position`; or NotExportable."""
    fields = {name: getattr(model, own) for name, (own, _) in self.names.items()}
    if self.activation:
      fields[self.activation[0]] = ACTIVATION_NAMES[model.mlp]
    return fields | self.write_position(model, scheme, length)

  def write_position(
    self, model: DecoderConfig, scheme: PositionScheme, length: int
  ) -> dict[str, Any]:
    """The fields for position and training length, and other fields with fixed values."""
    raise NotImplementedError

  def tensors(self, model: DecoderConfig) -> list[Tensor]:
    """All tensors of a checkpoint except the output matrix, `lm_head.weight`."""
    raise NotImplementedError

  def is_ignored(self, name: str) -> bool:
    """Whether a tensor is a buffer that some releases saved with the weights."""
    return re.search(self.ignored, name) is not None

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
