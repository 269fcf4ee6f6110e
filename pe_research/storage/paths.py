"""Paths: of this machine, and of buckets (gs://, s3://), which etils and orbax reach."""

import argparse
import importlib.util
import logging
import pathlib

LIBRARIES = {'gs': 'gcsfs', 's3': 's3fs'}  # that reach a bucket, by the scheme of its paths
# What these are built on, whose errors come through as well.
BENEATH = ('google.auth', 'google.api_core', 'aiohttp', 'botocore', 'aiobotocore')
logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it logs all that it raises


class BucketError(argparse.ArgumentTypeError, ValueError):
  """A bucket that nothing here reaches; argparse shows its text where a flag names one."""


class Unreachable(OSError):
  """A bucket did not answer: what processes that wait for process 0 hear of it."""


def place(text) -> pathlib.Path:
  """The path that a text names; of a bucket where it has a scheme, with the same methods.

  Raises:
    BucketError: there is no such kind of bucket, or a package is missing.
  """
  scheme, found, _ = str(text).partition('://')
  if not found:
    return pathlib.Path(text)
  if scheme not in LIBRARIES:
    raise BucketError(f'{text}: {scheme}:// is not a bucket; write gs://... or s3://....')
  if importlib.util.find_spec(LIBRARIES[scheme]) is None:
    raise BucketError(f'{text} needs one more package: pip install {LIBRARIES[scheme]}.')
  from etils import epath  # slow to import, and few paths are of a bucket

  return epath.Path(text)


def failed(error: Exception) -> bool:
  """Whether a bucket did not answer; the libraries that reach them have errors of many kinds."""
  if isinstance(error, Unreachable):
    return True
  module = type(error).__module__ + '.'
  return any(module.startswith(f'{name}.') for name in (*LIBRARIES.values(), *BENEATH))


def in_bucket(path: pathlib.Path) -> bool:
  """Whether it is in a bucket, where files are replaced as a whole and nobody can lock them."""
  return '://' in str(path)


def modified(path: pathlib.Path) -> float:
  """When it was last written, in seconds as time.time has them."""
  return path.stat().mtime if in_bucket(path) else path.stat().st_mtime
