"""How a command ends: one-line errors and exit statuses; and malloc settings of its process."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from pe_research.storage import paths

STOPPED = 75  # exit status of work that stopped early and that the same command resumes
TUNABLES = 'glibc.malloc.hugetlb=1'  # huge pages: XLA's CPU backend allocates at every call


def status(error: Exception) -> int | None:
  """Exit status for an error: 2 for a user's mistake, None for a bug.

  STOPPED where a bucket did not answer, as it may answer later.
  """
  if paths.failed(error):
    return STOPPED
  return 2 if isinstance(error, ValueError | OSError) else None


@contextlib.contextmanager
def errors() -> Iterator[None]:
  """Prints errors that have a `status` and exits with it; PE_TRACEBACK=1 shows the traceback."""
  try:
    yield
    sys.stdout.flush()
  except BrokenPipeError:  # the reader of the output has gone: `... | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None
  except Exception as error:
    code = status(error)
    if os.environ.get('PE_TRACEBACK') or code is None:
      raise
    hint = ' Is the bucket there, and are you signed in where it is?' if code == STOPPED else ''
    print(f'error: {shown(str(error)) or type(error).__name__}{hint}', file=sys.stderr)
    raise SystemExit(code) from error


def shown(text: str) -> str:
  """A message for a terminal: long words shortened, control characters but newlines escaped."""
  text = re.sub(r'\S{400,}', lambda word: f'{word[0][:80]}... ({len(word[0])} characters)', text)
  return ''.join(c if c == '\n' or c.isprintable() else c.encode('unicode_escape').decode()
                 for c in text)  # fmt: skip


def restart_tuned() -> None:
  """Restarts this process with huge pages for malloc, which only a new process can set.

  Training steps gain 15 to 30 % on a CPU; results are the same bits.
  """
  if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
    os.environ['GLIBC_TUNABLES'] = TUNABLES
    os.execv(sys.executable, sys.orig_argv)
