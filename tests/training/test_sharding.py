"""Rules name every parameter's layout, and what cannot be split is refused by name."""

import jax
import numpy as np
import pytest
import run_fixtures
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from pe_research import positions
from pe_research.common import digest, sharding
from pe_research.model.functional import FunctionalDecoder


def mesh(data=1, fsdp=1, tensor=1):
  return AbstractMesh((data, fsdp, 1, tensor), sharding.AXES)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.mark.kinds
@pytest.mark.parametrize('projection', ['mha', 'mla'])
@pytest.mark.parametrize('name', positions.SCHEMES)
def test_every_matrix_is_split_and_nothing_of_a_scheme_is(name, projection, corpus):
  sizes = {'model__projection': projection}
  if projection == 'mla':
    sizes |= {'model__rotary_dim': 8, 'model__query_latent': 8, 'model__latent': 8}
  shapes = jax.eval_shape(
    FunctionalDecoder(run_fixtures.config(corpus, name, model__tied=False, **sizes)).init
  )
  shared = ('query_down/kernel', 'latent/kernel', 'position_key/kernel')  # by all heads
  for path, placed in sharding.layout(shapes, mesh(fsdp=2, tensor=2)).items():
    split = {axis for axes in placed.spec if axes for axis in np.atleast_1d(axes)}
    large = path.endswith('kernel') or path in ('embedding', 'output')
    whole = {'fsdp'} if path.endswith(shared) else {'fsdp', 'tensor'}
    assert split == (whole if large else set()), path


def test_the_optimizer_is_laid_out_as_its_parameters(corpus):
  from pe_research.training import optimizers, train_state

  config = run_fixtures.config(corpus)
  functional = FunctionalDecoder(config)
  optimizer = optimizers.build(config['optimizer'], 10)
  state = train_state.layout(train_state.abstract(functional, optimizer, mesh(fsdp=2)))
  moments = [s for s in jax.tree.leaves(state['optimizer'], is_leaf=lambda x: isinstance(x, dict))
             if isinstance(s, dict)]  # fmt: skip
  assert len(moments) == 2
  assert all(m == state['params'] for m in moments)


def test_a_width_that_does_not_split_is_refused_by_name(corpus):
  shapes = jax.eval_shape(FunctionalDecoder(run_fixtures.config(corpus)).init)
  message = r'attention/query/kernel \(16, 16\).*over 3 devices \(tensor\).*16 is not a multiple'
  with pytest.raises(ValueError, match=message):
    sharding.layout({k: v for k, v in shapes.items() if 'query' in k}, mesh(tensor=3))


@pytest.mark.parametrize(
  ('batch', 'parts', 'shape', 'message'),
  [
    (12, 1, {'data': 8}, r'optimizer.batch 12 .*over 8 devices; choose a multiple of 8'),
    (8, 4, {'data': 2, 'fsdp': 2}, r'optimizer.batch 8 in 4 part.*4 devices.*multiple of 16'),
  ],
)
def test_a_batch_that_does_not_split_is_refused(batch, parts, shape, message):
  with pytest.raises(ValueError, match=message):
    sharding.split_batch(mesh(**shape), batch, parts)
  assert sharding.split_batch(mesh(**shape), 16, parts if parts > 1 else 1).spec == sharding.BATCH


@pytest.mark.parametrize(
  ('sizes', 'fits'),
  [
    ((-1, 1, 1, 1), (8, 1, 1, 1)),
    ((-1, 2, 1, 2), (2, 2, 1, 2)),
    ((2, 1, 4, 1), (2, 1, 4, 1)),
    ((-1, 3, 1, 1), None),
    ((2, 2, 1, 1), None),
    ((-1, -1, 1, 1), None),
  ],
)
def test_a_mesh_takes_all_devices_or_is_refused(sizes, fits, monkeypatch):
  monkeypatch.setattr(jax, 'device_count', lambda: 8)
  monkeypatch.setattr(jax, 'make_mesh', lambda shape, names, axis_types: shape)
  given = dict(zip(sharding.AXES, sizes, strict=True))
  if fits:
    assert sharding.mesh(given) == fits
    if given.pop('context') == 1:  # which it is where a config has no word of it
      assert sharding.mesh(given) == fits
  else:
    with pytest.raises(ValueError, match='does not fit 8 devices'):
      sharding.mesh(given)


def test_the_digest_sees_every_bit_its_place_and_its_name():
  x = np.arange(12, dtype=np.float32).reshape(3, 4)
  flipped = x.copy()
  flipped.view(np.uint32)[1, 2] ^= 1
  swapped = x[:, ::-1].copy()
  variants = [{'a': x}, {'a': flipped}, {'a': swapped}, {'b': x}, {'a': x.reshape(4, 3)}]
  variants += [{'a': x.astype(np.int32)}, {'a': x.T.copy()}]
  digests = [digest.of_arrays(jax.tree.map(jax.numpy.asarray, v)) for v in variants]
  assert len(set(digests)) == len(variants)
  assert digest.of_arrays({'a': jax.numpy.asarray(x)}) == digests[0]
  assert P(('data', 'fsdp')) == sharding.BATCH
