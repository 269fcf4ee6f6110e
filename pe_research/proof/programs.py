"""A program without and with the scheme.

Two runs whose programs agree with the scheme taken out differ in their scheme alone. A scheme, a
page, a comment or a name changes no such program; a constant, a dtype or an operation of model,
loss, optimizer or scoring does.
"""

import dataclasses
import functools
import importlib.metadata
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from pe_research.common import digest, nested, provenance
from pe_research.machines import jax_setup
from pe_research.proof import program_store
from pe_research.settings import protocols

WITHOUT = ('run', 'start', 'seed')  # parts of a config that decide no program
SETTINGS = str, bool, int, float, type(None)  # of JAX: those of these types may change a program


@dataclasses.dataclass(frozen=True)
class Program:
  """A program as program_text writes it."""

  text: str

  @functools.cached_property
  def digest(self) -> str:
    """sha256 of the text."""
    return digest.of_bytes(self.text.encode())


@dataclasses.dataclass(frozen=True)
class Both:
  """A program without and with the scheme.

  Attributes:
    shared: of the same config with the scheme taken out.
    own: as it is.
  """

  shared: Program
  own: Program


def keep(workdir: pathlib.Path, shown: Iterable[Both]) -> None:
  """Adds the texts of programs to those that a workdir has."""
  found = [program for both in shown for program in (both.shared, both.own)]
  program_store.add(workdir, {program.digest: program.text for program in found})


def interpreted(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config whose programs are shown: a kernel's own operations in place of a call of it."""
  plain = lambda kind: 'interpreted' if kind == 'pallas' else kind
  changed = {
    part: dict(config[part]) | {'implementation': plain(config[part]['implementation'])}
    for part in ('attention', 'eval')
  }
  return dict(config) | changed


def text(kind: str, config: Mapping[str, Any], make) -> str:
  """`make(config)`, with products as precise as the config has them."""
  decides = {k: v for k, v in config.items() if k not in WITHOUT}
  decides['eval'] = {k: v for k, v in config['eval'].items() if k not in protocols.SELECTION}
  decides['data'] = {k: v for k, v in config['data'].items() if k != 'seed'}
  key = digest.of_json([kind, nested.flat(decides), _tracing()])
  with jax.default_matmul_precision(config['matmul_precision']):
    return program_store.kept(key, lambda: make(config))


@functools.cache
def _tracing() -> list:
  """What a program depends on beside its config and this code: packages and settings of JAX."""
  versions = {
    name: importlib.metadata.version(name) for name in (*provenance.PACKAGES, 'ml-dtypes')
  }
  settings = {k: v for k, v in sorted(jax.config.values.items()) if isinstance(v, SETTINGS)}
  own = {k: v for k, v in settings.items() if not re.search('cache|dir|log|dump|matmul', k)}
  return [versions, own, jax_setup.environment()]
