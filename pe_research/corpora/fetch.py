"""Prepared sets that lie in a bucket: records are read at random, so a machine has its own copy."""

import os
import pathlib
import shutil
from collections.abc import Callable

from pe_research import locks, paths
from pe_research.corpora import catalogue

PART = 16 * 2**20  # bytes that are copied at a time


def fetch(name: str, bucket: str, data_dir: str, beat: Callable[[str], None]) -> None:
  """Copies a set from `bucket` into `data_dir`, unless it is there; all of it or nothing.

  Several processes may call it at once: one copies, the others wait.

  Args:
    name: of the set, as tfds writes them, 'pg19' or 'c4/en:3.1.0'.
    bucket: where `bucket/pg19` is the folder that tfds prepared.
    data_dir: of this machine.
    beat: is told of every file.
  """
  base = catalogue.base_name(name)
  source, target = paths.place(bucket) / base, pathlib.Path(data_dir) / base
  if not base or target.exists():
    return
  with locks.locked(os.path.join(data_dir, f'{base}.lock')):
    if target.exists() or not source.is_dir():
      return
    partial = target.with_name(f'.{base}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    _copy(source, partial, beat)
    partial.rename(target)


def _copy(source: pathlib.Path, target: pathlib.Path, beat: Callable[[str], None]) -> None:
  if source.is_dir():
    target.mkdir(parents=True)
    for path in source.iterdir():
      _copy(path, target / path.name, beat)
    return
  beat(f'fetching {source}')
  with source.open('rb') as read, target.open('wb') as written:
    shutil.copyfileobj(read, written, PART)
