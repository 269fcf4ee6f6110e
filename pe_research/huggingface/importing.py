"""A checkpoint's config in our terms, and its weights as our parameters."""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pe_research.common import sharding
from pe_research.data import tokenizer_json
from pe_research.huggingface import families, folder, positions_read
from pe_research.huggingface.family import Described, Family, Fields
from pe_research.huggingface.tensors import Tensor, table
from pe_research.machines import memory
from pe_research.model.decoder_config import DecoderConfig
from pe_research.model.functional import FunctionalDecoder
from pe_research.settings import configs

TOKENIZER = 'tokenizer.json'
BYTES = 256  # vocabulary of the byte tokenizer, which needs no file
OUTPUTS = ('lm_head.weight', 'embed_out.weight')  # which a tied model may have as well
EXPERTS = ('n_routed_experts', 'num_local_experts', 'num_experts', 'moe_num_experts')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A folder that can be imported.

  Attributes:
    family: its architecture.
    config: what it decides of a config: model, position, length, data.vocab.
    entries: its tensors by name, as the headers of the files have them.
  """

  family: Family
  config: dict[str, Any]
  entries: dict[str, folder.Entry]


def checkpoint(path: pathlib.Path, tokenizer: bool = False) -> Checkpoint:
  """Checks a folder without reading any weights.

  Args:
    path: of the folder.
    tokenizer: whether its tokenizer.json is checked too.

  Raises:
    ValueError: lists every field of config.json and every file that cannot be used.
  """
  if path.exists() and not path.is_dir():
    raise ValueError(f'{path} is a file; name the folder of a Hugging Face checkpoint.')
  problems: list[str] = []
  values = family = config = None
  with folder.collected(problems):
    values = folder.read_config(path)
  if values is not None:
    in_config: list[str] = []
    with folder.collected(in_config):
      family = _family(values, in_config)
      config = _decided(family, values, in_config) if family else None
    problems += [f'{folder.CONFIG}: {problem}' for problem in in_config]
  entries = folder.entries(path, problems)
  if config and entries:
    problems += match(family, DecoderConfig.of(config), _shapes(config), entries)[1]
  if tokenizer:
    with folder.collected(problems):
      _check_tokenizer(path / TOKENIZER, (values or {}).get('vocab_size'))
  folder.refuse(path, problems)
  return Checkpoint(family, config, entries)


def _family(values: Mapping[str, Any], problems: list[str]) -> Family | None:
  """The architecture that a config.json names, or None if it is not supported."""
  kind, classes = values.get('model_type'), values.get('architectures') or []
  classes = [classes] if isinstance(classes, str) else classes
  if not isinstance(kind, str | None):
    raise ValueError(f'model_type is {kind!r}; it must be a name.')
  if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
    raise ValueError(f'architectures is {classes!r}; it must be a list of names.')
  family = {family.model_type: family for family in families.FAMILIES}.get(kind)
  if values.get('quantization_config'):
    problems.append('the weights are quantized; name a checkpoint of float weights.')
  if family is None:
    experts = [name for name in EXPERTS if values.get(name)]
    mixture = f', a mixture of experts ({experts[0]}),' if experts else ''
    named = f' {classes}' if classes else ''
    supported = ', '.join(f.architecture for f in families.FAMILIES)
    problems.append(
      f'model_type {kind!r}{named}{mixture} is not supported; supported: {supported}.'
    )
  elif classes and family.architecture.lower() not in [name.lower() for name in classes]:
    problems.append(
      f'the class is {", ".join(classes)}; of {kind!r} only {family.architecture} is supported.'
    )
  return family


def _decided(
  family: Family, values: Mapping[str, Any], problems: list[str]
) -> dict[str, Any] | None:
  """What a checkpoint decides of a config; None if a field cannot be used."""
  renamed = {own: values[name] for own, name in family.aliases.items() if name in values}
  fields = Fields(renamed | values, [])
  described, config, valid = None, None, False
  with folder.collected(fields.problems):
    described = family.read(fields)
  if described and not fields.problems:
    with folder.collected(fields.problems):
      DecoderConfig(vocab=described.vocab, **described.model)
      valid = True
  fields.problems += [
    f'{name} is {value!r}, which is about positions and is not understood; only checkpoints '
    'without it can be imported.'
    for name, value in positions_read.unknown(values, {*family.position_fields, *family.names})
  ]
  if described:
    with folder.collected(fields.problems):
      config = _config(family.read_position(fields, described.length), described)
      config = _resolved(config) if valid else config
  problems += fields.problems
  return None if problems else config


def _config(given: Mapping[str, Any], described: Described) -> dict[str, Any]:
  """The config, with all arguments of the position."""
  length = positions_read.served(given, described.length)
  position = configs.position(given['name'], length)
  for field, value in given.items():
    position[field] = value
  config = {'model': described.model, 'length': length, 'data': {'vocab': described.vocab}}
  return config | {'position': position.to_dict()}


def _resolved(config: dict[str, Any]) -> dict[str, Any]:
  """The config with its position resolved; ValueError where no scheme can be built from it."""
  resolved = configs.resolve_position(config)
  configs.scheme(config | {'position': resolved})
  return config | {'position': resolved}


def _shapes(config: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
  """Shapes of all parameters; all blocks have those of the first."""
  model = config['model']
  one = config | {'model': model | {'layers': 1}, 'attention': {'window': None}, 'seed': 0}
  shapes = {name: tuple(x.shape) for name, x in jax.eval_shape(FunctionalDecoder(one).init).items()}
  return {
    re.sub(r'^blocks/0/', f'blocks/{i}/', name): shape
    for name, shape in shapes.items()
    for i in range(model['layers'])
  }


def _check_tokenizer(file: pathlib.Path, vocab: Any) -> None:
  if not isinstance(vocab, int) or vocab < 1:
    return  # said of config.json
  if file.exists():
    tokenizer_json.Json(str(file), vocab)
  elif vocab != BYTES:
    raise ValueError(
      f'there is no {file.name}, and {vocab} tokens are not the {BYTES} bytes; put the '
      f'{file.name} of the model into the folder.'
    )


def tensors(family: Family, model: DecoderConfig) -> list[Tensor]:
  """All tensors of a checkpoint of the model."""
  own = family.tensors(model)
  return own if model.tied else [*own, table('lm_head', 'output')]


def match(
  family: Family,
  model: DecoderConfig,
  shapes: Mapping[str, tuple[int, ...]],
  entries: Mapping[str, folder.Entry],
) -> tuple[dict[str, Tensor], list[str]]:
  """The tensors of a model by their names in the files, and what does not match.

  Names may lack the prefix of the architecture. Tensors that are missing, unexpected, of an
  unsupported dtype or of another shape are problems.
  """
  wanted = {tensor.name: tensor for tensor in tensors(family, model)}
  bare = not any(name.startswith(family.prefix) for name in entries)
  found, missing = {}, []
  for name, tensor in wanted.items():
    shorter = name.removeprefix(family.prefix) if bare else name
    present = [n for n in (name, shorter, family.renamed.get(name)) if n in entries]
    missing += [] if present else [name]
    found |= {present[0]: tensor} if present else {}
  optional = () if OUTPUTS[0] in wanted else OUTPUTS
  unexpected = [
    name for name in entries
    if name not in found and name not in optional and not family.is_ignored(name)
  ]  # fmt: skip
  types = [f'{n} ({entries[n].dtype})' for n in found if entries[n].dtype not in folder.TYPES]
  reshaped = [
    f'{name} is {entries[name].shape}, expected {tensor.shape(shapes)}'
    for name, tensor in found.items()
    if entries[name].shape != tensor.shape(shapes)
  ]
  problems = [
    f'{what}: {folder.some(names)}.'
    for what, names in (
      ('tensors are missing', missing),
      ('tensors are unexpected', unexpected),
      (f'dtypes are unsupported ({", ".join(folder.TYPES)} are supported)', types),
      ('shapes disagree with the config', reshaped),
    )
    if names
  ]
  return found, problems


def load(path: pathlib.Path, config: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The parameters of a config whose weights come from the folder, laid out over its mesh.

  They keep their dtype, which computing in float32 widens exactly. Host memory holds the weights
  and what is mapped of one file.

  Raises:
    ValueError: the folder cannot be used, does not fit the config, or is too large for memory;
      before any weights are read.
  """
  source = checkpoint(path)
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  abstract = jax.eval_shape(functional.init)
  shapes = {name: tuple(x.shape) for name, x in abstract.items()}
  found, problems = match(source.family, functional.model, shapes, source.entries)
  folder.refuse(path, problems)
  layout = sharding.layout(abstract, mesh)
  types = {p: folder.TYPES[source.entries[name].dtype] for name, t in found.items()
           for p in t.params}  # fmt: skip
  memory.check(str(path), shapes, types, layout)
  _check_tied(functional.model, source.entries, found, path)
  params = {}
  for name, array in folder.read(found, source.entries):
    _check_finite(path, name, array)
    for param, part in found[name].split(array).items():
      params[param] = sharding.place(part, layout[param])
  return {name: params[name] for name in shapes}


def _check_finite(path: pathlib.Path, name: str, array: np.ndarray) -> None:
  if bad := array.size - int(np.isfinite(array).sum()):
    raise ValueError(
      f'{path} cannot be imported: {bad} of {array.size} values of {name} are NaN or infinite. '
      'Download the file again.'
    )


def _check_tied(model: DecoderConfig, entries, found, path: pathlib.Path) -> None:
  """Raises ValueError if a tied model comes with an output matrix that differs."""
  others = [name for name in OUTPUTS if name in entries and name not in found]
  if not model.tied or not others:
    return
  names = [*others[:1], *(n for n, t in found.items() if t.params == ('embedding',))]
  output, embedding = (array for _, array in sorted(folder.read(names, entries)))
  rows = min(len(output), len(embedding))  # one of them may be padded
  if np.array_equal(output[:rows], embedding[:rows]):
    return
  own = (
    'to use it, set tie_word_embeddings to false in config.json'
    if len(output) == len(embedding)
    else f'it has {len(output)} rows, and the embedding {len(embedding)}, so that it cannot be used'
  )
  raise ValueError(
    f'{path} ties its output to the embedding (tie_word_embeddings), but its {others[0]} '
    f'differs: {own}. To use the embedding, as transformers does, remove {others[0]} from the file.'
  )
