"""lm.py at a size that trains in seconds, for tests and for trying things out."""

import ml_collections

from configs import lm


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """As lm.get_config, tiny."""
  config = lm.get_config(arg)
  config.steps = 20
  config.model.width = 32
  config.model.layers = 2
  config.optimizer.batch = 8
  config.optimizer.warmup = 2
  config.eval.lengths = (config.length, 2 * config.length)
  config.eval.targets = min(16, config.length)
  config.eval.windows = 8
  config.eval.tokens = 2_048
  config.run.save_every = 10
  config.run.log_every = 5
  return config
