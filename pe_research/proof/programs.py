"""A program with the scheme, and with the scheme taken out.

Two runs whose programs agree with the scheme taken out differ in their scheme alone. A new scheme,
a page, a comment or a name changes no such program; a constant, a dtype or an operation of model,
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

WITHOUT = ('run', 'start', 'seed')  # parts of a config that change no program
SETTINGS = str, bool, int, float, type(None)  # types of JAX settings that may change a program


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
  """A program with the scheme taken out, `shared`, and as it is, `own`."""

  shared: Program
  own: Program


def keep(workdir: pathlib.Path, shown: Iterable[Both]) -> None:
  """Adds the texts of programs to a workdir's."""
  programs = [program for both in shown for program in (both.shared, both.own)]
  program_store.add(workdir, {program.digest: program.text for program in programs})


def interpreted(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config with Pallas kernels interpreted, so that texts show operations and not a call."""
  changed = {
    part: dict(config[part]) | {'implementation': 'interpreted'}
    for part in ('attention', 'eval')
    if config[part]['implementation'] == 'pallas'
  }
  return dict(config) | changed


def text(kind: str, config: Mapping[str, Any], make) -> str:
  """`make(config)` at the config's matmul precision, from the cache where it is there."""
  decides = {k: v for k, v in config.items() if k not in WITHOUT}
  decides['eval'] = {k: v for k, v in config['eval'].items() if k not in protocols.SELECTION}
  decides['data'] = {k: v for k, v in config['data'].items() if k != 'seed'}
  key = digest.of_json([kind, nested.flat(decides), _tracing()])
  with jax.default_matmul_precision(config['matmul_precision']):
    return program_store.kept(key, lambda: make(config))


@functools.cache
def _tracing() -> list:
  """What a program depends on besides its config and this code: packages and settings of JAX."""
  versions = {
    name: importlib.metadata.version(name) for name in (*provenance.PACKAGES, 'ml-dtypes')
  }
  settings = {k: v for k, v in sorted(jax.config.values.items()) if isinstance(v, SETTINGS)}
  own = {k: v for k, v in settings.items() if not re.search('cache|dir|log|dump|matmul', k)}
  return [versions, own, jax_setup.environment()]
