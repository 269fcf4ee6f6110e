"""Several processes of one run: that they run the same thing, in the same place."""

import contextlib
import json
import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from pe_research.common import nested, provenance
from pe_research.machines import exits
from pe_research.storage import files, locks, paths


def check_alike(what: str, value: Mapping[str, Any]) -> None:
  """Raises ValueError, in every process, where one has another value than process 0."""
  if jax.process_count() == 1:
    return
  texts = _texts(json.dumps(value, sort_keys=True, default=str))
  for rank, text in enumerate(texts):
    if text != texts[0]:
      changed = nested.difference(json.loads(texts[0]), json.loads(text))
      raise ValueError(
        f'processes 0 and {rank} disagree about {what}:\n  ' + '\n  '.join(changed[:20])
        + '\nStart all of them with the same command and the same code.'
      )  # fmt: skip


def _texts(mine: str) -> list[str]:
  """The text of every process, in each of them."""
  if jax.process_count() == 1:
    return [mine]
  own = mine.encode()
  sizes = multihost_utils.process_allgather(np.array(len(own), np.int32))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(own)] = np.frombuffer(own, np.uint8)
  all_of_them = multihost_utils.process_allgather(padded)
  return [bytes(row[:size]).decode() for row, size in zip(all_of_them, sizes, strict=True)]


def check_shared(workdir: pathlib.Path) -> None:
  """Raises ValueError, in every process, where one does not see what process 0 writes there."""
  if jax.process_count() == 1:
    return
  mark = workdir / '.shared'
  token = np.frombuffer(secrets.token_bytes(16), np.uint8)
  token = np.asarray(multihost_utils.broadcast_one_to_all(token))

  def begin() -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_bytes(mark, token.tobytes())

  by_first(begin)
  sees = mark.exists() and mark.read_bytes() == token.tobytes()
  seen = multihost_utils.process_allgather(np.array(sees))
  if jax.process_index() == 0:
    mark.unlink(missing_ok=True)
  if not seen.all():
    blind = ', '.join(str(rank) for rank, one in enumerate(seen) if not one)
    raise ValueError(
      f'workdir {workdir} is not the same directory on process {blind} as on process 0; give one '
      'on a disk that all machines share.'
    )


@contextlib.contextmanager
def hold(
  workdir: pathlib.Path, config: Mapping[str, Any], check: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], None]]:
  """Holds the workdir for all processes of a run, which must be alike.

  Args:
    workdir: of the run.
    config: of each process.
    check: is called by process 0 once it holds the workdir; raises ValueError.

  Yields:
    What `locks.claim` does in process 0, which has it; in the others what does nothing.

  Raises:
    ValueError: in all processes, where they differ in config, code or workdir, or where process 0
      does not get the workdir.
  """
  if jax.process_count() > 1:
    made_by = provenance.provenance()
    check_alike('the config', config)
    check_alike('code and versions', {k: made_by[k] for k in ('code', 'versions')})
    check_shared(workdir)
  mine = lambda: None
  with contextlib.ExitStack() as stack:

    def begin() -> None:
      nonlocal mine
      mine = stack.enter_context(locks.claim(workdir))
      check()

    by_first(begin)
    try:
      yield mine
    except Exception as error:
      status = exits.status(error)
      if jax.process_count() == 1 or status is None:
        raise
      # An exit in order waits for the others, which wait for this one in the middle of a step.
      print(f'error: {error}', file=sys.stderr, flush=True)
      os._exit(status)


def by_first(work: Callable[[], None]) -> None:
  """Process 0 does it while the others wait; an error that cli.status knows is raised in all."""
  problem, later = '', False
  try:
    if first():
      work()
  except Exception as error:
    status = exits.status(error)
    if jax.process_count() == 1 or status is None:
      raise
    problem, later = str(error) or type(error).__name__, status == exits.STOPPED
  problem, later = json.loads(_texts(json.dumps([problem, later]))[0])
  if problem:
    raise (paths.Unreachable if later else ValueError)(problem)


def first() -> bool:
  """Whether this is process 0, which alone writes and reports."""
  return jax.process_index() == 0


def me() -> str:
  """'process 3 of 8 on tpu-vm-1 (pid 4711)', for messages."""
  where = f'on {socket.gethostname()} (pid {os.getpid()})'
  return f'process {jax.process_index()} of {jax.process_count()} {where}'
