"""Paths: of this machine, and of buckets (gs://, s3://), which etils and orbax reach."""

import pathlib

from etils import epath


def place(text) -> pathlib.Path:
  """The path that a text names; of a bucket where it has a scheme, with the same methods."""
  return epath.Path(text) if '://' in str(text) else pathlib.Path(text)


def in_bucket(path: pathlib.Path) -> bool:
  """Whether it is in a bucket, where files are replaced as a whole and nobody can lock them."""
  return '://' in str(path)


def modified(path: pathlib.Path) -> float:
  """When it was last written, in seconds as time.time has them."""
  return path.stat().mtime if in_bucket(path) else path.stat().st_mtime
