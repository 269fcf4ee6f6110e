"""Sets of the tensorflow-datasets catalogue: their names, and how to prepare them."""

import contextlib
import difflib
import importlib
import pathlib
import re
import socket
import textwrap
import urllib.parse

import tensorflow_datasets as tfds


def base_name(name: str) -> str:
  """The set's name without config and version: 'c4' of 'c4/en:3.1.0'."""
  return re.split('[/:]', name, maxsplit=1)[0]


def registered() -> set[str]:
  """Names of the catalogue.

  tfds stops at the first legacy group that needs a package which is not installed (h5py), before
  its text sets; so these are imported first.
  """
  for group in ('text', 'summarization', 'question_answering'):
    with contextlib.suppress(ImportError):
      importlib.import_module(f'tensorflow_datasets.{group}')
  return set(tfds.list_builders(with_community_datasets=False))


def unknown(name: str) -> ValueError:
  """The error for a name that is neither a set nor a folder."""
  near = difflib.get_close_matches(base_name(name), sorted(registered()), n=3)
  hint = f' Did you mean {" or ".join(near)}?' if near else ''
  return ValueError(
    f'{name!r} is neither a text set nor an existing folder.{hint} Choose state_of_the_union, '
    "python_library, the path of a folder of text files, or a tfds name such as 'lm1b:1.1.0'."
  )


def builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
  """The builder of a name as tfds writes them, 'set/config:1.0.0'; ValueError if it has none."""
  try:
    return tfds.builder(name, data_dir=data_dir)
  except Exception as error:  # an assertion for a version, a ValueError for a config
    reason = textwrap.shorten(str(error), width=300)
    raise ValueError(
      f'tfds cannot open {name!r}: {reason} Check config and version, or leave them out.'
      + prepared(name, data_dir)
    ) from error


def prepare(name: str, data_dir: str, target: tfds.core.DatasetBuilder) -> None:
  """Prepares the set if its server answers; else ValueError with the command to run elsewhere."""
  url = next(iter(target.url_infos or ()), 'https://storage.googleapis.com')
  if not connected(url):
    host = urllib.parse.urlsplit(url).hostname
    raise ValueError(
      f'{name!r} is not prepared in {data_dir}, and {host} cannot be reached from here. '
      + instructions(name, data_dir)
      + prepared(name, data_dir)
    )
  try:
    target.download_and_prepare(file_format='array_record')
  except Exception as error:  # whatever the set's own code raises
    raise ValueError(
      f'preparing {name!r} in {data_dir} failed with {type(error).__name__}: '
      f'{textwrap.shorten(str(error), width=300)} ' + instructions(name, data_dir)
    ) from error


def prepared(name: str, data_dir: str) -> str:
  """A sentence that names the configs and versions of the set in `data_dir`; '' if it has none."""
  root, folder = pathlib.Path(data_dir), base_name(name)
  found = sorted(path.parent for path in (root / folder).rglob('dataset_info.json'))
  names = [f'{path.parent.relative_to(root).as_posix()}:{path.name}' for path in found]
  return f' Prepared there: {", ".join(names)}.' if names else ''


def instructions(name: str, data_dir: str) -> str:
  """How to prepare the set on another machine and bring it here."""
  return (
    'On a machine with a network (and `pip install tensorflow apache-beam h5py` where the set asks '
    'for them) run `python -c "import tensorflow_datasets as tfds, tensorflow_datasets.text; '
    f"tfds.builder('{name}', data_dir='tfds_data')"
    ".download_and_prepare(file_format='array_record')\"` "
    f'and copy tfds_data/{base_name(name)} to {data_dir}/{base_name(name)}.'
  )


def connected(url: str, seconds: float = 3.0) -> bool:
  """Whether the server of `url` takes a connection within `seconds`."""
  parts = urllib.parse.urlsplit(url)
  port = parts.port or (80 if parts.scheme == 'http' else 443)
  try:
    socket.create_connection((parts.hostname, port), timeout=seconds).close()
  except OSError:
    return False
  return True
