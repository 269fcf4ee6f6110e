"""The decision rule, case by case, and what is kept of a claim."""

import json
import math
import pathlib

import numpy as np
import pytest
import toys

from experiments import claims, ledger, quantities, statistics, verdicts
from experiments.claims.terms import Effect, Expect, Quantity, nll
from experiments.plan import Planner
from experiments.scales import SCALES

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
  other = verdicts.decide(Expect('x', NOTHING, above=0.5), estimate(-0.02, 0.1))
  assert other.seeds == statistics.seeds_needed(other.estimate, 0.0)
  between = verdicts.decide(Expect('x', NOTHING, above=0.5), estimate(0.02, 0.1))
  assert between.seeds is None  # of the right sign and too small, however many there are


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


def test_verdicts_fall_where_there_were_many_claims():
  found = [('reproduced', 0.01), ('reproduced', 0.04), ('refuted', 0.001), ('not run', 1.0)]
  held = verdicts.corrected(found)
  assert [v for v, _ in held] == ['reproduced', 'reproduced', 'refuted', 'not run']
  assert [round(p, 3) for _, p in held] == [0.02, 0.04, 0.003, 1.0]
  held = verdicts.corrected([*found, ('inconclusive', 0.5)])
  assert [v for v, _ in held][:2] == ['reproduced', 'inconclusive']


def rows(values, protocol='fixed_targets', control='none', length=16, weights=(10, 20)):
  """Rows of seeds, one document mean a column."""
  made = []
  for own in np.atleast_2d(values):
    documents = {
      f'd{i}': [float(v * w), w] for i, (v, w) in enumerate(zip(own, weights, strict=True))
    }
    value = sum(s for s, _ in documents.values()) / sum(weights)
    made.append({(protocol, control, length): {'value': value, 'documents': documents}})
  return made


def test_effects_are_sums_over_the_same_documents():
  one, other = rows([[1.0, 2.0], [1.5, 2.5]]), rows([[0.5, 1.0], [0.5, 2.0]])
  table = {'a': one, 'b': other}
  measured = lambda q: (table[q.model], [('fixed_targets/none/16', 1)])
  z = quantities.effect(2.0 * nll('a') - nll('b'), measured)
  assert z.shape == (2, 2)
  want = [2 * (1 * 10 + 2 * 20) / 30 - (0.5 * 10 + 20) / 30,
          2 * (1.5 * 10 + 2.5 * 20) / 30 - (0.5 * 10 + 2 * 20) / 30]  # fmt: skip
  np.testing.assert_allclose(z.mean(1), want)
  table['b'] = rows([[1.0, 2.0, 3.0]] * 2, weights=(1, 1, 1))
  with pytest.raises(ValueError, match=r'\[2, 3\] documents'):
    quantities.effect(nll('a') - nll('b'), measured)
  with pytest.raises(quantities.Missing, match='fixed_targets/none/32 has not been measured'):
    quantities.effect(nll('a') - nll('a'), lambda q: (one, [('fixed_targets/none/32', 2)]))


def test_reach_ends_before_the_loss_rises():
  at = (1, 2, 4, 8, 16)
  texts = [f'fixed_targets/none/{16 * a}' for a in at]

  def curve(*losses):
    own = {}
    for length, loss in zip((16, 32, 64, 128, 256), losses, strict=True):
      row = {'value': loss, 'undefined': 'no such position'}
      own['fixed_targets', 'none', length] = row
    return own

  seeds = [
    curve(1.0, 0.9, 0.905, 1.2, 0.9),
    curve(1.0, 1.02, 1.0, 1.0, 1.0),
    curve(1.0, 1.0, None, None, None),
    curve(1.0, 1.0, 1.0, 1.0, 1.0),
    curve(1.0, 0.5, 0.5, 0.5, 0.6),
  ]
  np.testing.assert_allclose(quantities.reach(seeds, texts, at), [2, 0, 1, 4, 3])


def test_the_best_scale_is_the_bottom_of_the_parabola():
  scales = [0.9, 1.0, 1.1, 1.2, 1.3]
  texts = [f'fixed_targets/scale:{s * s:.4f}/16' for s in scales]
  seed = lambda best: {
    ('fixed_targets', f'scale:{s * s:.4f}', 16): {'value': (s - best) ** 2} for s in scales
  }
  found = quantities.best_scale([seed(1.13), seed(1.0), seed(2.0)], texts, (1,) * 5)
  np.testing.assert_allclose(found, [1.13, 1.0, 1.3], atol=1e-4)


def test_a_gain_without_overlap_is_of_early_tokens_or_of_later_ones():
  # 16 tokens of which the first 4 fall to a level of 1; past them the loss is 1 - gain.
  curve = lambda gain: [3.0, 2.0, 1.5, 1.0] + [1.0 - gain] * 12
  seeds = [
    {('by_position', 'none', 16): {'value': 0.0, 'by_position': curve(g)}} for g in (0.0, 0.4)
  ]
  given = (seeds, ['by_position/none/16'], (4,))
  early, later = quantities.early_tokens(*given), quantities.later_tokens(*given)
  np.testing.assert_allclose(early, [-0.75 * 0.875] * 2)
  np.testing.assert_allclose(later, [0.0, -0.3], atol=1e-12)
  whole = [np.mean(curve(g)) - np.mean(curve(g)[:4]) for g in (0.0, 0.4)]
  np.testing.assert_allclose(early + later, whole)


def test_a_scale_is_tuned_on_documents_that_are_not_scored():
  texts = ['fixed_targets/none/16', 'fixed_targets/scale:2/16']
  weights = (1, 1, 1, 1)
  plain = rows([[1.0, 5.0, 1.0, 7.0]], weights=weights)[0]
  doubled = rows([[0.5, 9.0, 0.5, 9.0]], control='scale:2', weights=weights)[0]
  got = quantities.tuned([plain | doubled], texts, (1, 1))
  np.testing.assert_allclose(got, [[9.0, 9.0]])  # better on the first and third, worse on these


@pytest.mark.parametrize('claim', claims.CLAIMS.values(), ids=lambda c: c.id)
def test_kept_verdicts_follow_from_kept_rows(claim):
  for scale in SCALES.values():
    kept = ledger.path(scale.name, claim, 'verdict.json')
    if not kept.exists():
      continue
    kept = json.loads(kept.read_text())
    found, note = ledger.read_rows(ledger.path(scale.name, claim, 'rows.jsonl'))
    assert not note
    record = {k: kept[k] for k in ('scale', 'registered', 'runs', 'core_minutes', 'refused')}
    again = ledger.settle(claim, Planner(scale, pathlib.Path('x')), found, record)
    again = json.loads(json.dumps(ledger.as_json(again)))
    assert again.keys() == kept.keys() and again['verdicts'].keys() == kept['verdicts'].keys()
    assert again['verdict'] == kept['verdict']
    for mine, theirs in zip(again['tests'], kept['tests'], strict=True):
      assert (mine['says'], mine['verdict']) == (theirs['says'], theirs['verdict'])
      assert math.isclose(mine.get('value', 0), theirs.get('value', 0), rel_tol=1e-9, abs_tol=1e-12)


def test_a_file_that_was_cut_gives_its_whole_rows(tmp_path):
  file = tmp_path / 'rows.jsonl'
  file.write_text('{"a": 1}\n{"a": 2}\n{"a":')
  found, note = ledger.read_rows(file)
  assert found == [{'a': 1}, {'a': 2}] and 'rows.jsonl' in note and '2 whole rows' in note
  file.write_text('{"a": 1}\n')
  assert ledger.read_rows(file) == ([{'a': 1}], '')
  assert ledger.read_rows(tmp_path / 'none.jsonl') == ([], '')


def test_too_few_seeds_are_refused():
  claim = toys.claim(fewest_seeds=5)
  with pytest.raises(ValueError, match=r'T01 needs at least 5 seeds.*there are 3'):
    verdicts.fewest(claim, 3)
  verdicts.fewest(claim, 5)


def test_effects_add_up_as_they_are_written():
  a, b, c = (Quantity(name) for name in 'abc')
  assert (a - b).terms == ((1.0, a), (-1.0, b))
  assert (2.0 * a - 0.5 * b - c).terms == ((2.0, a), (-0.5, b), (-1.0, c))
  assert isinstance(3.0 * (a - b), Effect) and (3.0 * (a - b)).terms == ((3.0, a), (-3.0, b))
