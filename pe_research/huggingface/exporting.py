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
from pe_research.huggingface import families, folder, importing, positions_write
from pe_research.huggingface.family import Family
from pe_research.huggingface.positions_write import NotExportable
from pe_research.huggingface.tensors import Tensor
from pe_research.model.decoder_config import DecoderConfig
from pe_research.settings import configs
from pe_research.storage import files

TYPES = {'float32': np.float32, 'bfloat16': ml_dtypes.bfloat16, 'float16': np.float16}


@dataclasses.dataclass(frozen=True)
class Plan:
  """How a model is written.

  Attributes:
    config: of the run, resolved.
    family: the architecture.
    fields: of config.json.
    model: sizes and options as the architecture has them.
    scales: parameter path -> factor that is multiplied into it, where that is not 1.
  """

  config: Mapping[str, Any]
  family: Family
  fields: Mapping[str, Any]
  model: DecoderConfig
  scales: Mapping[str, float]


def plan(config: Mapping[str, Any], architecture: str | None = None) -> Plan:
  """How to export the model of a resolved config.

  Args:
    config: resolved.
    architecture: name of a class in transformers; None takes the first that supports the model.

  Raises:
    NotExportable: says for each class with this kind of positions what it does not support.
  """
  scheme, model = configs.scheme(config), DecoderConfig.of(config)
  scales = {f'position/0/{k}': v for k, v in positions_write.table_scales(scheme).items()}
  if model.embedding_scale:  # goes into the table, which then cannot be the output matrix
    scales['embedding'] = model.width**0.5
    model = dataclasses.replace(model, embedding_scale=False, tied=False)
  scales = {path: scale for path, scale in scales.items() if scale != 1}
  kind, names = positions_write.kind(scheme), [f.architecture for f in families.FAMILIES]
  if architecture is not None:
    checks.choose('--architecture', architecture, names)
  reasons = []
  for family in families.FAMILIES:
    if architecture not in (None, family.architecture):
      continue
    if family.position != kind:
      if architecture:
        reasons.append(f'{family.architecture} does not support {scheme.label!r}')
      continue
    obstacles = family.obstacles(model)
    if not obstacles:
      try:
        own = family.write(model, scheme, config['length'])
      except NotExportable as error:
        obstacles = [str(error.reason)]
      else:
        return Plan(config, family, _common(family, model) | own, model, scales)
    reasons.append(f'{family.architecture}: {", ".join(obstacles)}')
  raise NotExportable('; '.join(reasons))


def _common(family: Family, model: DecoderConfig) -> dict[str, Any]:
  """The fields of config.json that all architectures have; there are no special tokens."""
  return {
    'architectures': [family.architecture],
    'model_type': family.model_type,
    'vocab_size': model.vocab,
    'tie_word_embeddings': model.tied,
    'bos_token_id': None,
    'eos_token_id': None,
  }


def export(
  plan: Plan,
  params: Mapping[str, jax.Array],
  into: pathlib.Path,
  *,
  dtype: str | None = None,
  shard_bytes: int = 5 * 10**9,
  overwrite: bool = False,
) -> None:
  """Writes config.json, safetensors and, if there is one, tokenizer.json; all or nothing.

  Args:
    plan: how.
    params: parameter path -> array.
    into: the folder, which must not exist.
    dtype: a name in TYPES; None keeps that of the parameters.
    shard_bytes: maximum size of a file, unless one tensor is larger.
    overwrite: True replaces an existing checkpoint.

  Raises:
    ValueError: the folder exists and may not be replaced, or a weight overflows the dtype.
  """
  check_target(plan.config, into, overwrite)
  kinds = {str(x.dtype) for x in params.values()}
  dtype = dtype or (kinds.pop() if len(kinds) == 1 else 'float32')
  part = into.with_name(f'.{into.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  try:
    _write_json(part / folder.CONFIG, plan.fields | {'dtype': dtype})
    _write_tokenizer(plan.config['data'], part)
    _write_weights(plan, params, part, dtype, shard_bytes)
    _rename(part, into)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def check_target(config: Mapping[str, Any], into: pathlib.Path, overwrite: bool) -> None:
  """Raises ValueError if `into` cannot be written, or exists and may not be replaced."""
  if not into.exists():
    files.check_writable(into, makes_folder=True)
    return
  source = config['start']['pretrained']
  if source and into.resolve() == pathlib.Path(source).resolve():
    raise ValueError(f'the weights come from {into}, which is kept; choose another --into.')
  if not overwrite:
    raise ValueError(f'{into} exists; choose another --into, or give --overwrite to replace it.')
  if not (into / folder.CONFIG).exists():
    raise ValueError(f'{into} holds no checkpoint, and is not replaced; choose another --into.')


def _rename(part: pathlib.Path, into: pathlib.Path) -> None:
  """Puts the finished folder in place; an existing one is restored if that fails."""
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


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')


def _write_tokenizer(data: Mapping[str, Any], part: pathlib.Path) -> None:
  target = part / importing.TOKENIZER
  if data['tokenizer'] == 'bytes':
    target.write_text(tokenizer_json.of_bytes(), encoding='utf-8')
  elif data['tokenizer'] == 'json':
    shutil.copy(data['tokenizer_file'], target)
  else:
    return
  _write_json(part / 'tokenizer_config.json', {'tokenizer_class': 'PreTrainedTokenizerFast'})


def _write_weights(plan: Plan, params, part: pathlib.Path, dtype: str, shard_bytes: int) -> None:
  params = {'output': params['embedding'], **params}
  tensors = importing.tensors(plan.family, plan.model)
  shapes, itemsize = {path: x.shape for path, x in params.items()}, np.dtype(TYPES[dtype]).itemsize
  sizes = {tensor.name: int(np.prod(tensor.shape(shapes))) * itemsize for tensor in tensors}
  shards, index = list(_shards(tensors, sizes, shard_bytes)), {}

  def value(path: str) -> np.ndarray:
    array = np.asarray(params[path])
    if path in plan.scales:
      array = array.astype(np.float32) * np.float32(plan.scales[path])
    with np.errstate(over='ignore'):
      narrow = array.astype(TYPES[dtype])
    if not np.array_equal(np.isfinite(narrow), np.isfinite(array)):
      raise ValueError(f'{path} has values that {dtype} cannot hold; give another --dtype.')
    return narrow

  for i, shard in enumerate(shards, 1):
    file = f'model-{i:05}-of-{len(shards):05}.safetensors' if len(shards) > 1 else folder.SINGLE
    arrays = {
      plan.family.renamed.get(t.name, t.name): t.join({path: value(path) for path in t.params})
      for t in shard
    }
    save_file(arrays, part / file, metadata={'format': 'pt'})
    (part / file).chmod(0o644)  # save_file makes it readable for its owner only
    index |= dict.fromkeys(arrays, file)
  if len(shards) > 1:
    total = {'total_size': sum(sizes.values())}
    _write_json(part / folder.INDEX, {'metadata': total, 'weight_map': index})


def _shards(tensors: list[Tensor], sizes: Mapping[str, int], most: int) -> Iterator[list[Tensor]]:
  """Tensors in order, in groups of at most `most` bytes."""
  group, total = [], 0
  for tensor in tensors:
    if group and total + sizes[tensor.name] > most:
      yield group
      group, total = [], 0
    group.append(tensor)
    total += sizes[tensor.name]
  yield group
