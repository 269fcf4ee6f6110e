"""Fine-tuning a run to a longer context by a published recipe, at its own scale or scaled down.

--config=configs/finetune.py:start=results/demo/runs/rope_seed0,recipe=pi,factor=8,share=5

Model, data and evaluation are those of the run. `share` is the budget in percent of the tokens that
the run was trained on; 0 takes the published number of steps and batch size. Scaled down, all
recipes get the same number of tokens, the same number of tokens per step and the same schedule, so
that a comparison is of the schemes; published, each keeps its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import lm
from pe_research.common import checks
from pe_research.runs import lineage, run_folder
from pe_research.settings import configs
from pe_research.storage import paths

PEAK = 1 / 15  # of the peak rate of training: 2e-5 for 3e-4, in all of these papers


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage of a recipe that stretches the training length L to S L.

  Attributes:
    position: scheme.
    factor: of the scheme, in units of S; None if the scheme has no factor.
    length: tokens of the texts, in units of S L; None for L.
    steps: as published.
  """

  position: str
  factor: float | None
  length: float | None
  steps: int


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How a paper fine-tunes.

  Attributes:
    source: paper and section, and what they leave open.
    stages: each starts from the end of the one before.
    batch: sequences per step, as published.
    schedule: as published, see optimizers.schedule, as are the next.
    decay: share of steps in which a 'wsd' schedule falls.
    final: last learning rate over the peak.
    warmup: steps.
  """

  source: str
  stages: tuple[Stage, ...]
  batch: int
  schedule: str = 'constant'
  decay: float = 0.0
  final: float = 1.0
  warmup: int = 20


RECIPES = {
  'pi': Recipe(
    'arXiv:2306.15595, sec. 3.1: 7B to 8192; no schedule is stated after the warmup',
    (Stage('pi', 1, 1, 1000),),
    batch=64,
  ),
  'yarn': Recipe(
    'arXiv:2309.00071, sec. 4.1: s=16, then s=32 on texts of the first length; the code has a '
    'linear decay that the paper does not mention',
    (Stage('yarn', 1 / 2, 1 / 2, 400), Stage('yarn', 1, 1 / 2, 200)),
    batch=64,
  ),
  'longrope': Recipe(
    'arXiv:2402.13753, secs. 3.3 and 4.1: 128k, then 256k; texts of 128k in both (table 12)',
    (Stage('longrope', 1 / 2, 1 / 2, 400), Stage('longrope', 1, 1 / 2, 600)),
    batch=32,
    schedule='wsd',
    decay=1.0,
    final=0.0,
  ),
  'abf': Recipe(
    'arXiv:2309.16039, sec. 2.1: 32768 at 4M tokens a step; the last learning rate is not stated',
    (Stage('abf', None, 1, 100_000),),
    batch=128,
    schedule='cosine',
    final=0.1,
    warmup=2000,
  ),
  'extend': Recipe(
    'a stage of arXiv:2402.13753 alone: factors of a search, texts as long as the window',
    (Stage('longrope', 1, 1, 400),),
    batch=32,
    schedule='wsd',
    decay=1.0,
    final=0.0,
  ),
  'same': Recipe('control: more steps at the old length', (Stage('rope', None, None, 1000),), 64),
  'raw': Recipe('control: the new length, nothing stretched', (Stage('rope', None, 1, 1000),), 64),
}


def budget(base: Mapping[str, Any], length: int, share: float, part: float = 1) -> dict[str, Any]:
  """Steps and optimizer for `share` percent of the tokens that a run was trained on.

  Args:
    base: config of the run that was trained from drawn parameters.
    length: tokens of a text.
    share: percent.
    part: of these tokens that a stage gets, 0 to 1.

  Returns:
    'steps', and 'optimizer' with all of its fields.
  """
  optimizer = base['optimizer']
  step = optimizer['batch'] * base['length']  # tokens
  batch = max(1, step // length)
  steps = max(1, round(share / 100 * base['steps'] * step * part / (batch * length)))
  changed = {
    'learning_rate': PEAK * optimizer['learning_rate'],
    'weight_decay': 0.0,
    'batch': batch,
    'schedule': 'wsd',
    'decay': 1.0,
    'final': 0.0,
    'warmup': steps // 20,
  }
  return {'steps': steps, 'optimizer': dict(optimizer) | changed}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of one stage; see the module, and RECIPES for the names."""
  arg = configs.parse_arg(
    arg, start='', recipe='pi', stage=1, factor=8.0, share=5.0, file='', preset='published', seed=0
  )
  checks.choose('recipe', arg.recipe, RECIPES)
  recipe = RECIPES[arg.recipe]
  if not 1 <= arg.stage <= len(recipe.stages):
    raise ValueError(f'stage is {arg.stage}; {arg.recipe!r} has {len(recipe.stages)}.')
  checks.at_least('share', arg.share, 0, '%')
  checks.at_most('share', arg.share, 100_000, '%')
  checks.at_least('factor', arg.factor, 1)
  checks.at_most('factor', arg.factor, 100_000)
  if not arg.start:
    raise ValueError('start is not given; name the workdir of a trained run, start=DIR.')
  saved, stage = run_folder.load_config(paths.place(arg.start)), recipe.stages[arg.stage - 1]
  base = lineage.root(saved)
  published = base['start']['pretrained']
  if published and arg.share:
    raise ValueError(
      f'share is {arg.share:g} % of the tokens that {arg.start} was trained on, and the published '
      'model that it came from does not say how many. Give share=0, the published number of steps; '
      '--config.steps and --config.optimizer.batch may lower it.'
    )
  original = lineage.original_length(saved)
  length = round((stage.length or 1 / arg.factor) * arg.factor * original)

  config = lm.get_config(f'position={stage.position},length={length},seed={arg.seed}')
  for part in ('model', 'data', 'eval', 'attention'):
    config[part].update(saved[part])
  config.eval.reach = None
  config.matmul_precision = saved['matmul_precision']
  config.start.workdir = arg.start
  config.data.seed = 1_000 * arg.stage + arg.seed  # another order than in the run
  config.position.update(lineage.parse_position(f'{stage.position}:preset={arg.preset}', saved))
  if stage.factor is not None:
    config.position.factor = stage.factor * arg.factor
  if arg.file:
    config.position.file = arg.file

  optimizer = config.optimizer
  if arg.share:
    part = stage.steps / sum(s.steps for s in recipe.stages)
    scaled = budget(base, length, arg.share, part)
    config.steps = scaled['steps']
    optimizer.update(scaled['optimizer'])
  else:
    optimizer.update(base['optimizer'])
    # The config of a published model has a rate for fine-tuning, others that of training.
    optimizer.learning_rate = (1 if published else PEAK) * base['optimizer']['learning_rate']
    optimizer.weight_decay = 0.0
    config.steps, optimizer.batch = stage.steps, recipe.batch
    optimizer.schedule, optimizer.warmup = recipe.schedule, recipe.warmup
    optimizer.decay, optimizer.final = recipe.decay, recipe.final
  return config
