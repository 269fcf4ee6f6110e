"""Progressive extension from a trained run to recovered short contexts: whole, and tiny."""

import pytest
import run_fixtures

from experiments import progressive
from pe_research.runs import run_folder
from pe_research.storage import files


def losses(workdir):
  return {row['eval_length']: row['value'] for row in files.read_rows(workdir / 'results.jsonl')}


@pytest.mark.slow
def test_the_progressive_extension_ends_in_factors_for_long_and_short(tmp_path):
  trained = run_fixtures.trained(tmp_path)
  flags = (f'--run={trained}', f'--workdir={tmp_path}', '--factors=2,2')
  done = run_fixtures.run('-m', 'experiments.progressive', *flags, timeout=500)
  assert done.returncode == 0, done.stderr
  first, second = (files.read_json(tmp_path / f'search_{n}' / 'factors.json') for n in (32, 64))
  both = files.read_json(tmp_path / 'search_16_short' / 'factors.json')
  tuned = run_folder.load_config(tmp_path / 'runs' / 'tuned_32')
  assert tuned['length'] == 32 and tuned['position']['long_factor'] == first['long_factor']
  # The second search multiplies what the weights were tuned with.
  ratio = [b / a for a, b in zip(first['long_factor'], second['long_factor'], strict=True)]
  assert min(ratio) > 0.999 and max(ratio) <= 2.5001 and second['target_length'] == 64
  assert both['long_factor'] == second['long_factor'] and both['switch_length'] == 16
  end = run_folder.load_config(tmp_path / 'runs' / 'recovered')['position']
  assert end['short_factor'] == both['short_factor'] and end['train_length'] == 16
  long, whole = losses(tmp_path / 'runs' / 'searched_64'), losses(tmp_path / 'runs' / 'recovered')
  assert {n: whole[n] for n in (32, 64)} == {n: long[n] for n in (32, 64)}
  assert whole[16] != long[16]
  difference = whole[64] - whole[32]
  assert f'NLL(64) - NLL(32) = {difference:+.4f} nats/token' in done.stdout
  base = losses(tmp_path / 'runs' / 'base')
  assert f'NLL(16) - that of the base = {whole[16] - base[16]:+.4f}' in done.stdout
  assert progressive.LONG > 64
  other = run_fixtures.run('-m', 'experiments.progressive', *flags[:2], '--factors=2,4')
  assert other.returncode == 2 and 'factors: [2.0, 2.0] -> [2.0, 4.0]' in other.stderr
