"""A task, trained on sizes up to `size` and tested on larger ones.

--config=configs/tasks.py:task=reverse,position=rope,size=20

Examples are generated on the fly; `length` follows from the size. Model and training are those of
lm.py.
"""

import ml_collections

from configs import lm
from pe_research.common import checks
from pe_research.data import tasks
from pe_research.settings import configs


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of one task and scheme."""
  arg = configs.parse_arg(arg, task='copy', size=20, position='rope', preset='published', seed=0)
  checks.choose('task', arg.task, tasks.TASKS)
  checks.at_least('size', arg.size, 1, tasks.TASKS[arg.task].unit)
  checks.at_most('size', arg.size, configs.LARGEST['data.task_size'])
  length = tasks.tokens(arg.task, arg.size) - 1
  config = lm.get_config(
    f'position={arg.position},preset={arg.preset},length={length},seed={arg.seed}'
  )
  config.data.task = arg.task
  config.data.task_size = arg.size
  config.eval.protocols = ('task',)
  config.eval.controls = ('exact', 'teacher')
  config.eval.lengths = tuple(
    dict.fromkeys(max(1, round(arg.size * share)) for share in (0.5, 1, 1.5, 2))
  )
  config.eval.windows = 200
  return config
