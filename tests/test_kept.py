"""What is kept of a claim: its rows, and the verdict that they give."""

import json
import pathlib

import pytest
import toys

from experiments import campaign, claims, ledger, verdicts
from experiments.claims.terms import Expect, nll
from experiments.plan import Planner
from experiments.report.claims import __main__ as again
from experiments.report.claims import rows
from experiments.scales import SCALES
from pe_research import records

KEPT = [
  pytest.param(scale, claim, id=f'{claim.id}-{scale.name}')
  for scale in SCALES.values()
  for claim in claims.CLAIMS.values()
  if ledger.path(scale.name, claim, 'verdict.json').exists()
]


def near(value):
  """Numbers to 6 digits, all else as it is."""
  return pytest.approx(value, rel=1e-6, abs=1e-12) if isinstance(value, float | list) else value


@pytest.mark.parametrize('scale, claim', KEPT)
def test_kept_verdicts_follow_from_kept_rows(scale, claim):
  kept = json.loads(ledger.path(scale.name, claim, 'verdict.json').read_text())
  if tuple(kept['verdicts']) != claim.variants:
    pytest.skip(f'{claim.id} was run as {[*kept["verdicts"]]}, and asks {claim.variants}.')
  again = json.loads(json.dumps(ledger.as_json(rows.again(rows.planner(scale), claim)[0])))
  assert again.keys() == kept.keys() and again['verdict'] == kept['verdict']
  for variant, (verdict, p) in kept['verdicts'].items():
    assert again['verdicts'][variant] == [verdict, near(p)]
  for mine, theirs in zip(again['tests'], kept['tests'], strict=True):
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
      assert mine[name] == near(value), f'{theirs["says"]}: {name}'


def test_kept_verdicts_are_decided_once_more_by_a_command(tmp_path, monkeypatch, capsys):
  claim = claims.CLAIMS['C12']
  files = {kind: ledger.path('cpu', claim, kind) for kind in ('rows.jsonl', 'verdict.json')}
  want = json.loads(files['verdict.json'].read_text())
  monkeypatch.setattr(ledger, 'RESULTS', tmp_path)
  (tmp_path / 'cpu').mkdir()
  ledger.path('cpu', claim, 'rows.jsonl').write_bytes(files['rows.jsonl'].read_bytes())
  made = ledger.path('cpu', claim, 'verdict.json')
  made.write_text(json.dumps(want | {'tests': []}))
  again.main(['--scale=cpu'])
  tests = json.loads(made.read_text())['tests']
  assert [test['says'] for test in tests] == [test['says'] for test in want['tests']]
  made.write_text(json.dumps(want | {'verdicts': {'': ['refuted', 0.01]}}))
  before = made.read_bytes()
  again.main(['--scale=cpu'])
  assert made.read_bytes() == before and 'run the claim again' in capsys.readouterr().out


@pytest.mark.parametrize('codes, told', [
  (('a', 'a'), False), (('a', 'b'), True), (('a', None), True),
])  # fmt: skip
def test_claims_of_several_versions_of_the_code_are_told(codes, told, tmp_path, monkeypatch):
  made = {
    name: records.read_rows(ledger.path('cpu', claims.CLAIMS[name], 'rows.jsonl'))[:1]
    for name in ('C12', 'C17')
  }
  monkeypatch.setattr(ledger, 'RESULTS', tmp_path)
  (tmp_path / 'cpu').mkdir()
  for (name, kept), code in zip(made.items(), codes, strict=True):
    own = [row | ({'code': code} if code else {}) for row in kept]
    records.write_rows(ledger.path('cpu', claims.CLAIMS[name], 'rows.jsonl'), own)
  _, notes = rows.load(SCALES['cpu'])
  assert any('one version of the code' in note for note in notes) == told


def test_a_file_that_was_cut_gives_its_whole_rows(tmp_path):
  file = tmp_path / 'rows.jsonl'
  file.write_text('{"a": 1}\n{"a": 2}\n{"a":')
  found, note = ledger.read_rows(file)
  assert found == [{'a': 1}, {'a': 2}] and 'rows.jsonl' in note and '2 whole rows' in note
  file.write_text('{"a": 1}\n')
  assert ledger.read_rows(file) == ([{'a': 1}], '')
  assert ledger.read_rows(tmp_path / 'none.jsonl') == ([], '')


@pytest.fixture(scope='module')
def kept():
  """A toy claim, its planner, and rows of three seeds."""
  claim = toys.claim(tests=(Expect('RoPE - ALiBi', nll('rope') - nll('alibi'), above=0.5),))
  planner = Planner(toys.scale(pathlib.Path('text')), pathlib.Path('runs'))
  made = []
  for model, loss in (('alibi', 1.0), ('rope', 2.0)):
    for seed in range(3):
      key = planner.node(claim, model, seed).key
      place = {'protocol': 'fixed_targets', 'control': 'none', 'eval_length': 16}
      documents = {'a': [10 * loss, 10], 'b': [20 * (loss + 0.1 * seed), 20]}
      mean = sum(total for total, _ in documents.values()) / 30
      row = {'value': mean, 'documents': documents}
      made.append({'model': model, 'seed': seed, 'key': key} | place | row)
  return claim, planner, made


def test_rows_of_another_config_are_left_out_and_named(kept):
  claim, planner, made = kept
  assert ledger.current(claim, planner, made) == (made, [])
  stale = [row | {'key': 'another'} if row['seed'] == 1 else row for row in made]
  stale.append(made[0] | {'model': 'gone'})
  own, notes = ledger.current(claim, planner, stale)
  assert own == [row for row in made if row['seed'] != 1]
  assert notes == [
    "T01: rows of 'alibi', 'gone', 'rope' are of another config and left out; run the claim again."
  ]


def test_a_seed_that_lacks_something_is_left_out_and_named(kept):
  claim, planner, made = kept
  (whole,) = ledger.settle(claim, planner, made, {}).outcomes
  assert whole.estimate.seeds == 3 and not whole.why
  (few,) = ledger.settle(claim, planner, made[:-1], {}).outcomes
  assert few.verdict == verdicts.MISSING and '2 of at least 3 seeds' in few.why
  more = [row | {'seed': 3} for row in made if row['seed'] == 0 and row['model'] == 'alibi']
  (outcome,) = ledger.settle(claim, planner, made + more, {}).outcomes
  assert outcome.estimate == whole.estimate and 'without seed 3' in outcome.why


def test_a_job_that_was_done_again_costs_both_times(kept, tmp_path, monkeypatch):
  claim, planner, _ = kept
  monkeypatch.setattr(campaign.registered, 'since', lambda *_: {})
  own, costs = planner.add(claim, range(1)), tmp_path / 'costs.jsonl'
  trained, measured = own['rope'][0].job_names()
  spent = (trained, 60.0), (measured, 10.0), (measured, 20.0), ('another', 99.0)
  records.write_rows(costs, [{'job': job, 'seconds': seconds} for job, seconds in spent])
  found = campaign.decide(claim, planner, own, costs).record
  assert {run['model']: run['core_seconds'] for run in found['runs']} == {'alibi': 0, 'rope': 90}
  assert found['core_minutes'] == 1.5
