"""What holds for every test: CPU, no silent broadcasting of ranks, the same examples each run.

Tests are in two tiers. `make test` leaves out those marked `slow`; `make test-all` has them all. Of
a test marked `spread`, the first tier has each value of its longest parameter once, with the others
in turn; of one marked `spread(n)`, each n-th of these. Of a test marked `kinds`, it leaves out the
schemes of LIKE.
"""

import collections
import itertools
import math
import os
import pathlib

os.environ['JAX_PLATFORMS'] = 'cpu'  # before the first import of jax
# Compiling is most of the time, and takes a third of it like this; so in commands that tests start.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', 'true')

import hypothesis
import jax
import pytest

from pe_research import positions
from pe_research.machines import jax_setup
from pe_research.proof import program_store

# Compiled programs are kept for the other worker and for the next time; commands keep their own.
CACHE = pathlib.Path(__file__).parent.parent / '.pytest_cache' / jax_setup.programs_dir().name
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
jax.config.update('jax_numpy_rank_promotion', 'raise')
hypothesis.settings.register_profile('laws', derandomize=True, deadline=None, max_examples=8)
hypothesis.settings.register_profile(
  'first', hypothesis.settings.get_profile('laws'), max_examples=5
)
# A scheme, and one that takes the same way through the model. All that are not here are tested.
LIKE = {
  'nope': 'rope', 'sinusoidal': 'learned', 'randomized': 'learned', 'kerple': 'alibi',
  'fire': 't5', 'p_rope': 'rope', 'pi': 'rope', 'ntk': 'rope', 'ntk_by_parts': 'rope',
  'llama3': 'rope', 'abf': 'rope', 'drope': 'rope', 'pose': 'rope', 'rand_pos': 'rope',
  'yarn': 'rope', 'dynamic_yarn': 'dynamic_ntk', 'log_n': 'ssmax', 'ssmax_rope': 'ssmax',
  'longrope, first tokens': 'longrope',
}  # fmt: skip
MAPS, TESTS = pathlib.Path('/proc/self/maps'), itertools.count()


def pytest_configure(config):
  """Fewer examples of a law in the first tier."""
  hypothesis.settings.load_profile('first' if config.option.markexpr == 'not slow' else 'laws')


@pytest.hookimpl(tryfirst=True)  # before those that -m leaves out are known
def pytest_collection_modifyitems(items):
  """Marks as slow what is only in the second tier."""
  spread = collections.defaultdict(list)
  for item in items:
    if item.get_closest_marker('kinds') and {*map(str, item.callspec.params.values())} & {*LIKE}:
      item.add_marker(pytest.mark.slow)
    if item.get_closest_marker('spread') and not item.get_closest_marker('slow'):
      spread[item.nodeid.partition('[')[0]].append(item)
  for own in spread.values():
    every = next(iter(own[0].get_closest_marker('spread').args), 1)
    for item, first in zip(own, in_turn([point(item) for item in own], every), strict=True):
      if not first:
        item.add_marker(pytest.mark.slow)


def point(item) -> tuple[str, ...]:
  """The values of a test's parameters, those that are given together as one."""
  marks = item.iter_markers('parametrize')
  axes = ([name.strip() for name in mark.args[0].split(',')] for mark in marks)
  return tuple(repr([item.callspec.params[name] for name in names]) for names in axes)


def in_turn(points: list[tuple[str, ...]], every: int = 1) -> list[bool]:
  """Which points of a product have each value of its longest axis once, with the others in turn.

  Of these, each `every`-th.
  """
  axes = [list(dict.fromkeys(values)) for values in zip(*points, strict=True)]
  *others, longest = sorted(range(len(axes)), key=lambda axis: len(axes[axis]))
  sizes = [len(axes[axis]) for axis in others]
  steps = [math.prod(sizes[:i]) for i in range(len(sizes))]
  index = lambda at, axis: axes[axis].index(at[axis])
  rank = lambda at: sum(s * index(at, axis) for s, axis in zip(steps, others, strict=True))
  return [
    (index(at, longest) + rank(at)) % math.prod(sizes) == 0 and index(at, longest) % every == 0
    for at in points
  ]


@pytest.fixture(scope='module')
def extra_schemes():
  """Registers the schemes that only the tests know, for one module of tests."""
  import decoder_fixtures as fixtures

  with pytest.MonkeyPatch.context() as patch:
    for name, scheme in fixtures.EXTRA.items():
      patch.setitem(positions.SCHEMES, name, scheme)
    yield


@pytest.fixture
def without_proof(monkeypatch):
  """Runs put no programs on record: half of the time of one that takes a few steps."""
  from pe_research.training import fixed_inputs, programs

  monkeypatch.setattr(programs, 'of_training', lambda *given: {})
  monkeypatch.setattr(fixed_inputs, 'of_batches', lambda *given: '')


@pytest.fixture
def optimized():
  """Compiles as commands do, with all optimisations."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.fixture(scope='module', autouse=True)
def kept_texts(tmp_path_factory):
  """Texts of programs are kept for one module, and not in the cache of commands.

  A test that changes a function asks for `own_texts`.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(program_store, 'use', lambda: None)
    patch.setattr(program_store, '_folder', tmp_path_factory.mktemp('texts') / 'kept')
    yield


@pytest.fixture
def own_texts(monkeypatch):
  """Programs are lowered again: the test changes functions that they are made of."""
  monkeypatch.setattr(program_store, '_folder', None)


@pytest.fixture(scope='module', autouse=True)
def forget_programs():
  """Frees a module's compiled programs: each keeps memory mapped, of which Linux allows 65,530."""
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def forget_programs_in_time():
  """The same inside a module that compiles for every scheme; looks at each tenth test."""
  yield
  if next(TESTS) % 10 == 0 and MAPS.exists():
    with MAPS.open('rb') as file:
      if sum(1 for _ in file) > 25_000:
        jax.clear_caches()
