"""Jobs of a sweep as queued resources: TPU VMs that Google Cloud creates when available."""

import dataclasses
import re
from collections.abc import Mapping

from launch.engines.base import Engine, Submission
from pe_research.common import checks

LONGEST = 7 * 24  # hours of flex-start (cloud.google.com/tpu/docs/request-using-flex-start)
CHIPS = ('v5litepod', 'v6e')  # types named by chips; a machine has up to eight
CORES = ('v2', 'v3', 'v4', 'v5p')  # types named by cores, two per chip; a machine has four chips


def machines(tpu_type: str) -> int:
  """Number of VMs of a TPU type (cloud.google.com/tpu/docs); 0 for an unknown type.

  Raises:
    ValueError: not the name of a type.
  """
  named = re.fullmatch(r'([a-z0-9]+)-(\d+)', tpu_type)
  if not named:
    raise ValueError(f"tpu_type = {tpu_type!r} is not a type; write for example 'v5litepod-8'.")
  family, size = named[1], int(named[2])
  if family in CHIPS:
    return 1 if size <= 8 else size // 4
  return max(1, size // 8) if family in CORES else 0


def delimited(values: Mapping[str, str]) -> str:
  """A list for gcloud, by a delimiter that no value has (gcloud topic escaping)."""
  text = ''.join(values.values())
  delimiter = next(one for one in (';', '|', '#', '!', ';;;;') if one not in text)
  return f'^{delimiter}^' + delimiter.join(f'{k}={v}' for k, v in values.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gcloud(Engine):
  """Settings of queued resources; the workdir is a bucket.

  Attributes:
    project: Google Cloud project.
    zone: with TPUs of the type.
    tpu_type: 'v5litepod-8' and so on.
    runtime: version of the VM's software, which the type decides.
    repository: URL that the VMs clone.
    commit: full hash.
    spot: cheaper, and may be preempted at any time.
    flex_hours: flex-start in place of spot: VMs that are not preempted and are deleted after so
      many hours; 0: none.
    service_account: of the VMs; it reads and writes the bucket, and deletes the VM.
  """

  kind = 'gcloud'
  longest = 61
  needs = ('gcloud',)
  signed_in = ('gcloud', 'auth', 'print-access-token', '--quiet')

  project: str
  zone: str
  tpu_type: str
  runtime: str
  repository: str
  commit: str
  spot: bool = True
  flex_hours: int = 0
  service_account: str = ''

  def __post_init__(self):
    """Raises ValueError for an invalid setting."""
    super().__post_init__()
    found = machines(self.tpu_type)
    if found and found != self.hosts:
      raise ValueError(
        f'hosts = {self.hosts}, and {self.tpu_type} has {found}; set hosts = {found}.'
      )
    checks.at_most('flex_hours', self.flex_hours, LONGEST, 'hours')
    if self.flex_hours and self.spot:
      raise ValueError(f'flex_hours = {self.flex_hours} is in place of spot; set spot = false.')

  def submissions(self, jobs_file: str, names: Mapping[int, str], count: int) -> list[Submission]:
    """A queued resource per share; launch/tpu_vm.sh is the startup script of its VMs."""
    made = []
    for i, name in names.items():
      metadata = {
        'pe-repository': self.repository, 'pe-commit': self.commit, 'pe-checkout': self.checkout,
        'pe-command': self.work(jobs_file, str(i), count), 'pe-name': name,
      }  # fmt: skip
      flags = {
        'node-id': name, 'project': self.project, 'zone': self.zone,
        'accelerator-type': self.tpu_type, 'runtime-version': self.runtime,
        'metadata': delimited(metadata),
        'metadata-from-file': 'startup-script=launch/tpu_vm.sh',
      }  # fmt: skip
      flags |= {'service-account': self.service_account} if self.service_account else {}
      if self.flex_hours:
        flags |= {'provisioning-model': 'flex-start', 'max-run-duration': f'{self.flex_hours}h'}
      release = ('gcloud', 'alpha') if self.flex_hours else ('gcloud',)
      command = (*release, 'compute', 'tpus', 'queued-resources', 'create', name)
      command += tuple(f'--{k}={v}' for k, v in flags.items())
      made.append(Submission(name, (*command, '--spot') if self.spot else command))
    return made
