"""What READMEs say is true: commands run, the example works, the table is the registry."""

import pathlib
import re
import shlex
import subprocess
import types

import decoder_fixtures as fixtures
import jax
import numpy as np
import pytest
import run_fixtures
from flax import nnx

from experiments import finetune as experiment
from experiments import progressive, stretch, sweep
from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import transformer

FIRST = 'README.md'
SCHEMES = 'pe_research/positions/README.md'
PARTS = sorted(
  path.relative_to(run_fixtures.ROOT).as_posix()
  for pattern in ('pe_research/*/README.md', 'experiments/README.md')
  for path in run_fixtures.ROOT.glob(pattern)
)
TEXTS = {name: (run_fixtures.ROOT / name).read_text() for name in (FIRST, *PARTS)}
# The same commands at a size that takes seconds: fewer steps, a smaller model, fewer windows.
SHRINK = {
  'pe_research.main': [
    '--config.steps=3', '--config.optimizer.warmup=1', '--config.model.width=16',
    '--config.eval.lengths=(64, 128)', '--config.eval.windows=2',
  ],
  'pe_research.together': [
    '--config.steps=3', '--config.optimizer.warmup=1', '--config.model.width=16',
    '--config.eval.lengths=(64, 128)', '--config.eval.windows=2',
  ],
  'pe_research.evaluate': ['--windows=2', '--tokens=2048', '--stride=128'],
  'pe_research.generate': ['--tokens=4'],
  'experiments.sweep': [
    '--config.steps=3', '--config.optimizer.warmup=1', '--config.model.width=16',
    '--config.eval.lengths=(64, 128)', '--config.eval.windows=2', '--seeds=0',
    '--positions=rope,t5',
  ],
  'experiments': ['--workdir=results/claims', '--dry-run'],
  'experiments.cache': ['--contexts=20', '--layers=1', '--repeats=1'],
  'experiments.report': [],
  'pe_research.huggingface': [],
  'pe_research.programs': ['--config.model.layers=1'],
  'pe_research.card': [],
  'pe_research.explorer': [],
  'pe_research.search': [
    '--population=4', '--iterations=1', '--mutations=2', '--crossovers=2', '--documents=1',
    '--held-out=1',
  ],
  'experiments.bench': [
    '--length=128', '--steps=1', '--layers=1', '--width=32', '--candidates=2',
  ],
}  # fmt: skip
# Run whole in tests of their own; here their flags are read.
LONG = {
  'experiments.stretch': stretch,
  'experiments.finetune': experiment,
  'experiments.progressive': progressive,
}
DEMO = 'results/demo/runs/rope_seed0'  # what `make demo` leaves


def commands(name: str) -> list[str]:
  """Every line of a README's shell blocks, continuations joined."""
  blocks = re.findall(r'```sh\n(.*?)```', TEXTS[name], re.DOTALL)
  lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
  return [line.split('#')[0].strip() for line in lines if line.strip()]


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """A folder that looks like the repository, where results may be written."""
  folder = tmp_path_factory.mktemp('checkout')
  for name in ('pe_research', 'configs', 'experiments', 'launch', 'Makefile', 'requirements.txt'):
    (folder / name).symlink_to(run_fixtures.ROOT / name)
  run_fixtures.write_corpus(folder / 'path' / 'to' / 'texts', documents=24)
  config, workdir = '--config=configs/lm.py:position=rope', f'--workdir={DEMO}'
  done = run_fixtures.run(
    '-m', 'pe_research.main', config, workdir, *SHRINK['pe_research.main'], cwd=folder
  )
  assert done.returncode == 0, done.stderr
  return folder


def test_make_targets_exist():
  targets = [c.split()[1] for c in commands(FIRST) if c.startswith('make')]
  assert targets == ['demo', 'test']
  for target in [*targets, 'test-all', 'docs', '.venv', 'lock']:
    shown = subprocess.run(
      ['make', '-n', target], cwd=run_fixtures.ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
  demo = subprocess.run(
    ['make', '-n', 'demo'], cwd=run_fixtures.ROOT, capture_output=True, text=True
  )
  assert 'experiments.sweep --explorer' in demo.stdout


SHOWN = [
  pytest.param(command, id=f'{name}:{i}', marks=[] if name == FIRST else pytest.mark.slow)
  for name in (FIRST, *PARTS)
  for i, command in enumerate(commands(name))
  if command.startswith('python')
]


@pytest.mark.parametrize('command', SHOWN)
def test_commands_run_in_the_order_they_are_shown(command, checkout):
  python, _, module, *arguments = shlex.split(command)
  assert python == 'python'
  if '--distributed' in arguments:
    pytest.skip('needs a TPU pod; two processes are tested by address')
  if module in LONG:
    given = LONG[module].parse(arguments)
    assert given.run in (None, pathlib.Path(DEMO)) and sweep.WORKDIR in DEMO
    return
  arguments = [a for a in arguments if not a.startswith('--config.model.width')]
  shrink = SHRINK[module]
  if arguments[:1] == ['sweep']:
    shrink = [flag for flag in SHRINK['experiments.sweep'] if flag.startswith('--config')]
  if any('pretrained.py' in argument for argument in arguments):  # it has sizes, and trains nothing
    shrink = [flag for flag in shrink if flag.startswith('--config.eval')]
  done = run_fixtures.run('-m', module, *arguments, *shrink, cwd=checkout)
  if any('lm1b' in argument for argument in arguments):
    assert done.returncode == 2 and 'lm1b' in done.stderr and 'download' in done.stderr
  else:
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_module_with_a_command_is_shown():
  shown = {shlex.split(param.values[0])[2] for param in SHOWN}
  assert shown == SHRINK.keys() | LONG.keys()


def test_the_example_scheme_is_one_file_and_one_line(monkeypatch):
  [source] = re.findall(r'```python\n(.*?)```', TEXTS[FIRST], re.DOTALL)
  module = types.ModuleType('pe_research.positions.example')
  exec(compile(source, 'example', 'exec'), module.__dict__)
  monkeypatch.setitem(positions.SCHEMES, 'example', module.LearnedSlopes)
  assert positions.defaults('example') == {'name': 'example', 'slope': 0.1}
  config = fixtures.config(width=16, heads=2, kv_heads=2, projection='mha', mlp_width=32)
  decoder = transformer.Decoder(config, positions.defaults('example'), 16, key=jax.random.key(0))
  graph, params = nnx.split(decoder)
  tokens = np.arange(18).reshape(2, 9)

  def loss(params, spec):
    logits = nnx.merge(graph, params)(tokens, Tokens.contiguous(9), spec)
    return transformer.loss(logits, tokens).mean()

  dense, tiled = (jax.grad(loss)(params, spec) for spec in (Spec(), Spec('tiled', tile=4)))
  for one, other in zip(jax.tree.leaves(dense), jax.tree.leaves(tiled), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)
  assert np.abs(jax.tree.leaves(dense.position)[0]).min() > 0


def test_the_table_of_schemes_is_the_registry():
  row = r'^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$'
  rows = re.findall(row, TEXTS[SCHEMES], re.MULTILINE)
  shown = {name: (label, owned.strip(), source) for name, label, owned, source in rows}
  assert shown.keys() >= positions.SCHEMES.keys()
  for name, scheme in positions.SCHEMES.items():
    label, owned, source = shown[name]
    assert label.startswith(scheme.label) and scheme.paper.split(',')[0] in source
    built = nnx.eval_shape(
      lambda name=name: positions.build(
        fixtures.position(name), positions.Dims(16, 2, 8, 16), nnx.Rngs(0)
      )
    )
    has = bool(jax.tree.leaves(nnx.state(built, nnx.Param)))
    expected = (
      ('one set per layer' if scheme.per_layer else 'one set for all layers') if has else 'none'
    )
    assert owned == expected


def anchors(path: pathlib.Path) -> set[str]:
  """Of the headings of a Markdown file, as GitHub makes them."""
  heads = re.findall(r'^#+ (.*)$', path.read_text(encoding='utf-8'), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', head.lower()).replace(' ', '-') for head in heads}


@pytest.mark.parametrize('name', [*TEXTS, 'launch/README.md', 'tests/README.md'])
def test_what_a_readme_links_to_exists(name):
  folder = (run_fixtures.ROOT / name).parent
  links = re.findall(r'\]\(([^)]+)\)', (run_fixtures.ROOT / name).read_text())
  local = [link.partition('#') for link in links if not link.startswith('http')]
  for path, _, anchor in local:
    target = folder / path if path else run_fixtures.ROOT / name
    assert target.exists(), path
    assert not anchor or anchor in anchors(target), anchor
