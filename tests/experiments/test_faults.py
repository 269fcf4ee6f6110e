"""The campaign of kills and damage: it finds what is lost, and nothing is."""

import random

import pytest
import run_fixtures

from experiments.faults import campaign, damage, trials, works

SEED = 7


@pytest.mark.slow
def test_two_minutes_of_kills_and_damage_lose_nothing(tmp_path):
  command = ('-m', 'experiments.bench', 'faults', '--minutes=2', f'--seed={SEED}')
  done = run_fixtures.run(*command, f'--workdir={tmp_path}', timeout=1200)
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'SIGKILL' in done.stdout and 'swapped' in done.stdout


@pytest.mark.parametrize('kind', damage.KINDS)
def test_damage_is_to_one_file_and_drawn_by_its_seed(kind, tmp_path, monkeypatch):
  monkeypatch.setattr(damage, 'KINDS', (kind,))
  found = []
  for name in ('one', 'other', 'twin'):
    (tmp_path / name / 'run').mkdir(parents=True)
    for file in ('config.json', 'run.json'):
      (tmp_path / name / 'run' / file).write_text(f'{{"seed": 1234, "name": "{name == "twin"}"}}')
  for name in ('one', 'other'):
    folder = tmp_path / name
    before = {path: path.read_bytes() for path in (folder / 'run').iterdir()}
    found.append(damage.apply(random.Random(SEED), folder, ('run/*.json',), tmp_path / 'twin'))
    changed = [p for p, text in before.items() if not p.exists() or p.read_bytes() != text]
    assert changed == [folder / found[0].path]
    assert found[0].is_as_left(folder) and found[0].kind == kind
  assert found[0] == found[1]
  assert found[0].is_named(f'error: {found[0].path} is damaged') and not found[0].is_named('error')


def test_what_was_lost_is_found_in_what_is_left(tmp_path):
  (tmp_path / 'run' / 'checkpoints' / '8' / 'extra').mkdir(parents=True)
  metadata = tmp_path / 'run' / 'checkpoints' / '8' / 'extra' / 'metadata'
  metadata.write_text('{"digest": "of the state"}')
  rows = tmp_path / 'run' / 'metrics.jsonl'
  rows.write_text('{"step": 1, "loss": 2.5, "tokens_per_second": 7}\n')
  before = works.left(tmp_path)
  rows.write_text('{"step": 1, "loss": 9}\n{"step": 1, "loss": 2.5, "tokens_per_second": 8}\n')
  assert works.differences(before, works.left(tmp_path)) == []
  rows.write_text('{"step": 1, "loss": 2.6}\n')
  metadata.write_text('{"digest": "of another"}')
  assert works.differences(before, works.left(tmp_path)) == [
    'run/checkpoints',
    'run/metrics.jsonl',
  ]


def test_the_table_counts_faults_and_losses():
  made = [
    trials.Result(0, 'SIGKILL', 'main', 3),
    trials.Result(1, 'SIGKILL', 'search', 1, 'it hung'),
  ]
  lines = [line.split() for line in campaign.table(made)]
  assert lines[1:] == [
    ['SIGKILL', 'all', '4', '3', '1'],
    ['SIGKILL', 'main', '3', '3', '0'],
    ['SIGKILL', 'search', '1', '0', '1'],
  ]
