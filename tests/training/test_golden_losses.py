"""Twenty steps of every scheme give the losses that were kept: nothing of training has changed."""

import golden_losses
import jax
import numpy as np
import pytest
import run_fixtures


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


def implementations(case):
  return ['dense', 'tiled', *(['interpreted'] if golden_losses.in_kernels(case) else [])]


def in_turn():
  """Every case by every implementation; in the first tier by one of them in turn."""
  for i, case in enumerate(golden_losses.CASES):
    own = implementations(case)
    for implementation in own:
      first = implementation == own[i % len(own)]
      yield pytest.param(case, implementation, marks=[] if first else pytest.mark.slow)


@pytest.mark.kinds
@pytest.mark.spread(2)
@pytest.mark.usefixtures('without_proof')
@pytest.mark.parametrize('case, implementation', list(in_turn()))
def test_twenty_losses_are_those_kept(case, implementation, corpus, tmp_path, request):
  """To 1e-5: another processor sums in another order, and so do tiles and kernels.

  The last depend on all gradients before them, those of the bias's parameters among them. The
  second tier compiles as commands do.
  """
  if request.node.get_closest_marker('slow'):
    request.getfixturevalue('optimized')  # as runs are
  kept = golden_losses.kept()
  if not kept:
    pytest.skip(f'no losses were kept for jax {jax.__version__}')
  changed = {'attention__implementation': implementation, 'attention__tile': 8}
  found = golden_losses.losses(case, corpus, tmp_path, **changed)
  np.testing.assert_allclose(found, kept[case], rtol=1e-5)
