"""What a Hugging Face architecture is here: a config read and written, and names of tensors."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pe_research.huggingface.tensors import Tensor
from pe_research.model.decoder_config import DecoderConfig
from pe_research.positions.base import PositionScheme

# What models elsewhere have unless their family says otherwise.
USUAL = {
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


# Options that most classes have no choice in, and those of the classes after GPT-2.
PLAIN = {'parallel': (False,), 'embedding_norm': (False,), 'qk_norm': (False,)}
LAYERED = PLAIN | {
  'projection': ('mha',),
  'attention_bias': (True,),
  'mlp_bias': (True,),
  'norm': ('layer',),
  'norm_bias': (True,),
}
WIDER = 4  # times the width, the MLP of a class that says no other


class Fields:
  """A config.json, asked for fields by the names that they have there."""

  def __init__(self, values: Mapping[str, Any], where: str):
    """`where` is its path, for messages."""
    self.values, self.where = values, where

  def get(self, name: str, default: Any) -> Any:
    """The value; the default where there is none, or null."""
    value = self.values.get(name)
    return default if value is None else value

  def size(self, name: str, default: int | None = None) -> int:
    """A positive whole number; ValueError where it is absent without a default, or is no such."""
    value = self.get(name, default)
    if value is None:
      raise ValueError(f'{self.where} has no {name}.')
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise ValueError(f'{self.where}: {name} is {value!r}; it must be a whole number from 1 on.')
    return value

  def flag(self, name: str, default: bool) -> bool:
    """True or False; ValueError for anything else."""
    value = self.get(name, default)
    if not isinstance(value, bool):
      raise ValueError(f'{self.where}: {name} is {value!r}; it must be true or false.')
    return value

  def only(self, name: str, *known: Any) -> Any:
    """The value, the first of `known` where there is none; ValueError unless it is known."""
    value = self.get(name, known[0])
    if value not in known:
      raise ValueError(
        f'{self.where}: {name} is {value!r}; the decoder knows {", ".join(map(repr, known))}.'
      )
    return value


@dataclasses.dataclass(frozen=True)
class Described:
  """A checkpoint in the terms of a config of ours.

  Attributes:
    model: the fields of DecoderConfig but vocab.
    vocab: V.
    position: name and arguments of the scheme; others at their defaults.
    length: tokens, what the model was made for.
  """

  model: dict[str, Any]
  vocab: int
  position: dict[str, Any]
  length: int


class Family:
  """One architecture; a file each."""

  architecture: ClassVar[str]  # name of its class in transformers
  model_type: ClassVar[str]
  position: ClassVar[str]  # that it holds, see positions.huggingface_write.kind
  prefix: ClassVar[str]  # of tensor names, which some checkpoints leave out
  fixed: ClassVar[Mapping[str, tuple]]  # options of the model, and what they can be
  square: ClassVar[bool] = True  # heads times head_dim is the width
  wide: ClassVar[bool] = False  # the MLP is WIDER times as wide as the model
  ignored: ClassVar[str] = r'(?!)'  # pattern of tensor names that hold no weights
  renamed: ClassVar[Mapping[str, str]] = {}  # names that checkpoints of other releases have
  aliases: ClassVar[Mapping[str, str]] = {}  # other names of fields that transformers reads

  def read(self, fields: Fields) -> Described:
    """The config of a checkpoint; ValueError for what the decoder does not do."""
    raise NotImplementedError

  def write(self, model: DecoderConfig, scheme: PositionScheme, length: int) -> dict[str, Any]:
    """The fields of config.json that are this architecture's own; NotExportable as in positions."""
    raise NotImplementedError

  def tensors(self, model: DecoderConfig) -> list[Tensor]:
    """All tensors of a checkpoint but the output matrix, which is `lm_head.weight`."""
    raise NotImplementedError

  def is_ignored(self, name: str) -> bool:
    """Whether a tensor is a buffer that some releases saved along."""
    return re.search(self.ignored, name) is not None

  def usual(self, *, width: int, heads: int, **own: Any) -> dict[str, Any]:
    """The model's fields: usual ones, those that the class has no choice in, and its own."""
    made = USUAL | {name: values[0] for name, values in self.fixed.items()}
    made |= {'kv_heads': heads, 'head_dim': width // heads}
    made |= {'mlp_width': WIDER * width} if self.wide else {}
    return made | {'width': width, 'heads': heads} | own

  def obstacles(self, model: DecoderConfig) -> list[str]:
    """Options of the model that the class cannot have, in words."""
    found = []
    for name, known in self.fixed.items():
      value = getattr(model, name)
      if value not in known:
        found.append(f'model.{name} is {value!r}, and there {" or ".join(map(repr, known))}')
    if self.square and model.heads * model.head_dim != model.width:
      found.append(f'model.heads times model.head_dim is not model.width ({model.width})')
    if self.wide and model.mlp_width != WIDER * model.width:
      found.append(f'model.mlp_width is {model.mlp_width}, and there {WIDER * model.width}')
    return found
