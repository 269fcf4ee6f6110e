"""Rows of compiled programs: each is computed once, in a process of its own, and kept in a file."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.bench.scale_formula import MACHINES
from pe_research.storage import files

Flags = Mapping[str, str]  # of the command that prints a row; the row has the same values


def rows(
  file: pathlib.Path,
  module: str,
  wanted: Sequence[tuple[str, Flags]],
  is_whole: Callable[[Mapping[str, Any]], bool] = lambda row: True,
) -> list[dict[str, Any]]:
  """The rows of a file; those that are missing are computed first.

  Args:
    file: of all rows.
    module: the module that prints one row.
    wanted: machine and flags of each row.
    is_whole: whether a kept row need not be computed again.
  """
  names = tuple(wanted[0][1])
  kept = {tuple(row[name] for name in names): row for row in files.read_rows(file)}
  for machine, flags in wanted:
    key = tuple(flags.values())
    if key not in kept or not is_whole(kept[key]):
      kept[key] = _compute(module, machine, flags)
      files.append_row(file, kept[key])
      print(f'{file.stem}: {flags["size"]} on {machine}', flush=True)
  return [kept[tuple(flags.values())] for _, flags in wanted]


def _compute(module: str, machine: str, flags: Flags) -> dict[str, Any]:
  """A row from a process with as many devices as the machine has chips."""
  devices = f'--xla_force_host_platform_device_count={MACHINES[machine].chips}'
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': devices}
  command = [sys.executable, '-m', module, *(f'--{name}={text}' for name, text in flags.items())]
  done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
  if done.returncode:
    raise ChildProcessError(f'{dict(flags)}: {done.stderr.strip().splitlines()[-1]}')
  return json.loads(done.stdout.splitlines()[-1])
