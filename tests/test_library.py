"""Schemes, attention and decoder need jax, flax and numpy alone, and fit other layers."""

import ast
import re
import sys

import numpy as np
import run_fixtures
from test_parts import MODULES, imports

LIBRARY = ('pe_research.positions', 'pe_research.attention', 'pe_research.model')
NEEDED = {'jax', 'flax', 'numpy'}
README = run_fixtures.ROOT / 'pe_research' / 'positions' / 'README.md'
# Run where nothing else can be imported, flax's own imports aside.
ALONE = """
import sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in {'tensorflow_datasets', 'altair', 'matplotlib', 'ml_collections',
        'grain', 'scipy', 'absl', 'etils', 'sentencepiece', 'tokenizers', 'safetensors'}:
      raise ImportError(f'{name} is not installed here')

import orbax.checkpoint  # flax has it
sys.meta_path.insert(0, Absent())
"""


def outside(name: str) -> set[str]:
  """Packages that a module imports, but for Python's own and this one."""
  found = set()
  for node in ast.walk(ast.parse(MODULES[name].read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name.split('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found.add(node.module.split('.')[0])
  return found - set(sys.stdlib_module_names) - {'pe_research'}


def test_the_library_needs_three_packages():
  reached, left = set(), {name for name in MODULES if name.startswith(LIBRARY)}
  while left:
    reached |= left
    left = {other for name in left for other in imports(name)} - reached
  assert {package for name in reached for package in outside(name)} == NEEDED


def example() -> str:
  """The layer that README shows, with its imports."""
  [source] = re.findall(r'```python\n(.*?)```', README.read_text(), re.DOTALL)
  return source


def test_the_example_is_short():
  lines = example().split('class Attention')[1].strip().splitlines()
  assert len(lines) < 20


def test_a_layer_of_ones_own_attends_by_yarn():
  """Against NumPy in float64, with the scheme's own angles."""
  space = {}
  exec(compile(example(), 'example', 'exec'), space)
  nnx, yarn = space['nnx'], space['positions'].build
  made = space['Attention'](32, 2, nnx.Rngs(0))
  x = np.random.default_rng(0).normal(size=(2, 9, 32)).astype(np.float32)
  linear = lambda layer, y: y @ np.float64(layer.kernel[...]) + np.float64(layer.bias[...])
  qkv = linear(made.qkv, x).reshape(2, 9, 3, 2, 16)
  dims = space['positions'].Dims(32, 2, rotary=16, length=4096)
  angle = np.asarray(yarn('yarn', dims, factor=8.0).angles(np.arange(9)[None], None), np.float64)[0]

  def turned(z):  # [B, L, H, 16]
    a, b, cos, sin = z[..., :8], z[..., 8:], np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

  q, k, v = turned(qkv[:, :, 0]), turned(qkv[:, :, 1]), qkv[:, :, 2]
  logits = np.einsum('bqhd,bkhd->bhqk', q, k) * (0.1 * np.log(8) + 1) ** 2 / 4
  logits = np.where(np.tril(np.ones((9, 9), bool)), logits, -np.inf)
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  out = np.einsum('bhqk,bkhd->bqhd', weights, v).reshape(2, 9, 32)
  np.testing.assert_allclose(made(x), linear(made.out, out), atol=2e-6)


def test_the_example_runs_without_the_other_packages():
  code = ALONE + example() + 'made = Attention(32, 2, nnx.Rngs(0))\nprint(made.position.label)'
  done = run_fixtures.run('-c', code)
  assert done.returncode == 0 and done.stdout == 'YaRN\n', done.stderr
