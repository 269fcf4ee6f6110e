"""Jobs of a sweep as JobSets of Kubernetes, on slices of TPUs of a GKE cluster, queued by Kueue."""

import dataclasses
import math
import re
from collections.abc import Mapping

from launch.engines.base import STOPPED, Engine, Submission, to_yaml

CHIPS = (1, 2, 4, 8)  # that a machine of GKE may have


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobSet(Engine):
  """Settings of JobSets; the workdir is a bucket, and the image holds this repository.

  Attributes:
    context: of kubectl, for the cluster: 'gke_PROJECT_ZONE_CLUSTER'.
    queue: Kueue's LocalQueue in the namespace.
    accelerator: as nodes are labelled: 'tpu-v5-lite-podslice', 'tpu-v6e-slice' and so on.
    topology: chips of a slice: '2x4', '2x2x2'; its machines have equal parts of them.
    image: Docker image, see launch/tpu.Dockerfile.
    namespace: where the queue is.
    service_account: of Kubernetes; it reads and writes the bucket.
    restarts: maximum after machines were lost; a job that fails by itself does not run again.
    notice: seconds that a run has to save when it is terminated.
    spot: cheaper, and may be preempted at any time; GKE gives 15 s of notice, or more if nodes are
      configured so.
  """

  kind = 'jobset'
  longest = 40
  needs = ('kubectl',)

  context: str
  queue: str
  accelerator: str
  topology: str
  image: str
  namespace: str = 'default'
  service_account: str = 'default'
  restarts: int = 50
  notice: int = 120
  spot: bool = False

  def __post_init__(self):
    """Raises ValueError for an invalid setting."""
    super().__post_init__()
    if not re.fullmatch(r'[1-9]\d*(x[1-9]\d*){1,2}', self.topology):
      raise ValueError(f"topology = {self.topology!r} is none; write for example '2x4' or '2x2x2'.")
    if self.chips * self.hosts != self._slice or self.chips not in CHIPS:
      raise ValueError(
        f'hosts = {self.hosts}, and topology = {self.topology!r} has {self._slice} chips; machines '
        f'have {", ".join(map(str, CHIPS))} chips each: set hosts = '
        f'{" or ".join(str(self._slice // n) for n in CHIPS[::-1] if self._slice % n == 0)}.'
      )

  @property
  def _slice(self) -> int:
    return math.prod(map(int, self.topology.split('x')))

  @property
  def chips(self) -> int:
    """Chips of a machine."""
    return self._slice // self.hosts

  @property
  def kubectl(self) -> tuple[str, ...]:
    """The program, told which cluster and namespace."""
    return 'kubectl', f'--context={self.context}', f'--namespace={self.namespace}'

  @property
  def signed_in(self) -> tuple[str, ...]:
    """Fails too where the cluster has no JobSets."""
    return *self.kubectl, 'get', 'jobsets.jobset.x-k8s.io', '--output=name'

  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """A JobSet of one slice per share, each described in a file."""
    made = []
    for i, name in names.items():
      manifest = self.manifest(name, self.work(jobs_file, str(i), count))
      command = (*self.kubectl, 'apply', '-f', f'{name}.yaml')
      made.append(Submission(name, command, {f'{name}.yaml': to_yaml(manifest)}))
    return made

  def manifest(self, name: str, work: str) -> dict:
    """The JobSet of a name that runs a shell command on each machine of a slice."""
    metadata = {'name': name, 'labels': {'kueue.x-k8s.io/queue-name': self.queue}}
    if self.hosts > 1:  # machines of one slice are a node pool of their own
      where = 'alpha.jobset.sigs.k8s.io/exclusive-topology'
      metadata['annotations'] = {where: 'cloud.google.com/gke-nodepool'}
    job = {
      'completionMode': 'Indexed', 'completions': self.hosts, 'parallelism': self.hosts,
      'backoffLimit': 0,  # the slice restarts, not a machine of it
      'podFailurePolicy': {'rules': [  # whose node is taken away has not failed by itself
        {'action': 'Count', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
        {'action': 'FailJob', 'onExitCodes': {'operator': 'NotIn', 'values': [STOPPED]}},
      ]},
      'template': {'spec': self._pod(work)},
    }  # fmt: skip
    spec = {
      'failurePolicy': {
        'maxRestarts': self.restarts,
        'rules': [
          {'name': 'failed', 'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}
        ],
      },
      'replicatedJobs': [{'name': 'slice', 'replicas': 1, 'template': {'spec': job}}],
    }
    kind = {'apiVersion': 'jobset.x-k8s.io/v1alpha2', 'kind': 'JobSet'}
    return {**kind, 'metadata': metadata, 'spec': spec}

  def _pod(self, work: str) -> dict:
    label = 'cloud.google.com/gke-'
    selector = {
      f'{label}tpu-accelerator': self.accelerator, f'{label}tpu-topology': self.topology,
    }  # fmt: skip
    spot = {'key': f'{label}spot', 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'}
    container = {
      'name': 'run', 'image': self.image,
      'command': ['bash', '-c', work.replace('$', '$$')],  # Kubernetes halves them
      'resources': {'limits': {'google.com/tpu': self.chips}},
    }  # fmt: skip
    return {
      'restartPolicy': 'Never',
      'terminationGracePeriodSeconds': self.notice,
      'serviceAccountName': self.service_account,
      'nodeSelector': selector | ({f'{label}spot': 'true'} if self.spot else {}),
      'tolerations': [spot] if self.spot else [],
      'containers': [container],
    }
