"""Finished runs in the explorer: what they learned, and their attention, as a browser has them."""

import base64
import json
import re

import browser
import numpy as np
import pytest
import run_fixtures
from explorer_case import chromium, hover, number, settle, tabs

from experiments.report import __main__ as report_command
from pe_research import positions
from pe_research.explorer import main
from pe_research.main import run
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions import alibi, longrope_file
from pe_research.runs import run_folder
from pe_research.show.explorer import page, runs, trained

TRAINED = 16


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  """A RoPE run and a T5 run on one corpus, the learning rate high enough to move the table."""
  root = tmp_path_factory.mktemp('sweep')
  corpus = run_fixtures.write_corpus(root / 'text')
  found = [root / 'runs' / name for name in ('rope', 't5')]
  for workdir in found:
    run(run_fixtures.config(corpus, workdir.name, optimizer__learning_rate=0.01), workdir)
  return found


@pytest.fixture(scope='module')
def searched(workdirs, tmp_path_factory):
  """A file as a search leaves it."""
  scheme, _ = trained.Run(workdirs[0]).scheme()[0]
  found = {
    'kind': longrope_file.KIND, 'base': scheme.base, 'rotated': scheme.rotated,
    'train_length': TRAINED, 'target_length': 4 * TRAINED,
    'long_factor': [1.0 + i for i in range(scheme.rotated // 2)],
  }  # fmt: skip
  path = tmp_path_factory.mktemp('search') / 'factors.json'
  path.write_text(json.dumps(found))
  return path


@pytest.fixture(scope='module')
def file(workdirs, searched, tmp_path_factory):
  target = tmp_path_factory.mktemp('page') / 'explorer.html'
  given = [f'--workdir={workdir}' for workdir in reversed(workdirs)]  # what is stretched last
  main([*given, '--stretch=pi:factor=4', f'--stretch=longrope:file={searched}', f'--out={target}'])
  return target


@pytest.fixture
def tab(file):
  with chromium() as one, tabs(one, file) as opened:
    yield opened(width=1300)


@pytest.fixture(scope='module')
def data(file):
  return json.loads(re.search(r'id="data">(.*?)</script>', file.read_text())[1])


def unpacked(text: str, *shape: int) -> np.ndarray:
  """Maps with zeros above the diagonal."""
  maps = np.zeros(shape)
  below = np.frombuffer(base64.b64decode(text), '<u2').reshape(*shape[:-2], -1) / 65_535
  maps[..., *np.tril_indices(shape[-1])] = below
  return maps


@pytest.mark.slow
def test_learned_values_are_those_of_the_run(workdirs, data):
  given = data['schemes']['t5']
  scheme, dims = trained.Run(workdirs[1]).scheme()[0]
  np.testing.assert_allclose(given['parameters'][0]['table'], scheme.table[...], atol=1e-8)
  assert given['notes'] == ['learned by the run t5'] and given['dims']['heads'] == dims.heads
  begun = FunctionalDecoder(run_folder.load_config(workdirs[1])).init()['position/0/table']
  assert np.abs(np.array(given['parameters'][0]['table']) - begun).max() > 1e-3
  fresh = data['schemes']['kerple']
  assert 'untrained' in fresh['notes'][0] and fresh['dims']['heads'] == dims.heads


def test_views_are_at_the_trained_length_beyond_it_and_stretched(workdirs, searched, data):
  t5, rope = data['looks']
  assert [view['label'] for view in rope['views']] == [
    'RoPE, 16 tokens', 'RoPE, 64 tokens', 'PI, factor=4, 64 tokens',
    'LongRoPE, file=factors.json, 64 tokens',
  ]  # fmt: skip
  assert [view['length'] for view in t5['views']] == [16, 64]
  stretches = None, None, 'pi:factor=4', f'longrope:file={searched}'
  for view, stretch in zip(rope['views'], stretches, strict=True):
    look = trained.Run(workdirs[0]).look(view['length'], stretch)
    np.testing.assert_allclose(unpacked(view['maps'], *look.maps.shape), look.maps, atol=1e-5)
  assert (rope['layers'], rope['heads']) == look.maps.shape[:2]


def test_thinned_curves_keep_every_position():
  values = np.random.default_rng(0).normal(size=300)
  at, means = runs.averaged(values)
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
  report_command.main([f'--workdir={sweep}'])
  assert 'explorer.html' not in (sweep / 'report.html').read_text()
  report_command.main([f'--workdir={sweep}', '--explorer'])
  assert 'href="explorer.html"' in (sweep / 'report.html').read_text()
  text = (sweep / 'explorer.html').read_text()
  data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
  assert [look['label'] for look in data['looks']] == ['RoPE (rope)', 'T5 bias (t5)']


def test_factors_that_were_searched_are_shown(searched, data):
  given, wanted = data['schemes']['longrope'], json.loads(searched.read_text())['long_factor']
  assert given['arguments']['long_factor'] == wanted
  assert 'a search found for 64 tokens (factors.json)' in given['factors']


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_what_follows_from_sizes_in_a_resolved_config_follows_again(name):
  given = positions.example(name, page.DIMS.rotary // 2)
  resolved = json.loads(json.dumps(positions.resolve(given, page.DIMS)))
  assert runs.without_derived(resolved, page.DIMS) == json.loads(json.dumps(given))


def test_what_a_run_says_for_itself_stays():
  given = positions.defaults('rnope') | {'window': 5}
  assert runs.without_derived(positions.resolve(given, page.DIMS), page.DIMS)['window'] == 5


@browser.needed
def test_heads_can_be_changed_where_a_run_has_said_how_many(tab, tmp_path):
  """An ALiBi config has the number of heads in two places; its slopes follow both."""
  given = positions.defaults('alibi')
  free = runs.without_derived(positions.resolve(given, page.DIMS), page.DIMS)
  for heads in (2, 8):
    found = tab.evaluate(
      '([args, dims]) => new TWINS.alibi(args, dims, {}).slopes', [free, {'heads': heads}]
    )
    assert found == pytest.approx(list(alibi.slopes(heads)))


@browser.needed
def test_the_views_are_drawn(tab, data, file):
  assert tab.evaluate('look.run') == 1  # the run that is stretched
  for i, look in enumerate(data['looks']):
    tab.get_by_label('model', exact=True).select_option(index=i)
    settle(tab)
    assert tab.locator('#maps h3').all_inner_texts() == [v['label'] for v in look['views']]
    maps = unpacked(look['views'][0]['maps'], look['layers'], look['heads'], TRAINED, TRAINED)
    drawn = tab.evaluate("charts().at(-1 - look.maps.length).view.data('cells')")
    assert len(drawn) == TRAINED * (TRAINED + 1) // 2
    assert all(c['v'] == pytest.approx(maps[0, 0, c['y'], c['x']], abs=1e-6) for c in drawn)
    lines = tab.evaluate("look.losses.chart.view.data('cells').map(({by}) => by)")
    assert list(dict.fromkeys(lines)) == [view['label'] for view in look['views']]


@browser.needed
def test_maps_and_losses_say_their_values(tab, workdirs, data):
  look = trained.Run(workdirs[0]).look(TRAINED)
  hover(tab, 'look.maps[0].reader.chart', 3, 9)
  readout = lambda: tab.locator('#maps .readout').first.text_content()
  said = re.fullmatch(
    r'query 9 “(.*)”: (\S+) % of the attention to key 3 “(.*)”\.', readout(), re.DOTALL
  )
  assert number(said[2]) == pytest.approx(100 * look.maps[0, 0, 9, 3], rel=1e-3, abs=1e-2)
  text = tab.locator('#maps .text').first
  assert text.locator('mark').all_text_contents() == [look.tokens[3], look.tokens[9]]
  assert text.text_content() == ''.join(look.tokens[:TRAINED])
  tab.locator('#maps .chart').first.focus()
  tab.keyboard.press('ArrowRight')
  assert 'key 4' in readout() and tab.locator('#said').text_content() == readout()
  views = {view['label']: view for view in data['looks'][1]['views']}
  view = views['RoPE, 64 tokens']
  hover(tab, 'look.losses.chart', view['at'][-1], view['loss'][-1])
  label, words = tab.locator('#losses .readout').inner_text().split(': ')
  assert views[label]['length'] == 64
  assert number(words.split()[0]) == pytest.approx(views[label]['loss'][-1], rel=1e-3)


@browser.needed
def test_runs_fit_a_narrow_window_that_was_wide(tab):
  room = lambda: tab.evaluate(
    "charts().map(({element: e}) => [e.clientWidth, e.querySelector('canvas').clientWidth])"
  )
  before = room()
  for width in (360, 1300):
    tab.set_viewport_size({'width': width, 'height': 900})
    settle(tab)
    assert tab.evaluate('document.documentElement.scrollWidth') <= width
    assert all(canvas <= element <= width for element, canvas in room())
  assert room() == before
