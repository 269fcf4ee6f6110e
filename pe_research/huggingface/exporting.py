"""A model of ours as a folder that transformers loads."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from pe_research.common import checks
from pe_research.data import tokenizer_json
from pe_research.huggingface import families, folder, positions_write
from pe_research.huggingface.family import Family
from pe_research.huggingface.importing import tensors
from pe_research.huggingface.positions_write import NotExportable
from pe_research.huggingface.tensors import Tensor
from pe_research.model.decoder_config import DecoderConfig
from pe_research.settings import configs

TYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16}


def config_json(
  config: Mapping[str, Any], architecture: str | None = None
) -> tuple[Family, dict[str, Any]]:
  """The architecture that holds a model, the first of all unless one is named, and its config.json.

  Args:
    config: resolved.
    architecture: name of a class, or None.

  Raises:
    NotExportable: says for each class that has such positions what it does not do.
  """
  scheme = configs.scheme(config)
  kind, model = positions_write.kind(scheme), folded(DecoderConfig.of(config))
  if architecture is not None:
    checks.choose('--architecture', architecture, [f.architecture for f in families.FAMILIES])
  reasons = []
  for family in families.FAMILIES:
    if architecture not in (None, family.architecture):
      continue
    if family.position != kind:
      if architecture:
        reasons.append(f'{family.architecture} has other positions than {scheme.label!r}')
      continue
    obstacles = family.obstacles(model)
    if not obstacles:
      try:
        own = family.write(model, scheme, config['length'])
      except NotExportable as error:
        obstacles = [str(error.reason)]
      else:
        return family, common(family, model) | own
    reasons.append(f'{family.architecture}: {", ".join(obstacles)}')
  raise NotExportable('; '.join(reasons))


def common(family: Family, model: DecoderConfig) -> dict[str, Any]:
  """The fields of config.json that all architectures have; no token begins or ends a text."""
  return {
    'architectures': [family.architecture],
    'model_type': family.model_type,
    'vocab_size': model.vocab,
    'tie_word_embeddings': model.tied,
    'bos_token_id': None,
    'eos_token_id': None,
  }


def folded(model: DecoderConfig) -> DecoderConfig:
  """The model with the factor of its embeddings in the table, which then cannot be the output's."""
  if not model.embedding_scale:
    return model
  return dataclasses.replace(model, embedding_scale=False, tied=False)


def scales(config: Mapping[str, Any]) -> dict[str, float]:
  """What tables are multiplied by when they are read, by path, where that is not 1."""
  model, scheme = DecoderConfig.of(config), configs.scheme(config)
  found = {'embedding': model.width**0.5 if model.embedding_scale else 1.0}
  for name, scale in positions_write.table_scales(scheme).items():
    found[f'position/0/{name}'] = scale
  return {path: scale for path, scale in found.items() if scale != 1}


def export(
  config: Mapping[str, Any],
  params: Mapping[str, jax.Array],
  into: pathlib.Path,
  *,
  architecture: str | None = None,
  dtype: str | None = None,
  shard_bytes: int = 5 * 10**9,
  overwrite: bool = False,
) -> Family:
  """Writes config.json, safetensors and, where there is one to write, tokenizer.json.

  The folder appears whole or not at all.

  Args:
    config: resolved.
    params: by path.
    into: the folder, which must not exist.
    architecture: the class, or None for the first that can hold the model.
    dtype: a name in TYPES; None keeps that of the parameters.
    shard_bytes: the most that a file holds, unless one tensor has more.
    overwrite: True replaces a checkpoint that is there.

  Raises:
    NotExportable: as config_json.
    ValueError: the folder exists, and may not be replaced.
  """
  family, fields = config_json(config, architecture)
  check_target(config, into, overwrite)
  kinds = {str(x.dtype) for x in params.values()}
  dtype = dtype or (kinds.pop() if len(kinds) == 1 else 'float32')
  part = into.with_name(f'.{into.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  try:
    (part / folder.CONFIG).write_text(json.dumps(fields | {'dtype': dtype}, indent=2) + '\n')
    _write_tokenizer(config, part)
    _write_weights(config, family, params, part, dtype, shard_bytes)
    _put(part, into)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return family


def check_target(config: Mapping[str, Any], into: pathlib.Path, overwrite: bool) -> None:
  """Raises ValueError where `into` is there and may not be replaced."""
  if not into.exists():
    return
  source = config['start']['pretrained']
  if source and into.resolve() == pathlib.Path(source).resolve():
    raise ValueError(f'the weights come from {into}, which stays; choose another --into.')
  if not overwrite:
    raise ValueError(f'{into} exists; choose another --into, or give --overwrite to replace it.')
  if not (into / folder.CONFIG).exists():
    raise ValueError(f'{into} holds no checkpoint, and is not replaced; choose another --into.')


def _put(part: pathlib.Path, into: pathlib.Path) -> None:
  """Renames the finished folder, with the one that is there out of the way in between."""
  before = into.with_name(f'.{into.name}.before')
  if into.exists():
    into.rename(before)
  try:
    part.rename(into)
  except OSError:
    if before.exists():
      before.rename(into)
    raise
  shutil.rmtree(before, ignore_errors=True)


def _write_tokenizer(config: Mapping[str, Any], part: pathlib.Path) -> None:
  data = config['data']
  if data['tokenizer'] == 'bytes':
    (part / 'tokenizer.json').write_text(tokenizer_json.of_bytes())
  elif data['tokenizer'] == 'json':
    shutil.copy(data['tokenizer_file'], part / 'tokenizer.json')
  else:
    return
  own = {'tokenizer_class': 'PreTrainedTokenizerFast'}
  (part / 'tokenizer_config.json').write_text(json.dumps(own, indent=2) + '\n')


def _write_weights(config, family: Family, params, part, dtype: str, shard_bytes: int) -> None:
  model = folded(DecoderConfig.of(config))
  listed = tensors(family, model)
  shapes = {path: x.shape for path, x in params.items()} | {'output': params['embedding'].shape}
  sizes = {t.name: int(np.prod(t.shape(shapes))) * np.dtype(TYPES[dtype]).itemsize for t in listed}
  groups = list(_groups(listed, sizes, shard_bytes))
  factors, index = scales(config), {}

  def value(path: str) -> np.ndarray:
    array = np.asarray(params[path if path in params else 'embedding'])
    if path in factors:
      array = array.astype(np.float32) * np.float32(factors[path])
    with np.errstate(over='ignore'):
      narrow = array.astype(TYPES[dtype])
    if not np.array_equal(np.isfinite(narrow), np.isfinite(array)):
      raise ValueError(f'{path} has numbers that {dtype} does not hold; give another --dtype.')
    return narrow

  for i, group in enumerate(groups, 1):
    file = f'model-{i:05}-of-{len(groups):05}.safetensors' if len(groups) > 1 else folder.SINGLE
    held = {t.name: t.join({path: value(path) for path in t.params}) for t in group}
    save_file(held, part / file, metadata={'format': 'pt'})
    (part / file).chmod(0o644)  # it makes the file for its owner alone
    index |= dict.fromkeys(held, file)
  if len(groups) > 1:
    total = {'metadata': {'total_size': sum(sizes.values())}, 'weight_map': index}
    (part / folder.INDEX).write_text(json.dumps(total, indent=2) + '\n')


def _groups(listed: list[Tensor], sizes: Mapping[str, int], most: int) -> Iterator[list[Tensor]]:
  """Tensors in order, in groups of at most `most` bytes."""
  group, held = [], 0
  for tensor in listed:
    if group and held + sizes[tensor.name] > most:
      yield group
      group, held = [], 0
    group.append(tensor)
    held += sizes[tensor.name]
  yield group
