"""A checkpoint's folder: config.json and safetensors, in one file or in several with an index."""

import collections
import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import safetensors

CONFIG = 'config.json'
SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
ADAPTER = 'adapter_config.json'
POINTER = b'version https://git-lfs.github.com/spec/'
TYPES = {'F32': 'float32', 'BF16': 'bfloat16', 'F16': 'float16'}


@dataclasses.dataclass(frozen=True)
class Entry:
  """File, shape and dtype of a tensor, from the header of its file."""

  shard: pathlib.Path
  shape: tuple[int, ...]
  dtype: str


@contextlib.contextmanager
def collected(problems: list[str]) -> Iterator[None]:
  """Adds what the block raises to `problems`, so that checking continues."""
  try:
    yield
  except ValueError as error:
    problems.append(str(error))
  except (TypeError, AttributeError, KeyError, ArithmeticError) as error:
    problems.append(f'cannot be understood: {type(error).__name__}, {error}.')


def refuse(path: pathlib.Path, problems: Sequence[str]) -> None:
  """Raises one ValueError that lists all problems of a folder, if there are any."""
  if len(problems) == 1:
    raise ValueError(f'{path} cannot be imported: {problems[0]}')
  if problems:
    listed = ' '.join(f'({i}) {problem}' for i, problem in enumerate(problems, 1))
    raise ValueError(f'{path} cannot be imported, for {len(problems)} reasons: {listed}')


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """The config.json of a folder; ValueError if it is absent or damaged."""
  return _read_json(path / CONFIG, 'name the folder of a Hugging Face checkpoint')


def entries(path: pathlib.Path, problems: list[str]) -> dict[str, Entry]:
  """Every tensor by its name, from file headers; no weights are read.

  As in transformers, a single file goes before an index, which an earlier save may have left.
  Files that are absent or damaged, or that disagree with the index, are added to `problems`.
  """
  if (path / ADAPTER).exists():
    problems.append(
      f'{ADAPTER} is there: transformers adds that adapter to the weights. Merge it and save '
      'again, or remove the file.'
    )
  if (path / SINGLE).exists():
    with collected(problems):
      return _header(path / SINGLE)
    return {}
  if not (path / INDEX).exists():
    problems.append(
      f'there is neither {SINGLE} nor {INDEX}; only safetensors are read. Convert other weights '
      'with save_pretrained.'
    )
    return {}
  index = {}
  with collected(problems):
    index = _read_json(path / INDEX, 'restore it from the source').get('weight_map')
    if not isinstance(index, dict) or not all(isinstance(v, str) for v in index.values()):
      index = {}
      raise ValueError(
        f'{INDEX} has no weight_map from tensors to files; restore it from the source.'
      )
  found, readable = {}, set()
  shards = sorted(set(index.values()))
  if absent := [shard for shard in shards if not (path / shard).exists()]:
    problems.append(f'{INDEX} names {some(absent)}, absent from the folder; download again.')
  for shard in shards:
    if shard not in absent:
      with collected(problems):
        found |= _header(path / shard)
        readable.add(shard)
  misplaced = [
    name for name, shard in index.items()
    if shard in readable and (name not in found or found[name].shard.name != shard)
  ]  # fmt: skip
  if misplaced:
    problems.append(
      f'{INDEX} names tensors that are not in their files: {some(misplaced)}. Download again.'
    )
  return found


def _header(file: pathlib.Path) -> dict[str, Entry]:
  found = {}
  try:
    _check_pointer(file)
    with safetensors.safe_open(file, framework='numpy') as opened:
      for name in opened.keys():  # noqa: SIM118 (no mapping)
        part = opened.get_slice(name)
        found[name] = Entry(file, tuple(part.get_shape()), part.get_dtype())
  except (safetensors.SafetensorError, OSError) as error:
    raise ValueError(f'{file.name} is damaged or no safetensors file: {error}.') from error
  return found


def _check_pointer(file: pathlib.Path) -> None:
  if file.exists() and not file.is_file():
    raise ValueError(f'{file.name} is no regular file; put the file there.')
  with file.open('rb') as opened:
    if opened.read(len(POINTER)) == POINTER:
      raise ValueError(
        f'{file.name} is a Git LFS pointer in place of the file; install git-lfs and run '
        '`git lfs pull` in the folder.'
      )


def read(wanted: Iterable[str], listed: dict[str, Entry]) -> Iterator[tuple[str, np.ndarray]]:
  """Tensors by name, a file at a time; a file is mapped while open, and copied by tensor."""
  shards = collections.defaultdict(list)
  for name in wanted:
    shards[listed[name].shard].append(name)
  for shard, names in sorted(shards.items()):
    with safetensors.safe_open(shard, framework='numpy') as opened:
      for name in names:
        yield name, opened.get_tensor(name)


def _read_json(file: pathlib.Path, fix: str) -> dict[str, Any]:
  try:
    _check_pointer(file)
    found = json.loads(file.read_bytes())
  except FileNotFoundError as error:
    raise ValueError(f'there is no {file.name}; {fix}.') from error
  except (OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f'{file.name} cannot be read: {error}.') from error
  if not isinstance(found, dict):
    raise ValueError(f'{file.name} holds no JSON object; {fix}.')
  return found


def some(names: Iterable[str], most: int = 8) -> str:
  """The names, or the first of them and how many more there are."""
  names = list(names)
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return ', '.join(names[:most]) + more
