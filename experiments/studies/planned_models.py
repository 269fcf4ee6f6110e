"""One model of a plan at one seed, and the jobs that make and measure it."""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.studies import measured, study
from launch.job import Job
from pe_research.common import digest
from pe_research.storage import files

DIGITS = 10  # of a key in the name of a directory


@dataclasses.dataclass
class Node:
  """A model at one seed: trained, fine-tuned, or the weights of another under another scheme.

  Attributes:
    key: digest of everything that determines its results.
    config: its resolved config.
    workdir: the directory of its config, record and rows.
    flags: the flags of pe_research.main, or of pe_research.evaluate if nothing is trained.
    start: the node whose weights it starts from, or None.
    search: the search of its factors, or None.
    trains: whether it has a training run.
    wanted: its measurements, PROTOCOL/CONTROL/LENGTH.
  """

  key: str
  config: dict[str, Any]
  workdir: pathlib.Path
  flags: list[str]
  start: 'Node | None' = None
  search: Job | None = None
  trains: bool = True
  wanted: set[str] = dataclasses.field(default_factory=set)

  @property
  def done(self) -> pathlib.Path:
    """The last file of its training."""
    return self.workdir / 'done.json'

  @property
  def family(self) -> str:
    """The name of its directory without the key."""
    return self.workdir.name.rpartition('-')[0]

  @property
  def weights(self) -> 'Node':
    """The node whose training made the weights."""
    return self if self.trains else self.start.weights

  @property
  def root(self) -> 'Node':
    """The first node of its chain of starts."""
    return self.start.root if self.start else self

  def job_names(self) -> tuple[str, str]:
    """The names of its training and of its measurements, whether it has them or not."""
    return self.workdir.name, f'{self.workdir.name} measured'

  def training_job(self) -> Job:
    """Trains it, after the weights and the search that it starts from."""
    after = [self.start.done] if self.start else []
    after += [self.search.done] if self.search else []
    return study.train(self.job_names()[0], self.workdir, self.flags, after)

  def measurement_job(self) -> Job:
    """Measures everything that is wanted of it."""
    wanted = sorted(self.wanted)
    done = self.workdir / f'measured-{digest.of_json(wanted)[:DIGITS]}.json'
    after = (self.weights.done,)
    after += (self.search.done,) if self.search and not self.trains else ()
    flags = [f'--workdir={self.workdir}'] if self.trains else self.flags
    command = ('-m', 'pe_research.evaluate', *flags, f'--done={done}')
    command += tuple(f'--measurement={text}' for text in wanted)
    return Job(self.job_names()[1], command, self.workdir / 'measure.txt', done, after)

  def missing_rows(self) -> list[str]:
    """Measurements that are done, by its files, and have no row: the file of rows was cut off."""
    if not (self.wanted and self.measurement_job().done.exists()):
      return []
    rows = files.read_rows(self.workdir / 'results.jsonl')
    return sorted(self.wanted - {measured.measurement_id(row) for row in rows})


def jobs_of(models: Mapping[str, Sequence[Node]]) -> dict[str, Job]:
  """The jobs of the nodes of models by name, their searches included."""
  jobs: list[Job] = []
  for node in itertools.chain(*models.values()):
    jobs += [node.training_job()] if node.trains else []
    jobs += [node.search] if node.search else []
    jobs += [node.measurement_job()] if node.wanted else []
  return {job.name: job for job in jobs}
