"""Twenty steps of every scheme give the losses that were kept: nothing of training has changed."""

import golden_losses
import jax
import numpy as np
import pytest
import small


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return small.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.mark.parametrize('case', golden_losses.CASES)
def test_twenty_losses_are_those_kept(case, corpus, tmp_path):
  """To 1e-5: another processor sums in another order."""
  kept = golden_losses.kept()
  if not kept:
    pytest.skip(f'no losses were kept for jax {jax.__version__}')
  found = golden_losses.losses(case, corpus, tmp_path)
  np.testing.assert_allclose(found, kept[case], rtol=1e-5)


FAST = [(case, 'tiled') for case in golden_losses.CASES]
FAST += [(case, 'interpreted') for case in golden_losses.CASES if golden_losses.in_kernels(case)]


@pytest.mark.parametrize('case, implementation', FAST)
def test_fast_paths_train_as_dense_attention_does(case, implementation, corpus, tmp_path):
  """Twenty steps on, so gradients too, those of the bias's parameters among them."""
  kept = golden_losses.kept()
  if not kept:
    pytest.skip(f'no losses were kept for jax {jax.__version__}')
  changed = {'attention__implementation': implementation, 'attention__tile': 8}
  found = golden_losses.losses(case, corpus, tmp_path, **changed)
  np.testing.assert_allclose(found, kept[case], rtol=1e-5)
