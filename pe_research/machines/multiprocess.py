"""Several processes of one run: checks that config, code and workdir are the same in all."""

import contextlib
import json
import os
import pathlib
import re
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

# Whole phrases, as no mistake of a user has them: of XLA's status, Gloo, the coordination service.
GONE = re.compile(
  r'(^|: )(UNAVAILABLE|DEADLINE_EXCEEDED): |Gloo [\w -]+ (failed|timed out): |\[Gloo\] Rank '
  r'|Connection (closed|reset) by peer|RPC to coordination service|Coordination service has '
  r'|[Bb]arrier (failed because|timed out)|heartbeat timeout|stopped sending heartbeats'
)
# What orbax says in a TimeoutError; those of sockets and file systems have other texts.
WAITED = re.compile(
  r'[Tt]imed out (after|(while )?waiting for) |Timeout waiting (at|for) |did not complete within '
)


def check_equal_across_processes(what: str, value: Mapping[str, Any]) -> None:
  """Raises ValueError, in every process, if `value` differs between processes."""
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
  """The texts of all processes by rank, in each of them."""
  if jax.process_count() == 1:
    return [mine]
  encoded = mine.encode()
  sizes = multihost_utils.process_allgather(np.array(len(encoded), np.int32))
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: len(encoded)] = np.frombuffer(encoded, np.uint8)
  gathered = multihost_utils.process_allgather(padded)
  return [bytes(row[:size]).decode() for row, size in zip(gathered, sizes, strict=True)]


def check_shared(workdir: pathlib.Path) -> None:
  """Raises ValueError, in every process, if one does not see what process 0 writes there."""
  if jax.process_count() == 1:
    return
  shared = workdir / '.shared'
  token = np.frombuffer(secrets.token_bytes(16), np.uint8)
  token = np.asarray(multihost_utils.broadcast_one_to_all(token))

  def begin() -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_bytes(shared, token.tobytes())

  on_process_0(begin)
  sees = shared.exists() and shared.read_bytes() == token.tobytes()
  seen = multihost_utils.process_allgather(np.array(sees))
  if is_process_0():
    shared.unlink(missing_ok=True)
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
  """Owns the workdir for all processes of a run, which must agree.

  Args:
    workdir: of the run.
    config: of this process.
    check: is called by process 0 once it owns the workdir; raises ValueError.

  Yields:
    In process 0 what `locks.claim` yields; in the others a function that does nothing.

  Raises:
    ValueError: in all processes, if they differ in config, code or workdir, or if process 0 does
      not get the workdir.
  """
  if jax.process_count() > 1:
    made_by = provenance.provenance()
    check_equal_across_processes('the config', config)
    check_equal_across_processes('code and versions', {k: made_by[k] for k in ('code', 'versions')})
    check_shared(workdir)
  check_owner = lambda: None
  with contextlib.ExitStack() as stack:

    def begin() -> None:
      nonlocal check_owner
      check_owner = stack.enter_context(locks.claim(workdir))
      check()

    on_process_0(begin)
    try:
      yield check_owner
    except Exception as error:
      if jax.process_count() == 1:
        raise
      status = exits.STOPPED if lost_peer(error) else exits.status(error)
      if status is None:
        raise
      # sys.exit would wait for the others, which wait for this one in the middle of a step.
      print(f'error: {error}', file=sys.stderr, flush=True)
      os._exit(status)


def lost_peer(error: BaseException | None) -> bool:
  """Whether another process has gone: the same command goes on once all are there again.

  JAX, Gloo and orbax raise this as errors of many kinds, and as causes of others.
  """
  while error is not None:
    waited = isinstance(error, TimeoutError) and WAITED.search(str(error))
    if waited or GONE.search(str(error)):
      return True
    error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
  return False


def on_process_0(work: Callable[[], None]) -> None:
  """Process 0 works while the others wait; an error that has an exits.status is raised in all."""
  problem, later = '', False
  try:
    if is_process_0():
      work()
  except Exception as error:
    status = exits.status(error)
    if jax.process_count() == 1 or status is None:
      raise
    problem, later = str(error) or type(error).__name__, status == exits.STOPPED
  problem, later = json.loads(_texts(json.dumps([problem, later]))[0])
  if problem:
    raise (paths.Unreachable if later else ValueError)(problem)


def is_process_0() -> bool:
  """Whether this is process 0, which alone writes and reports."""
  return jax.process_index() == 0


def process_name() -> str:
  """'process 3 of 8 on tpu-vm-1 (pid 4711)', for messages."""
  where = f'on {socket.gethostname()} (pid {os.getpid()})'
  return f'process {jax.process_index()} of {jax.process_count()} {where}'
