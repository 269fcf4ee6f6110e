"""The experiments that stretch a run, without training and with it: whole, and tiny."""

import importlib

import pytest
import run_fixtures

from experiments import finetune, stretch
from experiments.studies import comparability
from pe_research.runs import run_folder
from pe_research.storage import files


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  return run_fixtures.trained(tmp_path_factory.mktemp('trained'))


def losses(workdir):
  return {row['eval_length']: row['value'] for row in files.read_rows(workdir / 'results.jsonl')}


@pytest.mark.slow
def test_every_way_of_stretching_is_measured_on_the_same_targets(trained, tmp_path):
  flags = (f'--run={trained}', f'--workdir={tmp_path}', '--factors=2')
  done = run_fixtures.run('-m', 'experiments.stretch', *flags, timeout=500)
  assert done.returncode == 0, done.stderr
  folder = tmp_path / '2x'
  runs = {name: folder / 'runs' / name for name in stretch.VARIANTS}
  assert {p.name for p in (folder / 'runs').iterdir()} == set(stretch.VARIANTS)
  rows = [row for w in runs.values() for row in files.read_rows(w / 'results.jsonl')]
  assert len({row['targets'] for row in rows}) == 1
  assert {row['eval_length'] for row in rows} == {16, 32, 64}
  raw = losses(trained)
  assert losses(runs['rope']) == {n: raw[n] for n in (16, 32, 64)}
  assert losses(runs['dynamic_ntk'])[16] == raw[16] != losses(runs['ntk'])[16]
  searched = run_folder.load_config(runs['longrope'])['position']
  found = files.read_json(folder / 'search_2x' / 'factors.json')
  assert searched['long_factor'] == found['long_factor'] and found['target_length'] == 32
  assert found['search']['evaluations'] == 1344
  for name in ('report.html', 'loss_by_length.png', 'results.jsonl'):
    assert (folder / name).exists()
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('results.jsonl') if 'runs' in p.parts}
  again = run_fixtures.run('-m', 'experiments.stretch', *flags)
  assert again.returncode == 0 and ' min ' in done.stdout and ' min ' not in again.stdout
  assert {p: p.stat().st_mtime_ns for p in before} == before
  other = run_fixtures.run('-m', 'experiments.stretch', *flags[:2], '--factors=4')
  assert other.returncode == 2 and 'factors: [2.0] -> [4.0]' in other.stderr


@pytest.mark.slow
def test_every_recipe_has_the_same_tokens_and_its_controls(trained, tmp_path):
  flags = (f'--run={trained}', f'--workdir={tmp_path}', '--factor=2', '--shares=100')
  done = run_fixtures.run('-m', 'experiments.finetune', *flags, timeout=500)
  assert done.returncode == 0, done.stderr
  folder = tmp_path / '100percent'
  runs = comparability.load([folder / 'runs' / name for name in finetune.NAMES])
  record = {run.workdir.name: run.record for run in runs}
  assert {r['scheme'] for r in record.values()} == {'rope', 'pi', 'abf', 'yarn', 'longrope'}
  length = {run.workdir.name: run.config['length'] for run in runs}
  assert length == {'same': 16, 'raw': 32, 'pi': 32, 'abf': 32, 'yarn': 16, 'longrope': 16}
  spent = {}
  for run in [*runs, *comparability.load(sorted((folder / 'stages').iterdir()))]:
    config, name = run.config, run.workdir.name.split('_')[0]
    tokens = config['steps'] * config['optimizer']['batch'] * config['length']
    spent[name] = spent.get(name, 0) + tokens
  assert set(spent.values()) == {20 * 8 * 16}
  own = files.read_json(trained / 'run.json')['final_parameters']
  assert record['pi']['start']['parameters'] == own
  stage = files.read_json(folder / 'stages' / 'yarn_1' / 'run.json')
  assert stage['start']['parameters'] == own
  assert record['yarn']['start']['parameters'] == stage['final_parameters']
  assert record['yarn']['start']['start']['parameters'] == own  # the whole line of descent
  assert 'config.length' in (folder / 'report.html').read_text()


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['experiments.stretch', '--factors=0.5'], ['--factors', '0.5', 'at least 1']),
    (['experiments.stretch', '--run=/nowhere'], ['/nowhere', 'no config.json']),
    (['experiments.finetune', '--factor=1'], ['--factor', 'at least 2']),
    (['experiments.finetune', '--shares=1,0'], ['--shares', '0', 'positive']),
    (['experiments.finetune', '--shares=1,x'], ['--shares', '1,x', 'numbers']),
    (['experiments.progressive', '--length=64'], ['--length is 64', 'at 16 tokens']),
    (['experiments.progressive', '--length=0'], ['--length is 0', 'at 16 tokens']),
    (['experiments.progressive', '--factors=4,1'], ['--factors has 1', 'more than 1']),
    (['experiments.progressive', '--factors=4'], ['--factors has 1 stage', 'two']),
    (['experiments.progressive', '--share=0'], ['--share is 0', 'positive']),
  ],
)
def test_a_bad_flag_is_one_line(trained, tmp_path, capsys, flags, words):
  given = [f'--run={trained}', f'--workdir={tmp_path}', *flags[1:]]
  with pytest.raises(SystemExit) as ended:
    importlib.import_module(flags[0]).main(given)
  error = capsys.readouterr().err
  said = error.strip().splitlines()
  assert ended.value.code == 2 and [line for line in said if 'error: ' in line] == said[-1:]
  for word in words:
    assert word in error
