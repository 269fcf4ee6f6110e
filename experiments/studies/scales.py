"""The sizes at which claims are run: minutes on two cores, or days on accelerators."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Scale:
  """What all runs of a scale share.

  Attributes:
    name: on the command line.
    length: L in tokens; lengths of a claim are multiples of it.
    seeds: their number, unless the command says otherwise.
    task_size: largest size of a task in training.
    fields: of configs/lm.py and configs/tasks.py, by dotted name.
    task_fields: further fields of configs/tasks.py.
  """

  name: str
  length: int
  seeds: int
  task_size: int
  fields: Mapping[str, Any]
  task_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


CPU = Scale(
  'cpu',
  length=64,
  seeds=3,
  task_size=6,
  fields={
    'eval.lengths': (64,),
    'eval.reach': 4096,
    'eval.windows': 200,
    'eval.targets': 16,
    'run.save_every': 500,
    'run.log_every': 50,
    'run.keep': 1,
  },
  task_fields={'optimizer.batch': 64, 'steps': 3000},
)
ACCELERATOR = Scale(
  'accelerator',
  length=512,
  seeds=3,
  task_size=40,
  fields={
    'data.source': 'pg19',
    'data.validation_split': 'validation',
    'data.loader': 'grain',
    'model.width': 768,
    'model.layers': 12,
    'model.heads': 12,
    'model.dtype': 'bfloat16',
    'attention.implementation': 'tiled',
    'optimizer.batch': 256,
    'optimizer.accumulate': 16,  # a step of 131,072 tokens then fits a chip of 16 GB
    'optimizer.learning_rate': 6e-4,
    'optimizer.warmup': 1000,
    'steps': 50_000,
    'matmul_precision': 'default',
    'eval.lengths': (512,),
    'eval.reach': 32_768,
    'eval.windows': 200,
    'eval.targets': 128,
    'eval.batch_tokens': 65_536,
    'run.save_every': 1000,
    'run.log_every': 50,
    'run.keep': 2,
  },
  task_fields={'optimizer.batch': 512, 'steps': 40_000, 'optimizer.learning_rate': 3e-4},
)
SCALES = {scale.name: scale for scale in (CPU, ACCELERATOR)}
