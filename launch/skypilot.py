"""Jobs of a sweep as managed jobs of SkyPilot: spot machines of several clouds, recovered."""

import dataclasses

import yaml

from launch.engine import Engine, Submission


class Blocks(yaml.SafeDumper):
  """Writes scripts as they are, a line a line."""

  def represent_str(self, text: str):
    """With a bar, where there are lines."""
    style = '|' if '\n' in text else None
    return self.represent_scalar('tag:yaml.org,2002:str', text, style=style)


Blocks.add_representer(str, Blocks.represent_str)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skypilot(Engine):
  """Settings of SkyPilot; a bucket is mounted where the workdir is.

  Attributes:
    accelerators: of a machine: 'H100:8', 'tpu-v5litepod-8' and so on.
    bucket: 's3://...' or 'gs://...', mounted at `mount`.
    mount: where the file of jobs and all workdirs are.
    cloud: '': whichever is cheapest.
    spot: cheaper, and may be taken away at any time.
    restarts: after a failure of the job's own.
    requirements: file of this repository for those accelerators.
  """

  kind = 'skypilot'
  longest = 60
  needs = ('sky',)
  signed_in = ('sky', 'check')

  accelerators: str
  bucket: str
  checkout: str = '.'  # where SkyPilot copies the repository to, and runs it
  mount: str = '/bucket'
  cloud: str = ''
  spot: bool = True
  restarts: int = 3
  requirements: str = 'launch/requirements-cuda.txt'

  def submissions(self, jobs_file: str, count: int) -> list[Submission]:
    """A managed job a share, each described in a file."""
    made = []
    for i, name in enumerate(self.names(count)):
      resources = {
        'accelerators': self.accelerators, 'use_spot': self.spot,
        'job_recovery': {'max_restarts_on_errors': self.restarts},
      }  # fmt: skip
      task = {
        'name': name,
        'resources': resources | ({'infra': self.cloud} if self.cloud else {}),
        'num_nodes': self.hosts,
        'workdir': '.',
        'file_mounts': {self.mount: {'source': self.bucket, 'mode': 'MOUNT'}},
        'setup': f'python3 -m venv .venv\n.venv/bin/pip install -r {self.requirements}\n',
        'run': self.work(jobs_file, str(i), count) + '\n',
      }
      text = yaml.dump(task, Dumper=Blocks, sort_keys=False)
      command = ('sky', 'jobs', 'launch', '--yes', '--name', name, f'{name}.yaml')
      made.append(Submission(name, command, {f'{name}.yaml': text}))
    return made
