"""Paths of this machine and of buckets (gs://, s3://), which etils and orbax reach."""

import argparse
import importlib.util
import logging
import pathlib

LIBRARIES = {'gs': 'gcsfs', 's3': 's3fs'}  # that reach a bucket, by the scheme of its paths
# What these are built on: their errors come through as well.
DEPENDENCIES = ('google.auth', 'google.api_core', 'aiohttp', 'botocore', 'aiobotocore')
PATTERN = '[]*?\\'  # characters with a meaning in patterns of file names
logging.getLogger('gcsfs').setLevel(logging.CRITICAL)  # it logs every error that it raises


class WorkdirError(ValueError):
  """A workdir that cannot be used: of another run, in use, or not writable."""


class BucketError(argparse.ArgumentTypeError, ValueError):
  """A bucket that cannot be reached from here; argparse shows its text where a flag names one."""


class Unreachable(OSError):
  """A bucket did not answer: raised in the processes that wait for process 0."""


def place(text) -> pathlib.Path:
  """The path that a text names: of a bucket where it has a scheme, with the same methods.

  Raises:
    BucketError: there is no such kind of bucket, or a package is missing.
  """
  if not str(text):
    raise BucketError('no folder is named; write one, . for this folder')
  scheme, separator, bucket = str(text).partition('://')
  if not separator:
    return pathlib.Path(text)
  if scheme not in LIBRARIES:
    raise BucketError(f'{text}: {scheme}:// is not a bucket; write gs://... or s3://....')
  if not bucket.strip('/'):
    raise BucketError(f'{text} names no bucket; write {scheme}://BUCKET/DIR.')
  if importlib.util.find_spec(LIBRARIES[scheme]) is None:
    raise BucketError(f'{text} needs one more package: pip install {LIBRARIES[scheme]}.')
  from etils import epath  # slow to import, and few paths are of a bucket

  return epath.Path(text)


def failed(error: Exception) -> bool:
  """Whether a bucket did not answer; the libraries that reach them raise errors of many kinds."""
  if isinstance(error, Unreachable):
    return True
  module = type(error).__module__ + '.'
  return any(module.startswith(f'{name}.') for name in (*LIBRARIES.values(), *DEPENDENCIES))


def in_bucket(path: pathlib.Path | str) -> bool:
  """Whether the path is in a bucket; for this folder, whose functions hide the difference."""
  return '://' in str(path)


def seen_by_all(path: pathlib.Path | str) -> bool:
  """Whether machines without a common disk see the path, and can tell who works on it."""
  return in_bucket(path)


def absolute(path: pathlib.Path) -> pathlib.Path:
  """The absolute path; one of a bucket is already."""
  return path if in_bucket(path) else path.absolute()


def check_plain(path: pathlib.Path) -> None:
  """Raises WorkdirError where orbax would read characters of the path as a pattern."""
  if found := sorted({*str(path)} & {*PATTERN}):
    raise WorkdirError(
      f'{path} has {" and ".join(found)}, by which no checkpoint would be found again; choose a '
      f'--workdir without any of {" ".join(PATTERN)}.'
    )


def check_on_disk(path: pathlib.Path, field: str) -> None:
  """Raises ValueError where the config field writes by a library that knows disks only."""
  if in_bucket(path):
    raise ValueError(f'{field} writes to a disk, and the workdir is {path}; unset it.')


def modified(path: pathlib.Path) -> float:
  """When the file was last written, in seconds since the epoch."""
  return path.stat().mtime if in_bucket(path) else path.stat().st_mtime
