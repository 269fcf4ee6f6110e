"""Seeds that train in one program are the runs that they would be alone."""

import json
import signal

import numpy as np
import pytest
import run_fixtures

from pe_research import together
from pe_research.runs import run_folder
from pe_research.storage import files, locks
from pe_research.training import loop, member, train_state

SEEDS = (0, 1, 2)


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


def configs(corpus, name='rope', **changes):
  return [run_fixtures.config(corpus, name, seed=seed, **changes) for seed in SEEDS]


def losses(workdir):
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return {row['step']: row['loss'] for row in rows if 'loss' in row}


def compare(one, other):
  """Two finished runs with one config: the same data, and the same numbers to tolerance."""
  config = run_folder.load_config(one)
  records_ = [files.read_json(workdir / 'run.json') for workdir in (one, other)]
  assert records_[0]['batches'] == records_[1]['batches']
  assert records_[0]['initial_parameters'] == records_[1]['initial_parameters']
  assert records_[0]['conditions'] == records_[1]['conditions']
  found, wanted = losses(one), losses(other)
  assert found.keys() == wanted.keys() and len(found) > 2
  for step in wanted:
    assert found[step] == pytest.approx(wanted[step], rel=1e-5)
  mine, theirs = (train_state.load_params(config, workdir) for workdir in (one, other))
  assert mine[1] == theirs[1] == config['steps']
  for path in theirs[0]:
    np.testing.assert_allclose(mine[0][path], theirs[0][path], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ('name', 'changes'),
  [
    ('rope', {}),
    pytest.param('t5', {'optimizer__accumulate': 2}, marks=pytest.mark.slow),
    pytest.param('randomized', {}, marks=pytest.mark.slow),
    ('pose', {'optimizer__accumulate': 2}),
  ],
)
def test_each_seed_is_its_single_run(name, changes, corpus, tmp_path):
  given = configs(corpus, name, **changes)
  runs = {tmp_path / f'both{config["seed"]}': config for config in given}
  assert loop.train_all(runs)
  for config, workdir in zip(given, runs, strict=True):
    alone = tmp_path / f'alone{config["seed"]}'
    loop.train(config, alone)
    compare(workdir, alone)
    assert files.read_json(workdir / 'run.json')['together'] == [*SEEDS]


@pytest.mark.slow
def test_seeds_go_on_from_what_all_of_them_have(corpus, tmp_path, monkeypatch):
  given = configs(corpus, run__save_every=4)
  whole = {tmp_path / f'whole{config["seed"]}': config for config in given}
  assert loop.train_all(whole)
  runs = {tmp_path / f'part{config["seed"]}': config for config in given}
  save, saved = member.Member.save, []

  def killed(self, step, *rest):
    if step == 8 and len(saved) == 4:  # the first seed has saved this step, the others have not
      raise KeyboardInterrupt
    saved.append(step)
    save(self, step, *rest)

  monkeypatch.setattr(member.Member, 'save', killed)
  with pytest.raises(KeyboardInterrupt):
    loop.train_all(runs)
  monkeypatch.setattr(member.Member, 'save', save)
  assert loop.train_all(runs)
  for one, other in zip(runs, whole, strict=True):
    finals = [files.read_json(w / 'run.json')['final_parameters'] for w in (one, other)]
    assert finals[0] == finals[1]
    assert losses(one) == losses(other)


def test_a_signal_stops_all_after_saving(corpus, tmp_path):
  given = configs(corpus)
  runs = {tmp_path / f'{config["seed"]}': config for config in given}

  def beat(doing):
    if doing == 'step 5':
      signal.raise_signal(signal.SIGTERM)

  assert not loop.train_all(runs, beat)
  begun = []
  assert loop.train_all(runs, begun.append)
  assert 'step 6' in begun and 'step 5' not in begun
  begun.clear()
  assert loop.train_all(runs, begun.append)
  assert not any(doing.startswith('step') for doing in begun)  # all are finished


def test_seeds_end_as_runs_with_results(tmp_path, corpus):
  command = [
    '-m', 'pe_research.together', '--config=configs/smoke.py:position=alibi', '--seeds=0,1',
    f'--workdir={tmp_path}/alibi_{{seed}}', f'--config.data.source={corpus}', '--config.length=16',
    '--config.eval.lengths=(16, 32)', '--config.steps=4', '--config.eval.tokens=256',
    '--config.optimizer.warmup=1', '--config.eval.windows=2',
  ]  # fmt: skip
  done = run_fixtures.run(*command)
  assert done.returncode == 0, done.stderr
  for seed in (0, 1):
    workdir = tmp_path / f'alibi_{seed}'
    assert files.read_json(workdir / 'done.json') == {'steps': 4}
    rows = files.read_rows(workdir / 'results.jsonl')
    assert {row['eval_length'] for row in rows} == {16, 32} and rows[0]['seed'] == seed
  folders = f'{tmp_path}/alibi_0 {tmp_path}/alibi_1'
  assert f'wrote {folders}; compare: python -m experiments.report {folders}' in done.stdout


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--seeds=0,1', '--workdir=x'], 'write {seed} where the seed belongs'),
    (['--seeds=0,0', '--workdir=x{seed}'], '--seeds=0,0 names one twice'),
  ],
)
def test_bad_flags_are_refused(flags, says, capsys, monkeypatch, tmp_path):
  monkeypatch.chdir(run_fixtures.ROOT)
  with pytest.raises(SystemExit):
    together.main(['--config=configs/smoke.py', *flags])
  assert says in capsys.readouterr().err


def test_what_trains_nothing_is_refused(corpus):
  with pytest.raises(ValueError, match='steps is 0'):
    loop.check_same_but_seed([run_fixtures.config(corpus) | {'steps': 0}])


def test_a_workdir_in_use_is_refused(corpus, tmp_path):
  command = [
    '-m', 'pe_research.together', '--config=configs/smoke.py', '--seeds=0,1',
    f'--workdir={tmp_path}/{{seed}}', f'--config.data.source={corpus}',
  ]  # fmt: skip
  with locks.claim(tmp_path / '1'):
    done = run_fixtures.run(*command)
  assert done.returncode == 2 and f'{tmp_path}/1 is in use by process' in done.stderr


def test_runs_that_differ_in_more_are_refused(corpus):
  one, other = (
    run_fixtures.config(corpus),
    run_fixtures.config(corpus, seed=1, optimizer__learning_rate=0.5),
  )
  with pytest.raises(ValueError, match=r'^optimizer.learning_rate: .* differ in their seed alone'):
    loop.check_same_but_seed([one, other])
