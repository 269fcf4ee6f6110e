"""Finished runs in the explorer: what they learned, and their attention, as a browser has them."""

import base64
import json
import re

import browser
import numpy as np
import pytest
import small
from playwright.sync_api import sync_playwright

from experiments import report
from pe_research import records
from pe_research.blueprint import Blueprint
from pe_research.explorer import runs, trained
from pe_research.explorer.__main__ import main
from pe_research.main import run

TRAINED = 16


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """A RoPE run and a T5 run on one corpus, the learning rate high enough to move the table."""
  root = tmp_path_factory.mktemp('sweep')
  corpus = small.write_corpus(root / 'text')
  found = [root / 'runs' / name for name in ('rope', 't5')]
  for workdir in found:
    run(small.config(corpus, workdir.name, optimizer__learning_rate=0.01), workdir)
  return found


@pytest.fixture(scope='module')
def file(workdirs, tmp_path_factory):
  target = tmp_path_factory.mktemp('page') / 'explorer.html'
  given = [f'--workdir={workdir}' for workdir in workdirs]
  main([*given, '--stretch=pi:factor=4', f'--out={target}'])
  return target


@pytest.fixture(scope='module')
def data(file):
  return json.loads(
    re.search(r'id="data">(.*?)</script>', file.read_text())[1].replace(r'<\/', '</')
  )


def unpacked(text: str, *shape: int) -> np.ndarray:
  """Maps with zeros above the diagonal."""
  maps = np.zeros(shape)
  below = np.frombuffer(base64.b64decode(text), '<u2').reshape(*shape[:-2], -1) / 65_535
  maps[..., *np.tril_indices(shape[-1])] = below
  return maps


def test_learned_values_are_those_of_the_run(workdirs, data):
  given = data['schemes']['t5']
  scheme, dims = trained.scheme(workdirs[1])[0]
  np.testing.assert_allclose(given['parameters'][0]['table'], scheme.table[...], atol=1e-8)
  assert given['source'] == 'of the run t5' and given['dims']['heads'] == dims.heads
  begun = Blueprint(records.load_config(workdirs[1])).init()['position/0/table']
  assert np.abs(np.array(given['parameters'][0]['table']) - begun).max() > 1e-3
  fresh = data['schemes']['kerple']
  assert fresh['source'] == 'as drawn before training' and fresh['dims']['heads'] == dims.heads


def test_views_are_at_the_trained_length_beyond_it_and_stretched(workdirs, data):
  rope, t5 = data['looks']
  assert [view['label'] for view in rope['views']] == [
    'RoPE, 16 tokens', 'RoPE, 64 tokens', 'PI, factor=4, 64 tokens'
  ]  # fmt: skip
  assert [view['length'] for view in t5['views']] == [16, 64]
  for view, stretch in zip(rope['views'], (None, None, 'pi:factor=4'), strict=True):
    look = trained.look(workdirs[0], view['length'], stretch)
    np.testing.assert_allclose(unpacked(view['maps'], *look.maps.shape), look.maps, atol=1e-5)
  assert (rope['layers'], rope['heads']) == look.maps.shape[:2]


def test_thinned_curves_keep_every_position():
  values = np.random.default_rng(0).normal(size=300)
  at, means = runs.thinned(values)
  assert len(at) == len(means) < 80
  ends = np.unique(np.round(2 ** np.arange(0, np.log2(300), 1 / 8)).astype(int)).tolist()
  whole, start = 0.0, 0
  for mean, end in zip(means, dict.fromkeys([*ends, 300]), strict=True):
    whole, start = whole + mean * (end - start), end
  assert whole == pytest.approx(values.sum(), abs=1e-2) and start == 300
  assert at[0] == 1 and at == sorted(at) and at[-1] < 300


def test_a_stretch_of_no_use_is_refused(workdirs, capsys):
  with pytest.raises(SystemExit):
    main([f'--workdir={workdirs[1]}', '--stretch=pi:factor=4', '--out=x.html'])
  assert "stretches a run of 'rope', and no --workdir is one" in capsys.readouterr().err


def test_a_report_comes_with_a_page_to_explore_its_runs(workdirs):
  sweep = workdirs[0].parents[1]
  report.main([f'--workdir={sweep}'])
  assert 'explorer.html' not in (sweep / 'report.html').read_text()
  report.main([f'--workdir={sweep}', '--explorer'])
  assert 'href="explorer.html"' in (sweep / 'report.html').read_text()
  text = (sweep / 'explorer.html').read_text()
  data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1].replace(r'<\/', '</'))
  assert [look['label'] for look in data['looks']] == ['RoPE (rope)', 'T5 bias (t5)']


@browser.needed
def test_the_views_are_drawn(file, data):
  said = []
  with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(executable_path=browser.BROWSER, args=['--no-sandbox'])
    tab = chromium.new_page(viewport={'width': 1300, 'height': 900})
    tab.on('console', lambda message: said.append(message.text))
    tab.on('pageerror', lambda error: said.append(str(error)))
    tab.goto(file.as_uri())
    for i, look in enumerate(data['looks']):
      tab.locator('#look-bar select').select_option(index=i)
      tab.wait_for_function(
        'look.charts.length === DATA.looks[look.run].views.length'
        ' && look.charts.every((chart) => chart.view) && look.losses.view'
      )
      assert tab.locator('#maps h3').all_inner_texts() == [v['label'] for v in look['views']]
      maps = unpacked(look['views'][0]['maps'], look['layers'], look['heads'], TRAINED, TRAINED)
      drawn = tab.evaluate("look.charts[0].view.data('cells').map(({x, y, v}) => [x, y, v])")
      assert all(v == pytest.approx(maps[0, 0, y, x], abs=1e-6) for x, y, v in drawn)
      assert len(drawn) == TRAINED * (TRAINED + 1) // 2
      lines = tab.evaluate("look.losses.view.data('cells').map(({by}) => by)")
      assert list(dict.fromkeys(lines)) == [view['label'] for view in look['views']]
    assert tab.evaluate('document.documentElement.scrollWidth') <= 1300
    tab.screenshot(path=str(file.parent / 'runs.png'), full_page=True)
    chromium.close()
  assert not said, said
