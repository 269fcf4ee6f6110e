"""A Hugging Face checkpoint on disk, measured as it is, stretched, or trained on.

--config=configs/pretrained.py:path=DIR
--config=configs/pretrained.py:path=DIR,position=yarn --config.position.factor=4
--config=configs/pretrained.py:path=DIR,position=yarn --config.position.factor=4 --config.steps=400

Sizes, options and scheme are those of the folder. By default steps is 0: the run trains nothing,
and evaluate, search and configs/finetune.py accept it like any other run.
"""

import pathlib

import ml_collections

from configs import lm
from pe_research.huggingface import importing
from pe_research.runs import lineage
from pe_research.settings import configs

RATE = 2e-5  # of fine-tuning in arXiv:2306.15595, 2309.00071 and 2402.13753


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the folder `path`; `position` picks another scheme for its weights."""
  arg = configs.parse_arg(arg, path='', position='', preset='published', length=0, seed=0)
  if not arg.path:
    raise ValueError('path is not given; name the folder of a Hugging Face checkpoint, path=DIR.')
  path = pathlib.Path(arg.path)
  source = importing.checkpoint(path, tokenizer=True).config
  length = arg.length or source['length']
  config = lm.get_config(f'length={length},seed={arg.seed}')
  config.start.pretrained = str(path.absolute())
  config.steps = 0
  for field, value in source['model'].items():
    if value is not None:
      config.model[field] = value
  name = arg.position or source['position']['name']
  config.position = configs.position(name, source['length'], arg.preset)
  config.position.update(lineage.parse_position(f'{name}:preset={arg.preset}', source))
  if not arg.position:
    config.position.update(source['position'])

  config.data.vocab = source['data']['vocab']
  tokenizer = path / importing.TOKENIZER
  if tokenizer.exists():
    config.data.tokenizer, config.data.tokenizer_file = 'json', str(tokenizer.absolute())

  config.eval.lengths = tuple(max(1, n) for n in (length // 4, length // 2, length, 2 * length))
  config.eval.targets = min(config.eval.targets, *config.eval.lengths)
  config.eval.batch_tokens = max(4_096, length)
  config.attention.implementation = 'tiled'

  optimizer = config.optimizer
  optimizer.learning_rate, optimizer.schedule = RATE, 'constant'
  optimizer.warmup, optimizer.weight_decay = 0, 0.0
  optimizer.batch = 1
  return config
