"""What a report says of a claim in words: verdicts of each variant, size, cost, chance."""

import dataclasses

import claim_fixtures
import numpy as np
import pytest

from experiments import claims
from experiments.report.claims import rows, tables, texts
from experiments.studies import ledger, scales, statistics, verdicts
from experiments.studies.terms import Expect, nll


def finding(id_, p, costs=None):
  """Of a toy claim, each of whose variants three seeds refute, at these p values."""
  effect = nll('rope') - nll('alibi')
  tests = tuple(Expect('a - b', effect, above=0, variant=variant) for variant in p)
  found = statistics.estimate(np.array([-0.2, -0.12, -0.26]))
  outcomes = tuple(verdicts.decide(test, found) for test in tests)
  record = {'runs': [{}], 'registered': None, 'costs': costs}
  own = {variant: (verdicts.REFUTED, value) for variant, value in p.items()}
  return ledger.Finding(claim_fixtures.claim(id_, tests=tests), {}, outcomes, own, record)


def test_every_variant_has_what_it_is_alone():
  made = rows.judge([
    finding('T01', {'published': 0.001, 'matched': 0.03}),
    finding('T02', {'published': 0.03, 'matched': 0.04}),
    finding('T03', {'': 0.03}),
  ])  # fmt: skip
  needed = lambda row, claims: verdicts.seeds_to_keep(row.finding.outcomes[:1], 'refuted', claims)
  three, two = needed(made[0], 3), needed(made[0], 2)
  aside = 'inconclusive (alone: refuted; {} seeds would keep it)'.format
  assert (three, two) == (5, 4)
  assert [row.verdict_text for row in made] == [
    f'published: refuted; matched: {aside(two)}',
    f'published: {aside(three)}; matched: {aside(two)}',
    aside(three),
  ]


def test_a_claim_that_one_of_several_tests_refutes_says_what_would_keep_that():
  effect = nll('rope') - nll('alibi')
  tests = (Expect('a', effect, above=0), *(Expect(n, effect, above=-9) for n in 'bc'))
  weak = statistics.estimate(np.array([-0.14, -0.26, -0.2]))  # p = 0.03 of three tests
  outcomes = tuple(verdicts.decide(test, weak) for test in tests)
  assert [o.verdict for o in outcomes] == ['refuted', 'reproduced', 'reproduced']
  own = {'': verdicts.of_claim(outcomes)}
  assert own[''][0] == verdicts.INCONCLUSIVE
  (row,) = rows.judge([ledger.Finding(claim_fixtures.claim(tests=tests), {}, outcomes, own, {})])
  seeds = verdicts.seeds_to_keep(outcomes, 'refuted', 1)
  assert seeds > 3
  aside = f'by one test alone: refuted; {seeds} seeds would keep it'
  assert row.verdict_text == f'inconclusive ({aside})'
  control = dataclasses.replace(tests[1], control=True, above=9.0)
  without = (outcomes[0], verdicts.decide(control, weak), outcomes[2])
  finding = ledger.Finding(
    claim_fixtures.claim(), {}, without, {'': verdicts.of_claim(without)}, {}
  )
  assert rows.judge([finding])[0].verdict_text == 'inconclusive'


def test_what_claims_share_is_paid_for_once():
  jobs, later = {'a': 3600.0, 'b': 3600.0}, {'a': 7200.0}  # after more of it was measured
  of = lambda *own: [finding(f'T0{i}', {'': 0.01}, each) for i, each in enumerate(own)]
  whole = 'All together took 180 core minutes, which is 1.5 hours on 2 cores; 8 are allowed.'
  assert texts.cost(rows.judge(of(jobs, later)), scales.CPU) == whole
  assert texts.cost(rows.judge(of(later, jobs)), scales.CPU) == whole
  made = rows.judge(of(jobs, {'c': None, 'd': 60.0}, None))
  assert [row.cost for row in made] == ['120', '–', '–']
  said = (
    'All together took 121 core minutes, without all jobs of T01, T02, of which it is not known'
  )
  assert texts.cost(made, scales.CPU).startswith(f'{said}, which is 1.0 hours')
  assert texts.cost(made, scales.ACCELERATOR) == f'{said}.'
  for row in made:
    row.finding.record['runs'] = []
  assert texts.cost(made, scales.CPU) == ''


def test_the_lead_says_at_what_size():
  lead = texts.lead(rows.judge([finding('T01', {'': 0.01})]), scales.CPU)
  assert lead.startswith('1 refuted.') and '3 layers of width 64 trained on 64 bytes' in lead


def test_tasks_have_a_size_and_texts_a_length():
  of = lambda id_: ledger.Finding(claims.CLAIMS[id_], {}, (), {}, {})
  said = texts.protocol(of('C08'), scales.CPU)
  assert said.startswith('Tasks are trained up to size 6, in texts of 13 tokens. 3 layers')
  assert texts.protocol(of('C01'), scales.CPU).startswith('L = 64 tokens of state')


@pytest.mark.parametrize('table, row, shown', [
  (tables.shares, {'hits': 5, 'windows': 10, 'chance': 1e-4}, '0.500 0.0001 0.500 (0.24 to 0.76)'),
  (tables.probes, {'value': 4.125, 'chance': 16.0}, '16 4.12'),
])  # fmt: skip
def test_chance_stands_beside_what_was_measured(table, row, shown):
  own = {('rope', 0): {('any', 'none', 64): row, ('fixed_targets', 'none', 64): {'value': 2.0}}}
  made = table(ledger.Finding(claim_fixtures.claim(), own, (), {}, {}))
  assert [' '.join(cells) for cells in made.rows] == [f'RoPE any none 64 {shown}']
  assert table(ledger.Finding(claim_fixtures.claim(), {}, (), {}, {})) is None
