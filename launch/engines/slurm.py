"""Jobs of a sweep as one array job of Slurm."""

import dataclasses
import os
import shlex
from collections.abc import Mapping

from launch.engines.base import STOPPED, Engine, Submission

SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={sweep}
#SBATCH --array={shares}%{at_once}
#SBATCH --nodes={hosts}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cores}
#SBATCH --time={time}
#SBATCH --partition={partition}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={logs}/%x-%a.log
#SBATCH --signal=TERM@{notice}
set -uo pipefail

# Each machine of the job runs and expands this. None is killed when another ends: it may be saving,
# and a process that loses its peers exits by itself.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 --wait=0 --cpus-per-task={cores} bash -c '{work}'
status=$?
if (( status == {stopped} )); then  # terminated early; the same command resumes
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slurm(Engine):
  """Settings of Slurm; the workdir is on a disk that all machines share.

  Attributes:
    partition: to queue in.
    logs: existing folder for the output of the jobs.
    time: limit of a job in Slurm's format; a job that is not done by then is queued again.
    gpus: of each machine.
    cores: of each machine.
    at_once: machines, or groups of `hosts` machines, in use at a time.
    notice: seconds before the limit at which runs are told to save.
  """

  kind = 'slurm'
  longest = 200
  needs = ('sbatch', 'srun', 'scontrol')
  signed_in = ('sinfo', '--noheader')  # asks the cluster
  shares_disk = True
  positive = (*Engine.positive, 'cores', 'at_once')

  partition: str
  logs: str
  time: str = '24:00:00'
  gpus: int = 8
  cores: int = 16
  at_once: int = 8
  notice: int = 180

  def check_tools(self) -> None:
    """Raises ValueError also if Slurm could not write the output of jobs."""
    super().check_tools()
    if not os.path.isdir(self.logs):
      raise ValueError(
        f'logs = {self.logs!r} is not a folder, and Slurm ends jobs that cannot write there: '
        f'mkdir -p {shlex.quote(self.logs)}. Nothing was created.'
      )

  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """One array job with a task per share; Slurm allows several of one name."""
    work = self.work(jobs_file, '$SLURM_ARRAY_TASK_ID', count)
    settings = dataclasses.asdict(self)
    text = SCRIPT.format(
      shares=','.join(map(str, names)), work=work.replace("'", "'\\''"), stopped=STOPPED, **settings
    )
    return [Submission(self.sweep, ('sbatch', f'{self.sweep}.sh'), {f'{self.sweep}.sh': text})]
