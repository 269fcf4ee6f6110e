"""The whole path of a claim in miniature: plan, train, stop, go on, measure, decide, report."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import sys

import browser
import claim_fixtures
import pytest
import run_fixtures

from experiments import claims
from experiments.report.claims import writer as pages
from experiments.studies import check, ledger, preregistration, runner, statistics, verdicts
from experiments.studies.plan import Planner
from experiments.studies.terms import Effect, Expect, Model, Quantity, found, nll
from launch import local
from launch.job_process import COSTS
from pe_research.attention import logits, tiled
from pe_research.data import batches
from pe_research.evaluation.measures import base
from pe_research.positions import alibi
from pe_research.storage import files

MODELS = {'alibi': Model('alibi'), 'rope': Model('rope'), 'pi': Model('pi:factor=4', start='rope')}
EARLY = Effect(((1.0, Quantity('alibi', 'by_position', at=(4,), of='early_tokens')),))
TESTS = (
  Expect('RoPE - RoPE, cropped, at L', nll('rope') - nll('rope', 1, 'cropped'), -1e-9, 1e-9),
  Expect('PI at 4 L - ALiBi at L', nll('pi', 4) - nll('alibi'), above=-5, below=5),
  Expect('half of a loss', nll('rope') - 0.5 * nll('rope'), below=0),
  Expect('early tokens', EARLY, above=-5, below=5),
  Expect('found at 2 L', found('rope', 2) - found('alibi', 2), above=-1, below=1, unit='share'),
)

REGISTERED = {'commit': 'f' * 40, 'clean': True, 'changed_after': [], 'otherwise': {}}


@contextlib.contextmanager
def at_home(folder):
  """A claim, its scale, the directory of its runs; what it comes to is kept beside them."""
  scale, claim = (
    claim_fixtures.scale(folder / 'text'),
    claim_fixtures.claim(models=MODELS, tests=TESTS),
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('JAX_PLATFORMS', 'cpu')
    patch.setattr(ledger, 'RESULTS', folder / 'kept')
    patch.setattr(preregistration, 'since', lambda *_: REGISTERED)
    patch.setattr(claims, 'CLAIMS', {claim.id: claim})
    yield claim, scale, folder / 'runs'


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
  folder = tmp_path_factory.mktemp('campaign')
  run_fixtures.write_corpus(folder / 'text', documents=16)
  with at_home(folder) as made:
    yield made


def run_all(folder):
  """What each of several processes does with the claim of a folder; ends this one."""
  with at_home(pathlib.Path(folder)) as (claim, scale, workdir):
    raise SystemExit(carry_out([claim], scale, workdir))


def carry_out(claims, scale, workdir, keep=True):
  planner, nodes = runner.prepare(claims, scale, 3, workdir)
  return runner.run(claims, planner, nodes, keep=keep)


def started(workdir):
  """Names of the jobs that this and earlier processes finished, sorted."""
  rows = [row for file in workdir.rglob(COSTS) for row in files.read_rows(file)]
  return sorted(row['job'] for row in rows if row['ended'] == 'done')


def interrupted(claim, scale, workdir, after):
  """Runs until `after` jobs are done, and then is interrupted as by Ctrl-C."""
  run = local.run

  def stopping(jobs, watch, workers):
    def look():
      watch()
      if len(started(workdir)) >= after:
        raise KeyboardInterrupt

    return run(jobs, look, workers)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(local, 'run', stopping)
    with pytest.raises(KeyboardInterrupt):
      carry_out([claim], scale, workdir)


@pytest.fixture(scope='module')
def settled(toy):
  """Stopped, and resumed to the end by two processes at once."""
  claim, scale, workdir = toy
  interrupted(claim, scale, workdir, 3)
  code = f'import test_runner; test_runner.run_all({str(workdir.parent)!r})'
  two = [run_fixtures.start('-c', code, PYTHONPATH=':'.join(sys.path)) for _ in range(2)]
  said = [process.communicate(timeout=400)[0] for process in two]
  assert [process.returncode for process in two] == [0, 0], said
  return files.read_json(ledger.path('toy', claim, 'verdict.json'))


def test_nothing_is_done_twice(toy, settled):
  claim, scale, workdir = toy
  done = started(workdir)
  planner, _ = runner.prepare([claim], scale, 3, workdir)
  assert done == sorted(job.name for job in planner.jobs())
  assert carry_out([claim], scale, workdir) == 0
  assert started(workdir) == done
  assert files.read_json(ledger.path('toy', claim, 'verdict.json')) == settled


def test_the_verdict_says_what_it_is_made_of(toy, settled):
  cropped, between, never, early, values = settled['tests']
  assert early['verdict'] == 'reproduced' and early['seeds'] == 3
  assert values['verdict'] == 'reproduced' and values['documents'] > 2
  assert cropped['verdict'] == 'reproduced' and cropped['value'] == 0
  assert between['verdict'] == 'reproduced' and between['seeds'] == 3 and between['documents'] > 2
  assert never['verdict'] == 'refuted'
  assert settled['verdict'] == 'refuted' and settled['registered'] == REGISTERED
  assert all(settled['costs'].values()) and not settled['refused']
  assert settled['costs'].keys() == set(started(toy[2]))
  assert {(r['model'], r['seed']) for r in settled['runs']} == {
    (model, seed) for model in MODELS for seed in range(3)
  }
  assert all(r['commit'] and r['fingerprint'] for r in settled['runs'])


def test_the_verdict_follows_from_the_kept_rows(toy, settled):
  _, scale, _ = toy
  (finding,), notes = pages.load(scale)
  again = json.loads(json.dumps(ledger.as_json(finding)))
  assert not notes and again == settled


def test_documents_are_kept_where_a_test_reads_them(toy, settled):
  claim, _, _ = toy
  rows, _ = ledger.read_rows(ledger.path('toy', claim, 'rows.jsonl'))
  plain = [row for row in rows if (row['protocol'], row['control']) == ('fixed_targets', 'none')]
  tested = {('rope', 16), ('pi', 64), ('alibi', 16)}
  for row in plain:
    assert ('documents' in row) == ((row['model'], row['eval_length']) in tested)
  assert {row['eval_length'] for row in plain if row['model'] == 'pi'} == {16, 32, 64}
  (curve, *_) = [row['by_position'] for row in rows if row['protocol'] == 'by_position']
  assert len(curve) == 64


def test_rows_of_another_config_are_not_read(toy, settled):
  _, scale, workdir = toy
  other = claim_fixtures.claim(models=MODELS | {'rope': Model('rope:base=300')}, tests=TESTS)
  planner, nodes = runner.prepare([other], scale, 3, workdir)
  finding = runner.decide(other, planner, nodes['T01'])
  assert finding.verdict == verdicts.MISSING
  assert 'has not been measured' in finding.outcomes[0].why


def test_runs_on_another_text_are_refused(toy, settled):
  claim, scale, workdir = toy
  planner, nodes = runner.prepare([claim], scale, 3, workdir)
  file = nodes['T01']['alibi'][1].workdir / 'run.json'
  before = file.read_text()
  record = files.read_json(file)
  record['conditions']['data.source'] = 'another'
  files.write_json(file, record)
  try:
    finding = runner.decide(claim, planner, nodes['T01'])
  finally:
    file.write_text(before)
  assert finding.verdict == verdicts.MISSING
  assert any('data.source' in line and 'another' in line for line in finding.record['refused'])


@pytest.mark.parametrize('field, said', [
  ('fingerprint', 'rows of alibi-seed1'),
  ('program', 'scoring programs without the scheme differ'),
  ('own_program', 'scoring programs with the scheme differ'),
  ('environment', 'versions, flags or devices of the measurement differ'),
])  # fmt: skip
def test_rows_of_another_run_or_program_are_refused(toy, settled, field, said, capsys, monkeypatch):
  claim, scale, workdir = toy
  _, nodes = runner.prepare([claim], scale, 3, workdir)
  file = nodes['T01']['alibi'][1].workdir / 'results.jsonl'
  before = file.read_text()
  files.write_rows(file, [row | {field: 'another'} for row in files.read_rows(file)])
  try:
    assert carry_out([claim], scale, workdir, keep=False) == 1
  finally:
    file.write_text(before)
  out = capsys.readouterr().out
  assert 'T01 toy_t01, alone: not run' in out and 'refused, since runs differ: ' in out
  assert said in out and 'alibi-seed1' in out


def checked(claim, scale, workdir, capsys):
  """Whether kept rows describe the code as it is, and what was printed of them."""
  holds = check.show([claim], Planner(scale, workdir))
  return holds, capsys.readouterr().out


def test_kept_rows_describe_the_code_that_made_them(toy, settled, capsys):
  rows, _ = ledger.read_rows(ledger.path('toy', toy[0], 'rows.jsonl'))
  holds, said = checked(*toy, capsys)
  assert holds and 'All kept rows match the code.' in said
  assert said.splitlines()[1].split() == ['T01', str(len(rows)), str(len(rows))]


def changed_mask(patch):
  for module in (logits, tiled):
    patch.setattr(module, 'MASKED', -1e29)


def changed_slopes(patch):
  slopes = alibi.slopes
  patch.setattr(alibi, 'slopes', lambda *given: 1.01 * slopes(*given))


def changed_windows(patch):
  spread = base._spread
  patch.setattr(base, '_spread', lambda *given: spread(*given)[::-1])


def changed_batches(patch):
  draw = batches.Memory.draw
  patch.setattr(batches.Memory, 'draw', lambda self: {k: v[::-1] for k, v in draw(self).items()})


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.usefixtures('own_texts')
@pytest.mark.parametrize('change, whose, what', [
  (changed_mask, "'rope'", 'training programs without the scheme'),
  slow(changed_mask, "'pi'", 'scoring programs without the scheme (fixed_targets)'),
  slow(changed_slopes, "'alibi'", 'training programs with the scheme'),
  slow(changed_slopes, "'alibi'", 'scoring programs with the scheme (passkey)'),
  slow(changed_windows, "'rope'", 'scored windows (passkey)'),
  slow(changed_batches, "'rope'", 'orders of batches'),
])  # fmt: skip
def test_what_the_code_does_otherwise_is_named(toy, settled, change, whose, what, capsys):
  with pytest.MonkeyPatch.context() as patch:
    change(patch)
    holds, said = checked(*toy, capsys)
  assert not holds
  assert f'T01, {whose}, seeds 0, 1, 2: {what} differ' in said.splitlines()
  if change is changed_slopes:
    assert "'rope'" not in said and 'without the scheme' not in said


def test_rows_whose_programs_are_not_on_record_are_no_proof(toy, settled, capsys):
  file = ledger.path('toy', toy[0], 'verdict.json')
  before = file.read_text()
  files.write_json(file, {k: v for k, v in settled.items() if k != 'conditions'})
  try:
    holds, said = checked(*toy, capsys)
  finally:
    file.write_text(before)
  assert holds and said.count('its programs are not on record') == len(MODELS)
  assert said.splitlines()[1].split()[-1] == '0'


@pytest.mark.slow
def test_a_verdict_that_its_rows_no_longer_give_is_named(toy, settled, capsys, monkeypatch):
  monkeypatch.setattr(statistics, 'CAUTION', 2.0)
  holds, said = checked(*toy, capsys)
  assert not holds and 'its kept verdict does not follow from its kept rows' in said


@pytest.mark.parametrize('field', ['step', 'settings'])
def test_rows_of_other_weights_or_settings_are_left_alone(toy, settled, field):
  claim, scale, workdir = toy
  planner, nodes = runner.prepare([claim], scale, 3, workdir)
  file = nodes['T01']['alibi'][1].workdir / 'results.jsonl'
  before, other = file.read_text(), {'step': 4, 'settings': 'another'}[field]
  strange = [row | {field: other, 'value': 99.0} for row in files.read_rows(file)]
  files.write_rows(file, [*files.read_rows(file), *strange])
  try:
    finding = runner.decide(claim, planner, nodes['T01'])
  finally:
    file.write_text(before)
  assert json.loads(json.dumps(ledger.as_json(finding)))['tests'] == settled['tests']


@pytest.mark.slow
def test_another_claim_measures_more_of_a_stretched_run(toy, settled):
  _, scale, workdir = toy
  test = Expect('PI at 2.5 L - at 4 L', nll('pi', 2.5) - nll('pi', 4), above=-5, below=5)
  other = claim_fixtures.claim('T04', models=MODELS, tests=(test,), figure=(2.5,))
  before = started(workdir)
  assert carry_out([other], scale, workdir, keep=False) == 0
  again = [name for name in set(before) if started(workdir).count(name) > before.count(name)]
  assert sum('as-pi' in name for name in again) == 3  # and only what was missing, see below
  _, nodes = runner.prepare([other], scale, 3, workdir)
  rows = files.read_rows(nodes['T04']['pi'][0].workdir / 'results.jsonl')
  measured = [(row['protocol'], row['control'], row['eval_length']) for row in rows]
  assert len(set(measured)) == len(measured) and ('fixed_targets', 'none', 40) in measured


def test_a_quantity_that_is_undefined_decides_nothing(toy, settled):
  _, scale, workdir = toy
  far = Expect('far', Quantity('rope', at=(3,)) - nll('rope'), above=0)
  other = claim_fixtures.claim(models=MODELS, tests=(far,), figure=())
  planner, nodes = runner.prepare([other], scale, 3, workdir)
  finding = runner.decide(other, planner, nodes['T01'])
  assert finding.verdict == verdicts.MISSING
  assert 'fixed_targets/none/48 has not been measured' in finding.outcomes[0].why


def test_rows_that_were_cut_off_are_measured_again(toy, settled, capsys):
  claim, scale, workdir = toy
  _, nodes = runner.prepare([claim], scale, 3, workdir)
  file = nodes['T01']['rope'][1].workdir / 'results.jsonl'
  key = lambda row: (row['eval_length'], row['protocol'], row['control'])
  rows = sorted(files.read_rows(file), key=key, reverse=True)
  files.write_rows(file, rows)
  file.write_bytes(file.read_bytes()[:-9])
  assert carry_out([claim], scale, workdir) == 0
  said = capsys.readouterr().out
  assert f'{file} lacks fixed_targets/cropped/16, though it was measured' in said
  assert sorted(files.read_rows(file), key=key, reverse=True) == rows
  kept = files.read_json(ledger.path('toy', claim, 'verdict.json'))
  assert kept['tests'] == settled['tests']


def test_a_run_that_failed_replaces_nothing_that_is_kept(toy, settled, capsys):
  claim, _, _ = toy
  rows = ledger.path('toy', claim, 'rows.jsonl')
  before = rows.read_bytes()
  (finding,), _ = pages.load(toy[1])
  fewer = dataclasses.replace(finding, rows=dict(list(finding.rows.items())[1:]))
  runner.save(fewer, 'toy', ['rope-seed1'])
  assert rows.read_bytes() == before and '(rope-seed1 not done)' in capsys.readouterr().out
  runner.save(finding, 'toy')
  assert rows.read_bytes() == before


def test_a_failed_run_is_named_and_the_rest_goes_on(toy, settled, capfd):
  _, scale, workdir = toy
  bad = Model('rope', fields={'optimizer.learning_rate': 1e30, 'optimizer.clip': 0.0})
  models = MODELS | {'bad': bad}
  test = Expect('bad', nll('bad') - nll('rope'), above=0)
  other = claim_fixtures.claim('T02', models=models, tests=(test,), figure=())
  fine = claim_fixtures.claim('T03', models=MODELS, tests=TESTS[:1], figure=())
  assert carry_out([other, fine], scale, workdir, keep=False) == 1
  said = capfd.readouterr()
  assert 'failed' in said.err and 'waited for one that is not done' in said.err
  assert 'toy_t02, alone: not run' in said.out and 'toy_t03, alone: reproduced' in said.out


def test_too_few_seeds_and_uncommitted_thresholds_are_refused_before_any_run(toy, monkeypatch):
  claim, scale, _ = toy
  with pytest.raises(ValueError, match=r'at least 3 seeds .* there are 2'):
    runner.check(claim, scale, 2, True)
  monkeypatch.setattr(preregistration, 'since', lambda *_: REGISTERED | {'clean': False})
  with pytest.raises(ValueError, match='the code of T01 is not committed'):
    runner.check(claim, scale, 3, True)


def test_what_is_kept_stays_where_less_was_found(toy, settled, monkeypatch, capsys):
  claim, scale, workdir = toy
  files = [ledger.path('toy', claim, kind) for kind in ('rows.jsonl', 'verdict.json')]
  before = [file.read_bytes() for file in files]
  planner, nodes = runner.prepare([claim], scale, 3, workdir)
  far = claim_fixtures.claim(
    models=MODELS, tests=(Expect('far', nll('rope', 3) - nll('pi', 3), above=0),)
  )
  runner.save(runner.decide(far, planner, nodes['T01']), 'toy')
  assert [file.read_bytes() for file in files] == before
  assert 'is left as it is' in capsys.readouterr().out
  monkeypatch.setattr(ledger, 'kept_seeds', lambda *_: 5)
  with pytest.raises(ValueError, match=r'have 5 seeds and --seeds=3 would replace them'):
    runner.check(claim, scale, 3, True)
  _, nodes = runner.prepare([claim], scale, 0, workdir)
  assert all(len(own) == 5 for own in nodes['T01'].values())


def test_page_and_markdown_show_every_claim(toy, settled, tmp_path):
  _, scale, _ = toy
  markdown, page, picture = pages.write(scale, tmp_path)
  text, html = markdown.read_text(), page.read_text()
  for shown in (text, html):
    assert 'T01' in shown and 'refuted' in shown and '1 / 2' in shown
    assert all(test.says in shown for test in TESTS)
  assert 'src=' not in html and 'http' not in html.replace('http://www.w3.org', '')
  assert html.count('<svg') == 4 and html.count('0.000 (0.00 to 0.28)') == 6  # untrained models
  before = [path.read_bytes() for path in (markdown, page, picture)]
  pages.write(scale, tmp_path)
  assert [path.read_bytes() for path in (markdown, page, picture)] == before


@browser.needed
@pytest.mark.parametrize('width', [360, 1280])
def test_the_page_is_whole_in_a_browser(toy, settled, width, tmp_path):
  _, scale, _ = toy
  _, page, _ = pages.write(scale, tmp_path)
  found = browser.probe(page, width)
  browser.check_layout(found, width, 'light')
  assert len(found['figures']) == 2
