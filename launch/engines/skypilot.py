"""Jobs of a sweep as managed jobs of SkyPilot: spot machines of several clouds, with recovery."""

import dataclasses
from collections.abc import Mapping

from launch.engines.base import STOPPED, Engine, Submission, to_yaml


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skypilot(Engine):
  """Settings of SkyPilot; the workdir is a bucket, which is not mounted.

  Attributes:
    accelerators: of a machine: 'H100:8', 'tpu-v5litepod-8' and so on.
    cloud: '' takes the cheapest.
    spot: cheaper, and may be preempted at any time.
    restarts: maximum after failures of the job itself.
    requirements: file of this repository for the accelerators.
  """

  kind = 'skypilot'
  longest = 60
  needs = ('sky',)
  signed_in = ('sky', 'check')

  accelerators: str
  checkout: str = '.'  # where SkyPilot copies the repository to, and runs it
  cloud: str = ''
  spot: bool = True
  restarts: int = 3
  requirements: str = 'launch/requirements-cuda.txt'

  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """A managed job per share, each described in a file."""
    packages = f'-r {self.requirements}' + (' s3fs' if jobs_file.startswith('s3:') else '')
    made = []
    for i, name in names.items():
      resources = {
        'accelerators': self.accelerators, 'use_spot': self.spot,
        'job_recovery': {
          'max_restarts_on_errors': self.restarts, 'recover_on_exit_codes': [STOPPED],
        },
      }  # fmt: skip
      task = {
        'name': name,
        'resources': resources | ({'infra': self.cloud} if self.cloud else {}),
        'num_nodes': self.hosts,
        'workdir': '.',
        'setup': f'python3 -m venv .venv\n.venv/bin/pip install {packages}\n',
        'run': self.work(jobs_file, str(i), count) + '\n',
      }
      command = ('sky', 'jobs', 'launch', '--yes', '--detach-run', '--name', name, f'{name}.yaml')
      made.append(Submission(name, command, {f'{name}.yaml': to_yaml(task)}))
    return made
