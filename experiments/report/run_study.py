"""The command of a study: plans it, runs its jobs and writes its reports."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pe_research.machines import exits

if TYPE_CHECKING:
  import argparse
  from collections.abc import Callable

  from experiments.studies.study import Study

  Watching = Callable[[], contextlib.AbstractContextManager[Callable[[], None] | None]]


def run_study(
  plan: Callable[[argparse.Namespace], Study],
  given: argparse.Namespace,
  watching: Watching = contextlib.nullcontext,
  finish: Callable[[Study], None] = lambda study: None,
) -> int:
  """Plans a study, then runs its jobs and writes its reports, or lists its jobs.

  Args:
    plan: gives the study; ValueError for a bad flag.
    given: the flags.
    watching: entered before the first job; gives what is called a few times a second.
    finish: called with the study once all reports are written.

  Returns:
    The exit status.
  """
  with exits.errors():
    study = plan(given)
    from experiments.report import writer  # slow to import, and a flag may have been bad
    from experiments.studies import carry_out

    if carry_out.list_jobs(study.jobs, given):
      return 0
    with watching() as watch:
      status = carry_out.carry_out(study, given.workers, writer.report, watch)
    if not status:
      finish(study)
  return status
