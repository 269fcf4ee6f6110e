"""Intervals against known answers, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.studies import statistics


def sweeps(count, seeds, documents, of_seed, of_document, rest, mean=0.3):
  """Simulated effects z [count, S, D] with these standard deviations."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.normal(size=(count, *shape))
  z = of_seed * draw(seeds, 1) + of_document * draw(1, documents) + rest * draw(seeds, documents)
  return mean + z


@pytest.mark.spread(2)
@pytest.mark.parametrize(
  'of_seed, of_document, rest',
  [(1, 1, 1), (1, 0.3, 1), (0.3, 1, 1), (1, 3, 3), (0, 1, 1), (0.3, 0.3, 1)],
)
@pytest.mark.parametrize('seeds', [3, 5])
def test_the_interval_covers_the_truth_in_19_of_20_sweeps(
  seeds, of_seed, of_document, rest, monkeypatch
):
  monkeypatch.setattr(statistics, 'bootstrap', lambda z: None)  # which takes most of the time
  found = [statistics.estimate(z) for z in sweeps(4000, seeds, 40, of_seed, of_document, rest)]
  covered = np.mean([low <= 0.3 <= high for low, high in (e.interval for e in found)])
  assert 0.93 <= covered <= 0.97, covered


# Windows of a document: of the kept probes, from 1 to 12, and with a heavy tail.
UNEQUAL = {
  'kept probes': np.repeat([1, 2, 3, 4, 5, 6, 7, 11, 16], [5, 4, 5, 2, 1, 2, 2, 2, 1]),
  'even steps': np.tile(np.arange(1, 13), 2),
  'heavy tail': np.ceil(np.minimum(40, 2 * ((np.arange(48) + 0.5) / 48) ** -0.8)),
}


@pytest.mark.spread(2)
@pytest.mark.parametrize('of_seed, of_document, rest', [(0, 1, 0.1), (0.1, 1, 0.3), (0.3, 1, 1)])
@pytest.mark.parametrize('seeds', [3, 5])
@pytest.mark.parametrize('windows', UNEQUAL.values(), ids=UNEQUAL)
def test_it_covers_the_truth_where_documents_are_few_and_unequal(
  windows, seeds, of_seed, of_document, rest, monkeypatch
):
  monkeypatch.setattr(statistics, 'bootstrap', lambda z: None)
  windows, covered = windows.astype(float), []
  for means in sweeps(4000, seeds, len(windows), of_seed, of_document, rest):
    low, high = statistics.estimate(statistics.contributions(means * windows, windows)).interval
    covered.append(low <= 0.3 <= high)
  assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered)


def test_documents_of_unequal_weight_count_as_fewer():
  windows = np.tile(UNEQUAL['heavy tail'], 400)
  drawn = windows * np.random.default_rng(0).normal(size=len(windows))
  want = (windows**2).sum() ** 2 / (windows**4).sum()
  assert statistics.effective(drawn) == pytest.approx(want, rel=0.05) and want < len(windows) / 5
  assert statistics.effective(np.array([1.0, -1.0, 1.0, -1.0])) == 3
  assert statistics.effective(np.array([5.0, 0.0, 0.0, 0.0])) == 1
  assert statistics.effective(np.zeros(4)) == 3


def test_without_documents_it_is_the_t_interval():
  values = np.array([0.1, 0.4, 0.2, 0.25, 0.6])
  found = statistics.estimate(values)
  want = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
  np.testing.assert_allclose(found.interval, want)
  assert found.by_seed == found.interval and found.documents == 0 and found.bootstrap is None
  want = stats.ttest_1samp(values, 0.05, alternative='greater').pvalue
  assert math.isclose(found.p_above(0.05), want, rel_tol=1e-9)
  assert math.isclose(found.p_below(0.05), 1 - want, rel_tol=1e-9)


def test_variances_of_seeds_documents_and_the_rest_are_told_apart():
  found = [statistics.estimate(z).parts for z in sweeps(400, 5, 40, 0.5, 2.0, 1.0)]
  np.testing.assert_allclose(np.mean(found, 0), [0.25, 4.0, 1.0], rtol=0.15)


def test_an_effect_that_never_varies_is_certain():
  found = statistics.estimate(np.full((3, 8), 0.2))
  np.testing.assert_allclose(found.interval, (0.2, 0.2), atol=1e-12)
  assert found.p_above(0.1) < 1e-9 and found.p_below(0.1) == 1


def test_one_number_has_no_interval():
  for one in (np.ones((1, 1)), np.ones(1)):
    with pytest.raises(ValueError, match='1 number'):
      statistics.estimate(one)


@pytest.mark.parametrize('windows', [np.ones(40), *UNEQUAL.values()], ids=['equal', *UNEQUAL])
def test_one_seed_has_an_interval_over_its_documents(windows, monkeypatch):
  """Of its own truth: what other seeds would find is in no data of one."""
  monkeypatch.setattr(statistics, 'bootstrap', lambda z: None)
  windows, covered = windows.astype(float), []
  for means in sweeps(4000, 1, len(windows), 0, 1, 0.3):
    found = statistics.estimate(statistics.contributions(means * windows, windows))
    covered.append(found.interval[0] <= 0.3 <= found.interval[1])
  assert 0.93 <= np.mean(covered) <= 0.97, np.mean(covered)
  assert found.seeds == 1 and found.by_seed == (-math.inf, math.inf)


def test_one_seed_of_like_documents_has_the_t_interval():
  z = np.array([[0.3, -0.3, 0.3, -0.3, 0.3, -0.3]])
  want = stats.t.interval(0.95, 5, z.mean(), stats.sem(z[0]))
  np.testing.assert_allclose(statistics.estimate(z).interval, want)


def test_contributions_give_the_mean_over_tokens():
  rng = np.random.default_rng(0)
  tokens = rng.integers(1, 50, 12)
  means = rng.normal(size=(4, 12))
  z = statistics.contributions(means * tokens, tokens.astype(float))
  np.testing.assert_allclose(z.mean(1), (means * tokens).sum(1) / tokens.sum())
  even = statistics.contributions(means * 7, np.full(12, 7.0))
  np.testing.assert_allclose(even, means)


def test_the_interval_of_a_mean_over_tokens_covers_the_truth():
  """Documents whose length says something of their loss: plain means over them are off."""
  rng, covered = np.random.default_rng(1), []
  for _ in range(600):
    tokens = rng.integers(10, 200, 60).astype(float)
    means = 0.002 * (tokens - 105) + rng.normal(size=60)[None] + 0.4 * rng.normal(size=(4, 1))
    z = statistics.contributions(means * tokens, tokens)
    low, high = statistics.estimate(z).interval
    truth = 0.002 * (np.mean(np.arange(10, 200) ** 2.0) / np.mean(np.arange(10, 200)) - 105)
    covered.append(low <= truth <= high)
  assert 0.93 <= np.mean(covered) <= 0.97


def test_the_bootstrap_draws_seeds_and_documents():
  z = sweeps(1, 5, 40, 0.0, 1.0, 0.0)[0]
  low, high = statistics.bootstrap(z, 4000)
  assert math.isclose(high - low, 2 * 1.96 * z.mean(0).std() / math.sqrt(40), rel_tol=0.08)
  z = sweeps(1, 40, 5, 1.0, 0.0, 0.0)[0]
  low, high = statistics.bootstrap(z, 4000)
  assert math.isclose(high - low, 2 * 1.96 * z.mean(1).std() / math.sqrt(40), rel_tol=0.08)


def test_wilson():
  # Agresti and Coull (1998): 0 of 10, and the score interval solved by hand for 8 of 10.
  low, high = statistics.wilson(0, 10)
  assert low == 0 and math.isclose(high, 1.959964**2 / (10 + 1.959964**2), rel_tol=1e-6)
  p, n, z = 0.8, 10, 1.959964
  middle, half = (
    (p + z * z / 2 / n) / (1 + z * z / n),
    z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n),
  )
  np.testing.assert_allclose(statistics.wilson(8, 10), (middle - half, middle + half), rtol=1e-6)
  with pytest.raises(ValueError, match='3 hits of 2'):
    statistics.wilson(3, 2)


def test_holm():
  # By hand: in order 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1, and never falling.
  assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
  assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
  assert statistics.holm([]) == []


def test_seeds_that_would_decide():
  found = statistics.estimate(sweeps(1, 3, 4000, 0.3, 0.01, 0.01, mean=0.2)[0])
  needed = statistics.seeds_needed(found, 0.0)
  of_seed = found.parts[0]

  def power(seeds):  # of a t test of the mean of seeds, by the noncentral t distribution
    shift = abs(found.value) / math.sqrt(of_seed / seeds)
    return stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift)

  assert needed > 3 and power(needed) > 0.75 and power(needed - 2) < 0.8
  assert statistics.seeds_needed(found, found.value) is None
  noisy = statistics.estimate(sweeps(1, 3, 10, 0.01, 3.0, 0.01, mean=0.1)[0])
  assert statistics.seeds_needed(noisy, noisy.value + 0.1) is None  # documents limit it


def test_no_seeds_decide_what_one_answer_can_turn():
  found = statistics.estimate(np.full((5, 8), 0.045), step=1 / 200)
  assert statistics.seeds_needed(found, 0.05) is None  # one answer away
  assert statistics.seeds_needed(found, 0.1) == 6  # more than there are
  assert statistics.seeds_needed(found, 0.063) is None  # by t of four degrees of freedom
