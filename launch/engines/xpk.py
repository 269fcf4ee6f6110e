"""Jobs of a sweep as xpk workloads: JobSet and Kueue on a GKE cluster of TPUs."""

import dataclasses
from collections.abc import Mapping

from launch.engines.base import STOPPED, Engine, Submission


@dataclasses.dataclass(frozen=True, kw_only=True)
class Xpk(Engine):
  """Settings of xpk; the workdir is a bucket, and the image holds this repository.

  Attributes:
    project: Google Cloud project.
    zone: of the cluster.
    cluster: created by `xpk cluster create`.
    tpu_type: 'v5litepod-8' and so on.
    image: Docker image, see launch/tpu.Dockerfile.
    priority: in Kueue, very-low to very-high.
    restarts: maximum after preemptions; a job that fails by itself does not run again.
    notice: seconds that a run has to save when it is terminated.
    spot: cheaper, and may be preempted at any time.
  """

  kind = 'xpk'
  longest = 40
  needs = ('xpk', 'gcloud', 'kubectl')
  signed_in = ('gcloud', 'auth', 'print-access-token', '--quiet')

  project: str
  zone: str
  cluster: str
  tpu_type: str
  image: str
  priority: str = 'medium'
  restarts: int = 50
  notice: int = 120
  spot: bool = False

  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """A workload of one slice per share."""
    made = []
    for i, name in names.items():
      flags = {
        'workload': name, 'cluster': self.cluster, 'project': self.project, 'zone': self.zone,
        'tpu-type': self.tpu_type, 'num-slices': 1, 'docker-image': self.image,
        'priority': self.priority, 'max-restarts': self.restarts,
        'restart-on-exit-codes': STOPPED, 'termination-grace-period-seconds': self.notice,
        'command': self.work(jobs_file, str(i), count),
      }  # fmt: skip
      command = ('xpk', 'workload', 'create', *(f'--{k}={v}' for k, v in flags.items()))
      made.append(Submission(name, (*command, '--spot') if self.spot else command))
    return made
