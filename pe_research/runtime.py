"""What JAX takes from the process: how it rounds products, and where it keeps compiled programs."""

import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax

from pe_research import digest, nearby

CACHE_BYTES = 2**30  # of compiled programs; beyond it the longest unused go


def prepare(config: Mapping[str, Any]) -> None:
  """Sets up JAX as a resolved config says, before its first program.

  TPUs and GPUs round float32 products unless told otherwise. Programs that took over a tenth of a
  second to compile are kept for the next process; JAX_COMPILATION_CACHE_DIR moves them and
  JAX_ENABLE_COMPILATION_CACHE=false keeps none.

  Raises:
    ValueError: the devices here cannot attend as the config says.
  """
  if 'pallas' in (config['attention']['implementation'], config['eval']['implementation']):
    from pe_research import kernel  # see attend.attend

    kernel.check_backend()
  jax.config.update('jax_default_matmul_precision', config['matmul_precision'])
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update('jax_compilation_cache_dir', str(programs_dir()))
    jax.config.update('jax_compilation_cache_max_size', CACHE_BYTES)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def programs_dir() -> pathlib.Path:
  """Where programs for processors like this one are kept, under `nearby.home`.

  A program for the CPU is compiled for its instructions and for the number of cores that the
  process may use, so each of these has a folder of its own.
  """
  processor = platform.machine() + platform.processor()
  if pathlib.Path('/proc/cpuinfo').exists():
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    processor += next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  kind = digest.of_json({'processor': processor, 'cores': cores})[:16]
  return nearby.home() / 'compiled' / kind
