"""Names of what may differ between runs, and the fields of a config that may explain it."""

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
# Field -> its name, and the fields of a config that may explain a difference.
REASONS: dict[str, tuple[str, tuple[str, ...]]] = {
  'program.step': ('training programs without the scheme', STEP),
  'program.initial': ('initial states without the scheme', (*STEP, 'config.start.')),
  'batch_order': ('orders of batches', BATCHES),
  'attention': ('attention implementations', ('config.attention.', 'config.eval.impl')),
  'data.': ('texts', TEXT),
  'start.parameters': ('weights to start from', ('config.start.',)),
  'initial_parameters': ('initial parameters', MODEL),
  'batches': ('batches', (*BATCHES, 'config.steps')),
  'steps': ('numbers of training steps', ('config.steps',)),
  'program': ('scoring programs without the scheme', (*MODEL, *EVAL)),
  'inputs': ('scored windows', SCORED),
  'targets': ('scored targets', SCORED),
  'tokens': ('numbers of scored tokens', SCORED),
  'bytes': ('numbers of scored bytes', SCORED),
  'arithmetic': ('computations of rows from losses', ('config.data.task',)),
  'environment': ('versions, flags or devices of the measurement', ()),
  'own_program.step': ('training programs with the scheme', ()),
  'own_program.initial': ('initial states with the scheme', ()),
  'own_program': ('scoring programs with the scheme', ()),
}
OF_A_SEED = 'start.parameters', 'initial_parameters', 'batches', 'steps'
OF_A_ROW = ('program', 'attention', 'inputs', 'targets', 'tokens', 'bytes', 'arithmetic',
            'environment')  # fmt: skip


def find(field: str) -> tuple[str, str, tuple[str, ...]]:
  """The entry of REASONS for a field, its name and its reasons; ('', field, ()) without one."""
  entry = next((known for known in REASONS if f'{field}.'.startswith(f'{known.rstrip(".")}.')), '')
  return (entry, *REASONS.get(entry, (field, ())))
