"""The table of projections: formula against allocation, in the terminal and in the report."""

import json

import pytest
import run_fixtures
import sweeps

from experiments.report import tables, writer


@pytest.mark.slow
def test_the_table_is_printed_written_and_reported(tmp_path):
  flags = ['--contexts=20,40', '--width=32', '--heads=8', '--layers=2', '--repeats=1']
  done = run_fixtures.run('-m', 'experiments.cache', f'--workdir={tmp_path}', *flags, timeout=300)
  assert done.returncode == 0, done.stderr
  found = json.loads((tmp_path / tables.CACHE_FILE).read_text())
  allocated = {row['name']: row['allocated'] for row in found['rows']}
  numbers = {'MHA': 2 * 8 * 4, 'GQA, 4 key heads': 2 * 4 * 4, 'MQA': 2 * 4}
  numbers |= dict.fromkeys(['MLA, absorbed', 'MLA, expanded'], 4 * 4 + 2)
  assert allocated == {name: 2 * 4 * n for name, n in numbers.items()}
  assert all(row['formula'] == row['allocated'] for row in found['rows'])
  assert all(row['speed'].keys() == {'20', '40'} for row in found['rows'])
  for row in found['rows']:
    (line,) = (x for x in done.stdout.splitlines() if x.startswith(row['name'] + ' '))
    assert line.removeprefix(row['name']).split()[:2] == [str(row['allocated'])] * 2
  writer.write(sweeps.runs(tmp_path), tmp_path)
  page = (tmp_path / 'report.html').read_text()
  assert '<h2>Cache</h2>' in page and f'<data value="{allocated["MHA"]}">' in page


def test_a_bad_size_is_one_line(tmp_path):
  said = {'--contexts=0': '--contexts is 0', '--heads=6': 'model.heads', '--contexts=10.5': '10.5'}
  for flag, words in said.items():
    done = run_fixtures.run('-m', 'experiments.cache', f'--workdir={tmp_path}/x', flag)
    assert done.returncode == 2 and words in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / 'x').exists()
