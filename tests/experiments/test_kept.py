"""What is kept of a claim: its rows, and the verdict that they give."""

import json
import pathlib

import claim_fixtures
import pytest

from experiments import claims
from experiments.report.claims import __main__ as again
from experiments.report.claims import rows
from experiments.studies import cost, ledger, runner, verdicts
from experiments.studies.plan import Planner
from experiments.studies.scales import SCALES
from experiments.studies.terms import Expect, Model, nll
from launch.job_process import COSTS
from pe_research.storage import files

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
  again = json.loads(json.dumps(ledger.as_json(ledger.decide_kept(rows.planner(scale), claim)[0])))
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


@pytest.mark.parametrize('programs, told', [
  (('a', 'a'), False), (('a', 'b'), True), (('a', None), True), ((None, None), True),
])  # fmt: skip
def test_claims_that_were_measured_by_other_programs_are_told(
  programs, told, tmp_path, monkeypatch
):
  """Of one model; what two claims measure of different models has programs of its own."""
  (one,) = files.read_rows(ledger.path('cpu', claims.CLAIMS['C12'], 'rows.jsonl'))[:1]
  monkeypatch.setattr(ledger, 'RESULTS', tmp_path)
  (tmp_path / 'cpu').mkdir()
  for name, program in zip(('C12', 'C17'), programs, strict=True):
    own = {k: v for k, v in (one | {'program': program}).items() if v is not None}
    files.write_rows(ledger.path('cpu', claims.CLAIMS[name], 'rows.jsonl'), [own])
  drop_stale = lambda claim, plan, rows: (rows, [])
  monkeypatch.setattr(ledger, 'drop_stale', drop_stale)
  _, notes = rows.load(SCALES['cpu'])
  assert any('by the same programs' in note for note in notes) == told


def test_a_file_that_was_cut_gives_its_whole_rows(tmp_path):
  file = tmp_path / 'rows.jsonl'
  one, two = (dict.fromkeys(sorted(ledger.REQUIRED), value) for value in (1, 2))
  text = [json.dumps(row) for row in (one, two)]
  file.write_text(f'{text[0]}\n{text[1]}\n{text[0][:9]}')
  found, note = ledger.read_rows(file)
  assert found == [one, two] and 'rows.jsonl: no whole row in line 3; the 2 whole rows' in note
  file.write_text(f'{text[0]}\n{text[1][:9]}\n{{"a": 1}}\n3\n{text[1]}\n')
  found, note = ledger.read_rows(file)
  assert found == [one, two] and 'no whole row in lines 2, 3, 4; the 2 whole rows' in note
  file.write_text(f'{text[0]}\n')
  assert ledger.read_rows(file) == ([one], '')
  assert ledger.read_rows(tmp_path / 'none.jsonl') == ([], '')


@pytest.fixture(scope='module')
def kept():
  """A toy claim, its planner, and rows of three seeds."""
  claim = claim_fixtures.claim(
    tests=(Expect('RoPE - ALiBi', nll('rope') - nll('alibi'), above=0.5),)
  )
  planner = Planner(claim_fixtures.scale(pathlib.Path('text')), pathlib.Path('runs'))
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
  assert ledger.drop_stale(claim, planner, made) == (made, [])
  stale = [row | {'key': 'another'} if row['seed'] == 1 else row for row in made]
  stale.append(made[0] | {'model': 'gone'})
  own, notes = ledger.drop_stale(claim, planner, stale)
  assert own == [row for row in made if row['seed'] != 1]
  assert notes == [
    "T01: rows of 'alibi', 'gone', 'rope' are of another config and left out; run the claim again."
  ]


def test_a_seed_that_lacks_something_is_left_out_and_named(kept):
  claim, planner, made = kept
  (whole,) = ledger.decide(claim, planner, made, {}).outcomes
  assert whole.estimate.seeds == 3 and not whole.why
  (few,) = ledger.decide(claim, planner, made[:-1], {}).outcomes
  assert few.verdict == verdicts.MISSING and '2 of at least 3 seeds' in few.why
  more = [row | {'seed': 3} for row in made if row['seed'] == 0 and row['model'] == 'alibi']
  (outcome,) = ledger.decide(claim, planner, made + more, {}).outcomes
  assert outcome.estimate == whole.estimate and 'without seed 3' in outcome.why


@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('order', [1, -1])
def test_what_is_no_number_decides_nothing(kept, value, order):
  _, planner, made = kept
  tests = (
    Expect('fine', nll('rope', 2) - nll('alibi', 2), above=-9, below=9),
    Expect('not', nll('rope', 4) - nll('alibi', 4), above=-9, below=9),
  )  # fmt: skip
  claim = claim_fixtures.claim(tests=tests[::order], figure=())
  rows = [row | {'eval_length': length} for row in made for length in (32, 64)]
  assert ledger.decide(claim, planner, rows, {}).verdict == verdicts.REPRODUCED
  bad = next(row for row in rows if row['eval_length'] == 64 and row['seed'] == 1)
  name = next(iter(bad['documents']))
  bad['documents'] = bad['documents'] | {name: [value, bad['documents'][name][1]]}
  finding = ledger.decide(claim, planner, rows, {})
  assert finding.verdict == verdicts.MISSING
  assert any('seed 1: fixed_targets/none/64: a value is not' in o.why for o in finding.outcomes)


@pytest.mark.parametrize('scale', SCALES.values(), ids=lambda scale: scale.name)
def test_the_speed_of_a_machine_is_measured_by_so_many_flops(scale):
  config = next(iter(Planner(scale, pathlib.Path('x')).add(claims.CLAIMS['C01'], [0]).values()))
  config = config[0].config
  made, steps = cost.sample(config, cost.MOST)
  flops = cost.flops_per_token(config) * config['length'] * made['optimizer']['batch'] * steps
  assert flops <= cost.MOST and made['model'] == config['model']
  whole = made['optimizer']['batch'] == config['optimizer']['batch']
  assert whole == (steps == cost.STEPS) == (scale.name == 'cpu')
  assert cost.sample(config) == (config, cost.STEPS)
  one, steps = cost.sample(config, 1.0)
  assert (one['optimizer']['batch'], one['optimizer']['accumulate'], steps) == (1, 1, 1)


def test_a_job_that_was_done_again_costs_both_times(kept, tmp_path):
  claim, scale = kept[0], kept[1].scale
  planner = Planner(scale, tmp_path)
  own = planner.add(claim, range(1))
  (rope,) = own['rope']
  trained, measured = rope.job_names()
  spent = (trained, 60.0), (measured, 10.0), (measured, 20.0), ('another', 99.0)
  rope.workdir.mkdir(parents=True)
  rows = [{'job': job, 'seconds': seconds} for job, seconds in spent]
  files.write_rows(rope.workdir / COSTS, rows)
  unknown = dict.fromkeys(own['alibi'][0].job_names())
  assert runner.costs(own) == {trained: 60.0, measured: 30.0} | unknown


def test_a_search_that_two_models_share_costs_once(kept, tmp_path):
  models = {
    'rope': Model('rope'),
    'searched': Model('longrope:file={searched}', start='rope', searched=4),
    'tuned': Model('longrope:file={searched}', length=4, start='rope', searched=4, share=50),
  }
  claim = claim_fixtures.claim(models=models, tests=(
    Expect('a', nll('tuned', 4) - nll('searched', 4), below=0),
  ))  # fmt: skip
  planner = Planner(kept[1].scale, tmp_path)
  own = planner.add(claim, range(1))
  (search,) = planner.searches.values()
  search.folder.mkdir(parents=True)
  files.write_rows(search.folder / COSTS, [{'job': search.name, 'seconds': 7.0}])
  spent = runner.costs(own)
  assert spent[search.name] == 7.0 and len(spent) == 2 + 1 + 2 + 1
  alone = [cost.of(group, planner, 1e12) for group in own.values()]
  once = cost.searching(*planner.searched[search.name], 1e12)
  together = cost.of([node for group in own.values() for node in group], planner, 1e12)
  assert together == pytest.approx(sum(alone) - once)
