"""The decision rule, case by case, and the effects that it is held against."""

import dataclasses

import claim_fixtures
import numpy as np
import pytest

from experiments.studies import quantities, statistics, verdicts
from experiments.studies.terms import EXACT, Effect, Expect, Quantity, nll

NOTHING = nll('a') - nll('b')


def estimate(value, error, freedom=1000):
  half = 1.96 * error
  span = value - half, value + half
  return statistics.Estimate(value, error, freedom, span, span, None, 3, 9, (error**2 * 3, 0, 0))


@pytest.mark.parametrize(
  'above, below, value, error, verdict',
  [
    (0.5, None, 0.9, 0.1, 'reproduced'),
    (0.5, None, 0.6, 0.1, 'inconclusive'),
    (0.5, None, 0.3, 0.05, 'inconclusive'),  # right side of zero, too small to hold
    (0.5, None, -0.3, 0.1, 'refuted'),
    (None, -0.03, -0.1, 0.01, 'reproduced'),
    (None, -0.03, -0.02, 0.001, 'inconclusive'),
    (None, -0.03, 0.02, 0.001, 'refuted'),
    (None, 0.01, -5.0, 0.001, 'reproduced'),  # zero lies where the claim is
    (None, 0.01, 0.005, 0.004, 'inconclusive'),
    (None, 0.01, 0.02, 0.001, 'refuted'),
    (-0.01, 0.01, 0.002, 0.001, 'reproduced'),
    (-0.01, 0.01, 0.002, 0.01, 'inconclusive'),
    (-0.01, 0.01, 0.02, 0.001, 'refuted'),
    (-0.01, 0.01, -0.02, 0.001, 'refuted'),
    (0.02, 0.12, 0.05, 0.001, 'reproduced'),
    (0.02, 0.12, 0.015, 0.001, 'inconclusive'),
    (0.02, 0.12, -0.015, 0.001, 'refuted'),
    (0.02, 0.12, 0.2, 0.001, 'refuted'),
    (0, None, 0.1, 0.001, 'reproduced'),
    (0, None, -0.1, 0.001, 'refuted'),
  ],
)
def test_the_interval_decides(above, below, value, error, verdict):
  found = verdicts.decide(Expect('x', NOTHING, above, below), estimate(value, error))
  assert found.verdict == verdict
  low, high = found.estimate.interval
  inside = (above is None or low > above) and (below is None or high < below)
  assert inside == (found.verdict == 'reproduced')
  assert (found.seeds is None) or verdict == 'inconclusive'


def test_seeds_that_would_decide_are_said_of_what_is_undecided():
  found = verdicts.decide(Expect('x', NOTHING, above=0.5), estimate(0.6, 0.1))
  assert found.seeds == statistics.seeds_needed(found.estimate, 0.5) > 3
  other = verdicts.decide(Expect('x', NOTHING, above=0.1), estimate(-0.02, 0.1))
  assert other.seeds == statistics.seeds_needed(other.estimate, 0.0)
  between = verdicts.decide(Expect('x', NOTHING, above=0.1), estimate(0.02, 0.1))
  assert between.seeds is None  # of the right sign and too small, however many there are
  assert found.power == f'{found.seeds} seeds would decide'
  held = statistics.seeds_needed(found.estimate, 0.5, 0.998)
  assert verdicts.seeds_to_keep([found], 'reproduced', 25) == held > found.seeds


@pytest.mark.parametrize(
  'above, below, value, error, verdict, said',
  [
    (0.5, None, 0.4, 0.1, 'inconclusive', verdicts.TOO_SMALL),
    (0.5, None, 0.0, 0.3, 'inconclusive', verdicts.NO_EFFECT),
    (0, None, 0.0, 0.1, 'inconclusive', verdicts.NO_EFFECT),
    (None, -0.005, 0.0002, 0.00015, 'inconclusive', verdicts.EXCLUDED),
    (None, -0.005, -0.002, 0.001, 'inconclusive', verdicts.EXCLUDED),
    (None, -0.005, 0.002, 0.001, 'refuted', ''),
    (0.02, 0.12, 0.2, 0.01, 'refuted', verdicts.BEYOND),
    (-0.12, -0.02, -0.2, 0.01, 'refuted', verdicts.BEYOND),
    (0.02, 0.12, -0.2, 0.01, 'refuted', ''),
    (-0.12, -0.02, 0.2, 0.01, 'refuted', ''),
    (-0.01, 0.01, 0.2, 0.01, 'refuted', ''),  # zero is of no sign
    (0.02, 0.12, 0.07, 0.01, 'reproduced', ''),
  ],
)
def test_what_a_verdict_leaves_open_is_said(above, below, value, error, verdict, said):
  found = verdicts.decide(Expect('x', NOTHING, above, below), estimate(value, error))
  assert (found.verdict, found.power, found.seeds) == (verdict, said, None)
  amount = Expect('x', NOTHING, above, below, amount=True)
  assert verdicts.decide(amount, estimate(value, error)).power != verdicts.BEYOND


def test_a_share_ends_at_one_and_so_does_its_interval():
  share = Expect('x', NOTHING, above=0.1, unit=EXACT)
  assert verdicts.decide(share, estimate(0.9, 0.2)).estimate.interval == (0.9 - 1.96 * 0.2, 1.0)
  amount = Expect('x', NOTHING, below=0.5, amount=True, unit=EXACT)
  assert verdicts.decide(amount, estimate(0.1, 0.2)).estimate.interval[0] == 0.0


@pytest.mark.parametrize(
  'value, difference, amount',
  [(1.3, 'reproduced', 'reproduced'), (1.0, 'inconclusive', 'refuted'),
   (-0.2, 'refuted', 'refuted'), (1.6, 'refuted', 'refuted'), (1.22, *['inconclusive'] * 2)],
)  # fmt: skip
def test_an_amount_is_refuted_as_soon_as_it_is_outside(value, difference, amount):
  for kind, want in ((False, difference), (True, amount)):
    test = Expect('x', NOTHING, above=1.2, below=1.4, amount=kind)
    assert verdicts.decide(test, estimate(value, 0.03)).verdict == want


def outcome(p_holds, p_fails):
  return verdicts.Outcome(Expect('x', NOTHING, above=0), estimate(0, 1), p_holds, p_fails)


def test_all_tests_must_hold_and_one_refutes():
  assert verdicts.of_claim([outcome(0.01, 1), outcome(0.04, 1)]) == ('reproduced', 0.04)
  assert verdicts.of_claim([outcome(0.01, 1), outcome(0.2, 1)])[0] == 'inconclusive'
  assert verdicts.of_claim([outcome(0.01, 1), outcome(1, 0.02)]) == ('refuted', 0.04)
  assert verdicts.of_claim([outcome(0.01, 1), outcome(1, 0.03)])[0] == 'inconclusive'  # of two
  missing = verdicts.Outcome(Expect('x', NOTHING, above=0), None, why='no rows')
  assert verdicts.of_claim([outcome(0.01, 1), missing]) == ('not run', 1.0)


def test_without_its_control_a_claim_is_left_open():
  test = dataclasses.replace(outcome(0.01, 1).test, control=True)
  control = lambda p: dataclasses.replace(outcome(p, 1), test=test)
  assert verdicts.of_claim([control(0.2), outcome(0.01, 1)]) == ('inconclusive', 1.0)
  assert verdicts.of_claim([control(0.2), outcome(1, 0.001)]) == ('inconclusive', 1.0)
  assert verdicts.of_claim([control(0.01), outcome(0.04, 1)]) == ('reproduced', 0.04)
  assert verdicts.of_claim([control(0.01), outcome(1, 0.04)]) == ('refuted', 0.04)  # of one


def test_published_variants_are_corrected_apart_from_the_others():
  found = {'A': {'published': ('reproduced', 0.03), 'matched': ('refuted', 0.04)},
           'B': {'': ('refuted', 0.03)}}  # fmt: skip
  held = verdicts.corrected_by_claim(found)
  assert held == {'A': {'published': 'inconclusive', 'matched': 'refuted'},
                  'B': {'': 'inconclusive'}}  # fmt: skip


def test_verdicts_fall_where_there_were_many_claims():
  found = [('reproduced', 0.01), ('reproduced', 0.04), ('refuted', 0.001), ('not run', 1.0)]
  held = verdicts.corrected(found)
  assert [v for v, _ in held] == ['reproduced', 'reproduced', 'refuted', 'not run']
  assert [round(p, 3) for _, p in held] == [0.02, 0.04, 0.003, 1.0]
  held = verdicts.corrected([*found, ('inconclusive', 0.5)])
  assert [v for v, _ in held][:2] == ['reproduced', 'inconclusive']


def rows(values, protocol='fixed_targets', control='none', length=16, weights=(10, 20), **more):
  """Rows of one seed, one document mean a column."""
  pairs = zip(values, weights, strict=True)
  documents = {f'd{i}': [float(v * w), w] for i, (v, w) in enumerate(pairs)}
  value = sum(s for s, _ in documents.values()) / sum(weights)
  return {(protocol, control, length): {'value': value, 'documents': documents} | more}


def measured(table):
  """Of rows by model, at length 16."""
  return lambda quantity: (table[quantity.model], [('fixed_targets/none/16', 1)])


def test_effects_are_sums_over_the_same_documents():
  table = {'a': rows([1.0, 2.0]), 'b': rows([0.5, 1.0])}
  score = quantities.effect(2.0 * nll('a') - nll('b'), measured(table))
  assert score.value.shape == (2,)
  np.testing.assert_allclose(score.value.mean(), 2 * (10 + 40) / 30 - (5 + 20) / 30)
  with pytest.raises(quantities.Missing, match='fixed_targets/none/32 has not been measured'):
    far = lambda quantity: (table['a'], [('fixed_targets/none/32', 2)])
    quantities.effect(nll('a') - nll('a'), far)


@pytest.mark.parametrize('other', [
  rows([1.0, 2.0, 3.0], weights=(1, 1, 1)),
  rows([1.0, 2.0], weights=(10, 30)),
  rows([1.0, 2.0], targets='of others'),
  {k: row | {'documents': {'x': [1.0, 10], 'y': [2.0, 20]}} for k, row in rows([1, 2]).items()},
])  # fmt: skip
def test_what_is_paired_must_have_been_asked_the_same(other):
  table = {'a': rows([1.0, 2.0]), 'b': other}
  with pytest.raises(quantities.Missing, match='different targets'):
    quantities.effect(nll('a') - nll('b'), measured(table))
  seeds = [quantities.effect(1.0 * nll('a') - nll('a'), measured({'a': t})) for t in table.values()]
  with pytest.raises(quantities.Missing, match='different targets'):
    quantities.together(seeds)


def test_answers_that_are_counted_are_no_surer_than_one_of_them():
  table = {name: rows([0.0, 0.0], weights=(10, 10), hits=0, windows=20) for name in 'ab'}
  score = quantities.effect(nll('a') - nll('b'), measured(table))
  z, step = quantities.together([score] * 5)
  assert step == 1 / 20 and not z.any()
  found = statistics.estimate(z, step)
  assert found.error == step and found.p_below(0.05) > 0.1
  assert statistics.estimate(z).error == 0


AT = (1, 2, 4, 8, 16)


def curve(*losses):
  """Rows of a loss at lengths 16 to 256."""
  row = lambda loss: {'value': loss, 'undefined': 'no such position'}
  return {('fixed_targets', 'none', 16 * a): row(v) for a, v in zip(AT, losses, strict=True)}


@pytest.mark.parametrize('losses, doublings', [
  ((1.0, 0.9, 0.905, 1.21, 1.3), 2 + 0.005 / 0.305),
  ((1.0, 1.02, 1.03, 1.04, 1.05), 0.5),
  ((1.0, 1.0, None, None, None), 1),
  ((1.0, 1.0, 1.0, 1.0, 1.0), 4),
  ((1.0, 0.9, 0.8, 0.7, 0.6), 4),  # the greatest length, wherever the loss began
  ((1.0, 1.2, 0.995, 1.5, 1.5), 2 + 0.01 / 0.505),
])  # fmt: skip
def test_reach_is_the_greatest_length_near_the_lowest_loss(losses, doublings):
  texts = [f'fixed_targets/none/{16 * a}' for a in AT]
  assert quantities.reach(curve(*losses), texts, AT).value == pytest.approx(doublings)


def test_the_best_scale_is_the_bottom_of_the_parabola():
  scales = [0.9, 1.0, 1.1, 1.2, 1.3]
  texts = [f'fixed_targets/scale:{s * s:.4f}/16' for s in scales]
  seed = lambda best: {
    ('fixed_targets', f'scale:{s * s:.4f}', 16): {'value': (s - best) ** 2} for s in scales
  }
  for best in (1.13, 1.0):
    found = quantities.best_scale(seed(best), texts, (1,) * 5)
    assert found.value == pytest.approx(best, abs=1e-4)
  with pytest.raises(quantities.Missing, match=r'scale is 1\.69, at the edge of the grid'):
    quantities.best_scale(seed(2.0), texts, (1,) * 5)


@pytest.mark.parametrize('gain', [0.0, 0.4])
def test_a_gain_without_overlap_is_of_early_tokens_or_of_later_ones(gain):
  # 16 tokens of which the first 4 fall to a level of 1; past them the loss is 1 - gain.
  losses = [3.0, 2.0, 1.5, 1.0] + [1.0 - gain] * 12
  own = {('by_position', 'none', 16): {'value': 0.0, 'by_position': losses}}
  given = (own, ['by_position/none/16'], (4,))
  early, later = quantities.early_tokens(*given).value, quantities.later_tokens(*given).value
  assert early == pytest.approx(-0.75 * 0.875) and later == pytest.approx(-0.75 * gain)
  assert early + later == pytest.approx(np.mean(losses) - np.mean(losses[:4]))
  # Where losses past them scatter, neither is surer: all seeds read the same text.
  losses[4:] = [1.0, 1.4, 0.6] * 4
  assert quantities.later_tokens(*given).step == pytest.approx(
    0.75 * np.std([1, 1.4, 0.6] * 4, ddof=1)
  )


def test_a_scale_is_tuned_on_documents_that_are_not_scored():
  texts = ['fixed_targets/none/16', 'fixed_targets/scale:2/16']
  weights = (1, 1, 1, 1)
  plain = rows([1.0, 5.0, 1.0, 7.0], weights=weights)
  doubled = rows([0.5, 9.0, 0.5, 9.0], control='scale:2', weights=weights)
  got = quantities.tuned(plain | doubled, texts, (1, 1))
  np.testing.assert_allclose(got.value, [9.0, 9.0])  # better on the others, worse on these
  counted = {k: row | {'hits': 1, 'windows': 4} for k, row in (plain | doubled).items()}
  got = quantities.tuned(counted, texts, (1, 1))
  np.testing.assert_allclose(got.value, [5.0, 7.0])  # the more answers the better
  assert got.step == 1 / 2  # half of them are scored


def test_a_scale_at_the_edge_of_its_grid_is_none():
  texts = [f'fixed_targets/scale:{s}/16' for s in ('0.5', '1', '2')]
  made = lambda *losses: {
    key: row
    for text, loss in zip(texts, losses, strict=True)
    for key, row in rows([loss] * 4, control=text.split('/')[1], weights=(1,) * 4).items()
  }
  assert quantities.tuned(made(3.0, 2.0, 4.0), texts, (1,) * 3).value.tolist() == [2.0, 2.0]
  for losses, edge in (((1.0, 2.0, 4.0), '0.5'), ((3.0, 2.0, 1.0), '2')):
    with pytest.raises(quantities.Missing, match=f'scale is {edge}, at the edge'):
      quantities.tuned(made(*losses), texts, (1,) * 3)
  texts[0] = 'fixed_targets/scale:0/16'  # attention is uniform: no grid goes on below
  assert quantities.tuned(made(1.0, 2.0, 4.0), texts, (1,) * 3).value.tolist() == [1.0, 1.0]
  counted = {k: row | {'hits': 4, 'windows': 4} for k, row in made(0.0, 0.0, 1.0).items()}
  with pytest.raises(quantities.Missing, match='scale is 2, at the edge'):
    quantities.tuned(counted, texts, (1,) * 3)
  none = {k: row | {'hits': 0, 'windows': 4} for k, row in made(0.0, 0.0, 0.0).items()}
  assert quantities.tuned(none, texts, (1,) * 3).value.tolist() == [0.0, 0.0]  # at 1, as all alike


@pytest.mark.parametrize(
  'bound, seeds', [(0.5, 3), (0.02, 5), (-0.02, 5), (0.0, 3), (1e-9, 3), (0.03, 3)]
)
def test_small_thresholds_take_five_seeds(bound, seeds):
  claim = claim_fixtures.claim(tests=(Expect('x', NOTHING, above=bound),))
  assert claim.fewest_seeds == seeds
  with pytest.raises(ValueError, match=rf'T01 needs at least {seeds} seeds.*there are 2'):
    verdicts.check_seeds(claim, 2)
  verdicts.check_seeds(claim, seeds)
  assert claim_fixtures.claim(least_seeds=7).fewest_seeds == 7


def test_effects_add_up_as_they_are_written():
  a, b, c = (Quantity(name) for name in 'abc')
  assert (a - b).terms == ((1.0, a), (-1.0, b))
  assert (2.0 * a - 0.5 * b - c).terms == ((2.0, a), (-0.5, b), (-1.0, c))
  assert isinstance(3.0 * (a - b), Effect) and (3.0 * (a - b)).terms == ((3.0, a), (-3.0, b))
