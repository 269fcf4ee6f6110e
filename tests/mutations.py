"""One-line changes of the code, and what they do to digests: run as a command, of a copy of it.

python tests/mutations.py COPY [quick] < [[[file, old, new], ...], ...]

prints one line of JSON for each list of changes; `quick` leaves out the programs of changes to what
the host alone runs.
"""

import contextlib
import importlib
import json
import pathlib
import re
import shutil
import sys

ROOT = pathlib.Path(__file__).parent.parent
# The scheme that the README adds.
SCHEME = re.search(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[1]


def traded(file: str, one: str, other: str) -> tuple[str, str]:
  """The functions of a file from that which begins with `one` on, and with `other` before it."""
  text = (ROOT / 'pe_research' / file).read_text()
  first, second = text.index(one), text.index(other)
  end = text.find('\n\n\n', second)
  moved = text[second : end if end >= 0 else len(text)].rstrip() + '\n'
  before = text[first:second]
  return before + moved, f'{moved}\n\n{before.rstrip()}\n'


# (file, what stands there, what takes its place): each changes a number of every run.
DECISIVE = [
  ('training/optimizers.py', "eps=optimizer['eps']", "eps=2 * optimizer['eps']"),
  ('training/optimizers.py', "b2=optimizer['b2']", 'b2=0.951'),
  ('training/optimizers.py', "path.endswith('kernel')", "path.endswith('scale')"),
  ('training/optimizers.py', "optax.clip_by_global_norm(optimizer['clip'])", 'optax.clip(1.0)'),
  ('training/optimizers.py',
   "last = peak * optimizer['final']", "last = peak * optimizer['final'] / 2"),
  ('model/layers.py',
   'epsilon=self.eps, dtype=dtype, rngs=rngs)', 'epsilon=2 * self.eps, rngs=rngs)'),
  ('model/layers.py', 'nnx.silu(gate) * up', 'nnx.gelu(gate) * up'),
  ('model/layers.py', 'rows = grad.reshape', 'rows = (grad * 2).reshape'),
  ('model/layers.py', "variance_scaling(std**2, 'fan_in'", "variance_scaling(std**2, 'fan_out'"),
  ('model/transformer.py', 'attended = x + out', 'attended = out + x'),
  ('model/transformer.py', 'self.model.width**0.5', 'self.model.width**0.49'),
  ('model/transformer.py',
   'preferred_element_type=jnp.float32)', 'preferred_element_type=jnp.bfloat16)'),
  ('model/transformer.py',
   'logsumexp(logits, axis=-1) - chosen', 'logsumexp(logits, axis=-1) - 1.01 * chosen'),
  ('model/transformer.py', 'out_std = (2 * model.layers)', 'out_std = (3 * model.layers)'),
  ('attention/logits.py', 'MASKED = -1e30', 'MASKED = -1e29'),
  ('attention/logits.py', 'seen = ahead >= 0', 'seen = ahead >= 1'),
  ('model/attention.py', '* spec.scale / width**0.5', '* spec.scale / width'),
  ('model/attention.py', 'q.astype(jnp.float32) * scale', 'q.astype(jnp.bfloat16) * scale'),
  ('attention/attend.py', 'weights = jnp.exp(logits', 'weights = jnp.exp2(logits'),
  ('attention/tiled.py', 'total * shrink + weights.sum(-1)', 'weights.sum(-1) + total * shrink'),
  ('training/train_step.py', 'lambda g: g / count', 'lambda g: g * (1 / count)'),
  ('training/train_step.py', 'segments[:, 1:] == segments', 'segments[:, 1:] >= segments'),
  ('training/train_step.py', "'loss': total / count", "'loss': total / (count + 1)"),
  ('common/keys.py', 'zlib.crc32(name.encode())', 'zlib.adler32(name.encode())'),
  ('evaluation/scoring.py', '.argmax(-1) == tokens', '.argmin(-1) == tokens'),
  ('evaluation/scoring.py', 'window), tokens[:, -last:])', 'window), tokens[:, -last - 1 : -1])'),
  ('evaluation/scoring.py', 'return np.concatenate(scored)', 'return np.concatenate(scored[::-1])'),
  ('evaluation/scoring.py', 'if initial else self.params', 'if not initial else self.params'),
  ('training/train_state.py', "'step': jnp.int32(0)}", "'step': jnp.int32(1)}"),
  ('evaluation/measures/probe.py', 'jax.random.key(0), 3', 'jax.random.key(1), 3'),
  ('evaluation/measures/probe.py', 'flat).argmax(-1)', 'flat).argmin(-1)'),
  ('training/train_step.py', "config['seed'] % 2**32", "config['seed'] % 2**31"),
  ('data/batches.py', 'rounds=4', 'rounds=6'),
  ('data/batches.py', 'count = self.step * self.batch', 'count = (self.step + 1) * self.batch'),
  ('data/needles.py', "b'%04d' % v", "b'%04d' % (v // 2)"),
  ('evaluation/measures/base.py',
   '(np.arange(windows) * total)', '(np.arange(windows) * total + windows)'),
  ('evaluation/measures/base.py', '/ int(keep.sum())', '/ keep.size'),
  ('evaluation/measures/losses.py',
   'keep[:, -plan.stride :] = True', 'keep[:, -plan.stride - 1 :] = True'),
  ('search/methods.py', 'self.space.pairs + 1, 2, replace=False', 'self.space.pairs, 2'),
  ('evaluation/measures/retrieval.py',
   '.all(-1, keepdims=True)\n  row', '.any(-1, keepdims=True)\n  row'),
]  # fmt: skip

HOST = ('data/', 'evaluation/measures/', 'search/')  # what no program has
IMPORT = 'from pe_research.positions.learned_slopes import LearnedSlopes\n'
AFTER = 'from pe_research.positions.log_scale'
LINE = "  'learned_slopes': LearnedSlopes,\n"
NEW_SCHEME = [
  ('positions/learned_slopes.py', '', SCHEME),
  ('positions/__init__.py', AFTER, IMPORT + AFTER),
  ('positions/__init__.py', "  'rope': RoPE,\n", f"  'rope': RoPE,\n{LINE}"),
]  # fmt: skip
WEIGHTS = '      weights = jnp.exp(logits - higher[..., None])\n'
SHRINK = '      shrink = jnp.exp(peak - higher)\n'
SCALE = 'x = x * self.model.width**0.5'
# Each a list of such changes that leaves every number of a run of RoPE as it is.
HARMLESS = {
  'a function is renamed': [('model/transformer.py', '_without_cache', '_with_no_cache')],
  'a variable is renamed': [('attention/tiled.py', 'shrink', 'less')],
  'two functions trade places': [
    ('attention/logits.py', *traded('attention/logits.py', 'def masked(', 'def indices(')),
  ],
  'independent lines trade places': [('attention/tiled.py', WEIGHTS + SHRINK, SHRINK + WEIGHTS)],
  'a line becomes a compiled function': [
    ('model/transformer.py', SCALE, 'x = jax.jit(lambda y: y * self.model.width**0.5)(x)'),
  ],
  'something is computed for nothing': [
    ('model/transformer.py', 'attended = x + out', 'unused = jnp.sin(x)\n    attended = x + out'),
  ],
  'a scheme is added': NEW_SCHEME,
  'another scheme computes otherwise': [('positions/alibi.py', 'jnp.float32', 'jnp.bfloat16')],
  'a docstring says more': [
    ('model/transformer.py', '"""The decoder: embed', '"""The whole decoder: embed'),
  ],
  'a comment says more': [('attention/attend.py', '# The sum divides', '# And the sum divides')],
  'lines move down': [
    ('attention/attend.py', '"""Exact causal', '# One.\n# Two.\n\n"""Exact causal'),
  ],
  'a colour changes': [('show/palette.py', '#4d4d4d', '#4d4d4e')],
  'an error says more': [
    ('settings/configs.py', 'a multiple of model.heads', 'one of model.heads'),
  ],
  'a metric is renamed': [('training/train_step.py', "'gradient_norm'", "'norm_of_gradient'")],
  'an export changes': [('huggingface/exporting.py', '', '\nFORMAT = 2\n')],
  'a page changes': [('show/explorer/page.py', '', '\nPAGE = 2\n')],
  'a card changes': [('show/card_text.py', '', '\nCARD = 2\n')],
  'a command changes': [('machines/exits.py', '# exit status of work', '# status of work')],
}  # fmt: skip


def apply(root: pathlib.Path, changes) -> None:
  """Makes changes in a copy of the code; an empty `old` appends."""
  for file, old, new in changes:
    path = root / 'pe_research' / file
    text = path.read_text() if path.exists() else ''
    if old not in text:
      raise ValueError(f'{file} has no {old!r}')
    path.write_text(text.replace(old, new) if old else text + new)


class Copy:
  """A copy of the package, imported anew after each change."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    sys.path.insert(0, str(root))

  @contextlib.contextmanager
  def changed(self, changes):
    """With every `old` in a file replaced, while the context lasts."""
    files = [self.root / 'pe_research' / file for file, _, _ in changes]
    before = {path: path.read_text() if path.exists() else None for path in files}
    apply(self.root, changes)
    for name in list(sys.modules):
      # Text sets cannot be registered twice, and have no part in this.
      if name.split('.')[0] in ('pe_research', 'configs') and '.corpora' not in name:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
      yield
    finally:
      for path, text in before.items():
        path.unlink() if text is None else path.write_text(text)


def digests(programs: bool, probes: bool) -> dict[str, str]:
  """Of all programs of a tiny run, without and with its scheme, and of what the host decides.

  Programs and probes take long, and are left out where nobody asks for them.
  """
  import jax

  from configs import smoke
  from pe_research.common import sharding
  from pe_research.data import tokenizers
  from pe_research.evaluation import fixed_inputs as of_evaluation
  from pe_research.evaluation.programs import Scoring
  from pe_research.evaluation.scoring import Call, Scorer
  from pe_research.model.functional import FunctionalDecoder
  from pe_research.search import methods
  from pe_research.settings import configs
  from pe_research.training import fixed_inputs as of_training_inputs
  from pe_research.training.programs import of_training

  config = smoke.get_config('position=rope,length=8')
  config.model.width, config.model.layers, config.model.heads = 8, 1, 2
  config.optimizer.accumulate, config.data.packing = 2, True
  config = configs.resolve(config)
  found = {}
  if programs:
    functional = FunctionalDecoder(config)
    scored = Scoring(
      config, jax.eval_shape(functional.init), Scorer(functional, config, sharding.one_device())
    )
    calls = Call('nats', (2, 17), (4, 1.0, None)), Call('hits', (2, 17), (4, 1.0))
    found = of_training(config) | {call.kind: scored.of(call) for call in calls}
  shared = {name: both.shared.digest for name, both in found.items()}
  own = {f'own {name}': both.own.digest for name, both in found.items()}
  plain = config | {'data': config['data'] | {'packing': False}}
  planted = plain | {'length': 48, 'data': plain['data'] | {'needles': 0.5}}
  rows = [('fixed_targets', 'none'), ('sliding', 'none'), ('passkey', 'depth:0.5')]
  rows += [('probe', 'layer:1')] if probes else []
  return shared | own | {
    'search': methods.fixed_inputs('paper'),
    'batches': of_training_inputs.of_batches(plain, tokenizers.Bytes()),
    'needles': of_training_inputs.of_batches(planted, tokenizers.Bytes()),
    **{protocol: of_evaluation.of_row(protocol, control, '') for protocol, control in rows},
  }  # fmt: skip


def main(root: str, quick: bool) -> None:
  """Reads changes, each a list of [file, old, new], and prints the digests under each."""
  copy = Copy(pathlib.Path(root))
  for changes in json.load(sys.stdin):
    with copy.changed(changes):
      files = {file for file, _, _ in changes}
      probes = not files or any(file.startswith('evaluation/') for file in files)
      programs = not (quick and files) or not all(file.startswith(HOST) for file in files)
      print(json.dumps(digests(programs, probes)), flush=True)


def copy_of_code(into: pathlib.Path) -> pathlib.Path:
  """A checkout's packages without its tests and results."""
  ignore = shutil.ignore_patterns('__pycache__', 'results')
  for name in ('pe_research', 'configs', 'experiments', 'launch'):
    shutil.copytree(ROOT / name, into / name, ignore=ignore)
  return into


if __name__ == '__main__':
  main(sys.argv[1], sys.argv[2:] == ['quick'])
