"""What runs may differ in, in words, and the fields of a config that may explain it."""

MODEL = ('config.model.', 'config.attention.', 'config.length', 'config.matmul_precision',
         'config.data.vocab', 'config.data.task', 'config.data.packing')  # fmt: skip
STEP = (*MODEL, 'config.optimizer.', 'config.steps')
TEXT = tuple(f'config.data.{name}' for name in (
  'source', 'train_split', 'validation_split', 'validation_fraction', 'tokenizer', 'vocab', 'limit',
  'loader', 'task',
))  # fmt: skip
BATCHES = 'config.data.', 'config.length', 'config.optimizer.batch'
EVAL = tuple(f'config.eval.{name}' for name in (
  'reach', 'targets', 'windows', 'stride', 'tokens', 'batch_tokens', 'implementation',
))  # fmt: skip
SCORED = (*EVAL, *TEXT, 'config.length', 'config.data.task_size')
# What differs -> in words, and the fields of a config that may explain it.
REASONS: dict[str, tuple[str, tuple[str, ...]]] = {
  'program.step': ('the training programs differ outside the scheme', STEP),
  'program.initial': ('the programs of the initial states differ', (*STEP, 'config.start.')),
  'batch_order': ('batches are put together in different ways', BATCHES),
  'attention': (
    'attention is computed in different ways', ('config.attention.', 'config.eval.impl')
  ),
  'data.': ('the texts differ', TEXT),
  'start.parameters': ('they start from different weights', ('config.start.',)),
  'initial_parameters': ('the initial parameters differ', MODEL),
  'batches': ('the batches differ', (*BATCHES, 'config.steps')),
  'steps': ('one was trained for more steps', ('config.steps',)),
  'program': ('the programs that score differ outside the scheme', (*MODEL, *EVAL)),
  'inputs': ('different windows were scored', SCORED),
  'targets': ('different targets were scored', SCORED),
  'tokens': ('different numbers of tokens were scored', SCORED),
  'bytes': ('different numbers of bytes were scored', SCORED),
  'arithmetic': ('rows are computed from losses in different ways', ('config.data.task',)),
  'environment': ('they were measured with different versions, flags or devices', ()),
  'own_program': ('the programs of one scheme differ, so its runs are no repetitions', ()),
}  # fmt: skip
OF_A_SEED = 'start.parameters', 'initial_parameters', 'batches', 'steps'
OF_A_ROW = ('program', 'attention', 'inputs', 'targets', 'tokens', 'bytes', 'arithmetic',
            'environment')  # fmt: skip
