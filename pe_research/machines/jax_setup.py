"""Settings of JAX for a run: matmul precision, and the cache of compiled programs."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from pe_research.common import digest
from pe_research.storage import local_copies

COMPILERS = 'jax', 'jaxlib', 'flax'
FLAGS = 'XLA_FLAGS', 'LIBTPU_INIT_ARGS'
SWITCHES = ('NVIDIA_TF32_OVERRIDE',)
HARMLESS = '--xla_force_host_platform_device_count', '--xla_dump', '--xla_hlo_profile'
CACHE_BYTES = 2**30  # of compiled programs; beyond it the least recently used are removed


def prepare(config: Mapping[str, Any]) -> None:
  """Sets up JAX for a resolved config, before its first program.

  TPUs and GPUs round float32 products unless told otherwise. Programs that take over a tenth of a
  second to compile are cached on disk; JAX_COMPILATION_CACHE_DIR moves the cache and
  JAX_ENABLE_COMPILATION_CACHE=false turns it off.

  Raises:
    ValueError: the devices here do not support the config's attention implementation.
  """
  if 'pallas' in (config['attention']['implementation'], config['eval']['implementation']):
    from pe_research.attention import pallas  # see attend.attend

    pallas.check_backend()
  jax.config.update('jax_default_matmul_precision', config['matmul_precision'])
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(programs_dir()))
    jax.config.update('jax_compilation_cache_max_size', CACHE_BYTES)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def environment() -> dict[str, Any]:
  """What decides numbers besides programs and their inputs: compiler, device, flags."""
  device = jax.devices()[0]
  versions = {f'version.{name}': importlib.metadata.version(name) for name in COMPILERS}
  return versions | {'device': f'{device.platform} {device.device_kind}', 'flags': flags()}


def flags() -> list[str]:
  """Flags of XLA and its drivers that may change numbers, in order: all but the HARMLESS."""
  given = [word for name in FLAGS for word in os.environ.get(name, '').split()]
  given += [f'{name}={os.environ[name]}' for name in SWITCHES if name in os.environ]
  return [word for word in given if not word.startswith(HARMLESS)]


def programs_dir() -> pathlib.Path:
  """The cache of compiled programs for processors like this one, under `local_copies.home`.

  A CPU program depends on the processor's instructions and on the number of cores that the process
  may use, so each combination has its own folder.
  """
  processor = platform.machine() + platform.processor()
  if pathlib.Path('/proc/cpuinfo').exists():
    lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    processor += next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  kind = digest.of_json({'processor': processor, 'cores': cores})[:16]
  return local_copies.home() / 'compiled' / kind
