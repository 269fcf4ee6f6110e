"""A checkpoint's config in our terms, and its weights as our parameters."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pe_research.common import sharding
from pe_research.huggingface import families, folder, memory, positions_read
from pe_research.huggingface.family import Described, Family, Fields
from pe_research.huggingface.tensors import Tensor, table
from pe_research.model.decoder_config import DecoderConfig
from pe_research.model.functional import FunctionalDecoder
from pe_research.settings import configs

OUTPUTS = ('lm_head.weight', 'embed_out.weight')  # which a tied model may have as well
EXPERTS = ('n_routed_experts', 'num_local_experts', 'num_experts', 'moe_num_experts')


def family_of(config: Mapping[str, Any], where: pathlib.Path) -> Family:
  """The architecture that a config.json names; ValueError for one that is not known."""
  kind, classes = config.get('model_type'), config.get('architectures') or []
  classes = [classes] if isinstance(classes, str) else classes
  known = {family.model_type: family for family in families.FAMILIES}
  names = ', '.join(f.architecture for f in families.FAMILIES)
  if kind not in known:
    experts = [name for name in EXPERTS if config.get(name)]
    raise ValueError(
      f'{where} has model_type {kind!r}{f" {classes}" if classes else ""}, which cannot be imported'
      f'{", and has a mixture of experts (" + experts[0] + ")" if experts else ""}; '
      f'these can: {names}.'
    )
  family = known[kind]
  if classes and family.architecture.lower() not in [name.lower() for name in classes]:
    raise ValueError(
      f'{where} names {", ".join(classes)}; {family.architecture} is what is imported of {kind!r}.'
    )
  if config.get('quantization_config'):
    raise ValueError(f'{where} has quantized weights; name a checkpoint of float weights.')
  return family


def describe(path: pathlib.Path) -> tuple[Family, Described]:
  """What config.json says, with every argument of the scheme; weights are not looked at.

  Raises:
    ValueError: names the field and what would do.
  """
  where, values = path / folder.CONFIG, folder.read_config(path)
  try:
    family = family_of(values, where)
    other = {own: values[name] for own, name in family.aliases.items() if name in values}
    described = family.read(Fields(other | values, str(where)))
    length = positions_read.served(described.position, described.length)
    position = configs.position(described.position['name'], length)
    for field, value in described.position.items():
      position[field] = value
    DecoderConfig(vocab=described.vocab, **described.model)
  except (TypeError, AttributeError, KeyError, ArithmeticError) as error:
    raise ValueError(f'{where} cannot be understood: {type(error).__name__}, {error}.') from error
  except ValueError as error:
    said = str(error)
    raise ValueError(said if said.startswith(str(where)) else f'{where}: {said}') from error
  return family, dataclasses.replace(described, position=position.to_dict(), length=length)


def source(path: pathlib.Path) -> dict[str, Any]:
  """The part of a config that a checkpoint decides: model, position, length, data.vocab."""
  _, found = describe(path)
  decided = {'model': found.model, 'length': found.length, 'data': {'vocab': found.vocab}}
  decided |= {'position': found.position}
  try:
    configs.scheme(decided)
    return decided | {'position': configs.resolve_position(decided)}
  except ValueError as error:
    raise ValueError(f'{path / folder.CONFIG}: {error}') from error


def tensors(family: Family, model: DecoderConfig) -> list[Tensor]:
  """All that a checkpoint of the model has."""
  own = family.tensors(model)
  return own if model.tied else [*own, table('lm_head', 'output')]


def match(
  family: Family,
  wanted: Mapping[str, Tensor],
  listed: Mapping[str, folder.Entry],
  shapes: Mapping[str, tuple[int, ...]],
  where: pathlib.Path,
) -> dict[str, Tensor]:
  """The tensors wanted, by the names that the files have; those of a bare model lack a prefix.

  Raises:
    ValueError: lists what is missing, what is there besides, and shapes that disagree.
  """
  bare = not any(name.startswith(family.prefix) for name in listed)
  found, missing = {}, []
  for name, tensor in wanted.items():
    shorter = name.removeprefix(family.prefix) if bare else name
    there = [n for n in (name, shorter, family.renamed.get(name)) if n in listed]
    missing += [] if there else [name]
    found |= {there[0]: tensor} if there else {}
  doubled = () if OUTPUTS[0] in wanted else OUTPUTS
  idle = lambda name: name in doubled or family.is_ignored(name)
  extra = [name for name in listed if name not in found and not idle(name)]
  if missing or extra:
    said = [f'it lacks {folder.some(missing)}'] if missing else []
    said += [f'it has besides {folder.some(extra)}'] if extra else []
    raise ValueError(f'the tensors of {where} are not those of its config: {"; ".join(said)}.')
  odd = [f'{n} ({listed[n].dtype})' for n in found if listed[n].dtype not in folder.TYPES]
  if odd:
    known = ', '.join(folder.TYPES)
    raise ValueError(f'{where} has {folder.some(odd)}; weights of {known} are read.')
  wrong = []
  for name, tensor in found.items():
    want = tensor.shape(shapes)
    if listed[name].shape != want:
      wrong.append(f'{name} is {listed[name].shape}, and by config.json {want}')
  if wrong:
    raise ValueError(f'shapes in {where} disagree with its config: {folder.some(wrong)}.')
  return found


def load(path: pathlib.Path, config: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The parameters of a config whose weights come from the folder, laid out over its mesh.

  They keep the type that they have there, which computing in float32 widens exactly. Host memory
  holds the weights and what is mapped of one file.

  Raises:
    ValueError: the folder is not whole, not that of the config, or too large; before any is read.
  """
  family, _ = describe(path)
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  abstract = jax.eval_shape(functional.init)
  shapes = {name: tuple(x.shape) for name, x in abstract.items()}
  listed = folder.entries(path)
  wanted = {tensor.name: tensor for tensor in tensors(family, functional.model)}
  found = match(family, wanted, listed, shapes, path)
  layout = sharding.layout(abstract, mesh)
  types = {p: folder.TYPES[listed[name].dtype] for name, t in found.items() for p in t.params}
  memory.check(str(path), shapes, types, layout)
  _check_tied(functional.model, listed, found, path)
  params = {}
  for name, array in folder.read(found, listed):
    for param, part in found[name].split(array).items():
      params[param] = sharding.place(part, layout[param])
  return {name: params[name] for name in shapes}


def _check_tied(model: DecoderConfig, listed, found, path: pathlib.Path) -> None:
  """Raises ValueError where a tied model comes with an output matrix that is another."""
  others = [name for name in OUTPUTS if name in listed and name not in found]
  if not model.tied or not others:
    return
  names = [*others[:1], *(n for n, t in found.items() if t.params == ('embedding',))]
  output, embedding = (array for _, array in sorted(folder.read(names, listed)))
  if output.shape != embedding.shape or not np.array_equal(output, embedding):
    raise ValueError(
      f'{path} ties its output to the embedding (tie_word_embeddings), and has another '
      f'{others[0]}. Set tie_word_embeddings to false in config.json to use that.'
    )
