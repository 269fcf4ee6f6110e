"""A checkpoint's folder: config.json and safetensors, in one file or in several with an index."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import safetensors

CONFIG = 'config.json'
SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
TYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}


@dataclasses.dataclass(frozen=True)
class Entry:
  """Where a tensor is, and what it is, as the header of its file says."""

  shard: pathlib.Path
  shape: tuple[int, ...]
  dtype: str


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """The config.json of a folder; ValueError where there is none."""
  if path.exists() and not path.is_dir():
    raise ValueError(f'{path} is a file; name the folder of a Hugging Face checkpoint.')
  return _read_json(path / CONFIG, 'name the folder of a Hugging Face checkpoint')


def entries(path: pathlib.Path) -> dict[str, Entry]:
  """Every tensor by its name, from headers alone: no weight is read.

  Raises:
    ValueError: a file is absent or damaged, or the index and the files disagree.
  """
  index, found = path / INDEX, {}
  if not index.exists():
    if not (path / SINGLE).exists():
      raise ValueError(
        f'{path} has neither {SINGLE} nor {INDEX}; only safetensors are read. Convert other '
        'weights with save_pretrained.'
      )
    return _header(path / SINGLE)
  listed = _read_json(index, 'restore it from the source').get('weight_map')
  if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
    raise ValueError(
      f'{index} has no weight_map from tensors to files; restore it from the source.'
    )
  shards = sorted(set(listed.values()))
  if absent := [shard for shard in shards if not (path / shard).exists()]:
    raise ValueError(f'{index} names {", ".join(absent)}, which {path} does not have.')
  for shard in shards:
    found |= _header(path / shard)
  if lost := [name for name, shard in listed.items() if _shard(found, name) != shard]:
    raise ValueError(
      f'{index} names tensors that are not in their files: {some(lost)}. Restore the folder.'
    )
  return found


def _shard(found: dict[str, Entry], name: str) -> str | None:
  return found[name].shard.name if name in found else None


def _header(file: pathlib.Path) -> dict[str, Entry]:
  found = {}
  try:
    with safetensors.safe_open(file, framework='numpy') as opened:
      for name in opened.keys():  # noqa: SIM118 (no mapping)
        part = opened.get_slice(name)
        found[name] = Entry(file, tuple(part.get_shape()), part.get_dtype())
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(f'{file} is damaged or no safetensors file: {error}.') from error
  return found


def read(wanted: Iterable[str], listed: dict[str, Entry]) -> Iterator[tuple[str, np.ndarray]]:
  """Tensors by name, a file at a time; each is mapped while it is open, and copied by tensor."""
  shards = collections.defaultdict(list)
  for name in wanted:
    shards[listed[name].shard].append(name)
  for shard, names in sorted(shards.items()):
    with safetensors.safe_open(shard, framework='numpy') as opened:
      for name in names:
        yield name, opened.get_tensor(name)


def _read_json(file: pathlib.Path, fix: str) -> dict[str, Any]:
  try:
    found = json.loads(file.read_text())
  except FileNotFoundError as error:
    raise ValueError(f'{file.parent} has no {file.name}; {fix}.') from error
  except (OSError, ValueError) as error:
    raise ValueError(f'{file} cannot be read: {error}.') from error
  if not isinstance(found, dict):
    raise ValueError(f'{file} holds no object; {fix}.')
  return found


def some(names: Iterable[str], most: int = 20) -> str:
  """The names, or the first of them and how many more there are."""
  names = list(names)
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more
