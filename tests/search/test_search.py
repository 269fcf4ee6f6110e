"""LongRoPE's search: what it tries, that it can be killed, and what its losses are."""

import dataclasses
import itertools

import hypothesis
import numpy as np
import pytest
import run_fixtures
from hypothesis import strategies as st

from pe_research import main, positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.common import provenance
from pe_research.data import texts
from pe_research.runs import lineage, run_folder
from pe_research.search import __main__ as command
from pe_research.search import ledger, methods, objective, plan, space
from pe_research.settings import cli, configs
from pe_research.storage import files
from pe_research.training import train_state

SPACE = space.Space(10_000.0, 16, 64, 4.0, 5.0, (0, 1, 2, 4, 8))
SMALL = methods.Settings(population=12, mutations=4, crossovers=4, iterations=6, parents=6)
each_method = pytest.mark.parametrize('method', methods.METHODS)
GOAL = np.array([1.0, 1.1, 1.3, 1.8, 2.5, 3.0, 3.6, 4.4])


def worth(candidate):
  """A loss with one minimum inside the space, where n-hat is 4."""
  distance = np.square(np.log(candidate.factors) - np.log(GOAL)).sum()
  return float(distance) + 0.01 * abs(candidate.start_tokens - 4)


def tried(method, settings=SMALL, where=SPACE, worth=worth):
  """Batches of candidates in order."""
  search = methods.METHODS[method](where, settings, np.random.default_rng(settings.seed))
  batches = [next(search)]
  while True:
    try:
      batches.append(search.send([worth(c) for c in batches[-1]]))
    except StopIteration:
      return batches


@each_method
@hypothesis.given(
  seed=st.integers(0, 10_000),
  factor=st.sampled_from([1.5, 2.0, 4.0, 16.0]),
  rotated=st.sampled_from([4, 8, 16, 64]),
)
@hypothesis.settings(max_examples=6)
def test_every_candidate_is_new_and_never_falls(method, seed, factor, rotated):
  hypothesis.assume((method, factor, rotated) != ('released', 1.5, 64))  # see the next test
  where = space.Space(500.0, rotated, 64, factor, 1.25 * factor, (0, 1, 2))
  target = lambda c: float(np.square(np.array(c.factors) - factor / 2).sum() + c.start_tokens)
  settings = dataclasses.replace(SMALL, seed=seed)
  found = [c for batch in tried(method, settings, where, target) for c in batch]
  assert len(set(found)) == len(found) <= settings.evaluations
  for candidate in found:
    row = [1.0, *candidate.factors, 1.25 * factor]
    assert all(a <= b for a, b in itertools.pairwise(row)) and len(row) == rotated // 2 + 2
    assert candidate.start_tokens in ((0,) if method == 'released' else (0, 1, 2))


def test_sweeps_of_the_released_method_that_never_rise_are_refused(monkeypatch):
  """Many pairs and a short stretch leave each so little room that a sweep nearly always falls."""
  monkeypatch.setattr(methods, 'LIMIT', 1_000)
  where = space.Space(500.0, 64, 64, 1.5, 1.875, (0, 1, 2))
  with pytest.raises(ValueError, match=r'1,000 sweeps.*32 pairs up to 1\.875; raise --factor'):
    tried('released', SMALL, where)


@pytest.mark.parametrize('method', ['paper', 'released', 'random', 'coordinate'])
def test_the_number_of_evaluations_is_that_of_the_settings(method):
  assert sum(map(len, tried(method))) == SMALL.evaluations == 12 + 6 * 8
  assert methods.Settings().evaluations == 1344  # 64 + 40 (16 + 16)


def test_the_grid_over_two_numbers_is_nearly_as_many():
  found = [c for batch in tried('yarn_grid') for c in batch]
  assert 0.9 * SMALL.evaluations <= len(found) <= SMALL.evaluations
  assert {c.start_tokens for c in found} == {0}


@each_method
def test_the_same_seed_gives_the_same_candidates(method):
  assert tried(method) == tried(method)
  other = tried(method, dataclasses.replace(SMALL, seed=1))
  assert (other == tried(method)) == (method == 'yarn_grid')


def test_the_first_generation_has_the_seeds():
  theta = 10_000.0 ** (-np.arange(0, 16, 2) / 16)
  first = [np.array(c.factors) for c in tried('paper')[0]]
  np.testing.assert_array_equal(first[0], np.full(8, 4.0))  # PI
  wide = 10_000.0 * 4 ** (16 / 14)
  np.testing.assert_allclose(first[1], theta * wide ** (np.arange(0, 16, 2) / 16))  # NTK-aware
  # YaRN at L = 64: 64 / 2 pi = 10.2 turns are below beta_fast, so the ramp begins at pair 0;
  # the pair that turns once is 16 ln(10.19) / (2 ln 10,000) = 2.02, hence 3.
  gamma = 1 - np.clip(np.arange(8) / 3, 0, 1)
  np.testing.assert_allclose(first[2], 1 / (gamma + (1 - gamma) / 4))
  released = np.array(tried('released')[0][0].factors)
  np.testing.assert_allclose(released, gamma + (1 - gamma) * 4)


@each_method
def test_the_best_is_no_worse_than_the_seeds(method):
  best = min(worth(c) for batch in tried(method) for c in batch)
  seeds = [SPACE.released_seed] if method == 'released' else list(SPACE.seeds.values())
  if method in ('paper', 'released', 'coordinate'):
    assert best < min(map(worth, seeds))


def test_evolution_gets_closer_than_random_draws():
  settings = dataclasses.replace(SMALL, iterations=60)
  best = {m: min(worth(c) for b in tried(m, settings) for c in b) for m in ('paper', 'random')}
  assert best['paper'] < 0.3 * best['random']


def test_mutants_change_few_factors_in_the_paper_and_most_in_the_released_code():
  where = space.Space(10_000.0, 128, 4096, 8.0, 9.0, (0,))
  changed = {}
  for kind in (methods.Paper, methods.Released):
    operators = kind(where, methods.Settings(), np.random.default_rng(0))
    seed = operators.seeds[-1]
    mutants = [operators.mutate(seed, {seed}) for _ in range(10)]
    changed[kind] = np.mean([np.not_equal(m.factors, seed.factors).sum() for m in mutants])
  assert changed[methods.Paper] < 0.4 * 64 < 48 < changed[methods.Released]


@pytest.mark.parametrize('method', ['paper', 'random'])
def test_a_space_that_is_used_up_says_so(monkeypatch, method):
  monkeypatch.setattr(methods, 'LIMIT', 5000)
  where = space.Space(100.0, 4, 64, 1.0, 1.01, (0,))  # three candidates
  with pytest.raises(ValueError, match='nothing new is left to try after 3'):
    tried(method, where=where, worth=lambda c: 0.0)


def test_a_population_that_has_no_room_for_the_seeds_says_so():
  few = dataclasses.replace(SMALL, population=2)
  with pytest.raises(ValueError, match='--population is 2; the search begins from 3 seeds'):
    tried('paper', few)


def test_what_a_search_for_short_texts_begins_from_lies_in_its_space():
  where = space.Space(100.0, 8, 64, 2.0, 2.5, (0, 4, 16))
  inside = space.Candidate((1.0, 1.5, 2.0, 2.5), 4)
  assert where.nearest(inside) == inside
  beyond = where.nearest(space.Candidate((1.0, 3.0, 3.0, 9.0), 15))
  assert beyond == space.Candidate((1.0, 2.5, 2.5, 2.5), 16) and where.holds(beyond)


@each_method
def test_a_killed_search_goes_on_to_the_same_result(method, tmp_path):
  class Killed(Exception):
    pass

  def measure(left):
    def losses(candidates):
      left[0] -= 1
      if not left[0]:
        raise Killed
      return [worth(c) for c in candidates]

    return losses

  go = lambda name, left: list(
    ledger.progress(method, SPACE, SMALL, ledger.Ledger(tmp_path / name, measure([left])))
  )
  whole = go('whole', 10**9)
  for kill_at in (2, 1, 2, 3):
    try:
      go('killed', kill_at)
    except Killed:
      continue
  with (tmp_path / 'killed').open('ab') as file:
    file.write(b'{"candidates": [[[1.0, 2')  # cut off by a kill
  with pytest.raises(files.WorkdirError, match='killed has losses of another search'):
    ledger.Ledger(tmp_path / 'killed', measure([10**9]), 'another')
  again = ledger.Ledger(tmp_path / 'killed', measure([10**9]))
  ended = list(ledger.progress(method, SPACE, SMALL, again))
  last = lambda items: (items[-1].evaluations, items[-1].best, items[-1].loss)
  assert last(ended) == last(whole)
  rows = files.read_rows(tmp_path / 'killed')
  known = [(tuple(f), s) for row in rows for f, s, _ in row['candidates']]
  assert len(known) == len(set(known)) == whole[-1].evaluations
  assert rows == files.read_rows(tmp_path / 'whole')


# ---- On a trained run


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text', documents=40)


@pytest.fixture(scope='module')
def trained(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  main.run(run_fixtures.config(corpus, steps=60, optimizer__learning_rate=0.01), workdir)
  return workdir


@pytest.fixture(scope='module')
def measured(trained):
  """The objective at 64 tokens, four times those of training, and two windows."""
  config = configs.resolve(configs.anywhere(run_folder.load_config(trained)))
  corpus = texts.load(config)
  windows = objective.windows(corpus.train, 64, 2, 0, 'training')
  params, _ = train_state.load_params(config, trained)
  return config, params, windows


def draw(count, pairs=4):
  where = space.Space(10_000.0, 2 * pairs, 16, 4.0, 5.0, (0, 2))
  operators = methods.Paper(where, methods.Settings(), np.random.default_rng(3))
  return [operators.mutate(seed, set()) for seed in where.seeds.values() for _ in range(count)]


def test_one_program_serves_all_candidates_and_documents(measured):
  config, params, windows = measured
  measure = objective.Objective(config, params, (2, 64), 1.0, 5 * 128)
  assert measure.size == 5
  candidates = draw(4)
  together = measure(candidates, windows)
  other = dataclasses.replace(windows, tokens=windows.tokens[::-1].copy())
  np.testing.assert_allclose(measure(candidates, other), together, rtol=1e-6)
  assert measure.compiled._cache_size() == 1
  alone = [measure([c], windows)[0] for c in candidates]
  np.testing.assert_allclose(alone, together, rtol=1e-6)
  assert measure.compiled._cache_size() == 1
  assert np.ptp(together) > 1e-3


@pytest.mark.parametrize('temperature', ['none', 'su'])
def test_losses_are_those_of_the_scheme_that_a_config_builds(measured, temperature):
  from pe_research.model import transformer
  from pe_research.model.functional import FunctionalDecoder

  config, params, windows = measured
  found = draw(2)
  position = positions.defaults('longrope') | {'factor': 4.0, 'temperature': temperature}
  for candidate in found:
    written = position | {
      'long_factor': list(candidate.factors),
      'start_tokens': candidate.start_tokens,
    }
    stretched = configs.resolve(config | {'position': written})
    scale = stretched['position']['attention_factor']
    measure = objective.Objective(config, params, (2, 64), scale, 128)
    decoder = FunctionalDecoder(stretched).bind(params)
    at = Tokens.contiguous(64)
    nll = transformer.loss(decoder(windows.tokens[:, :-1], at, Spec()), windows.tokens[:, 1:])
    np.testing.assert_allclose(measure([candidate], windows)[0], nll.mean(), rtol=2e-6)


FLAGS = ('--factor=4', '--population=8', '--mutations=3', '--crossovers=3', '--iterations=4',
         '--parents=4', '--documents=2', '--held-out=4')  # fmt: skip


def search(trained, workdir, *flags):
  command.main([f'--run={trained}', f'--workdir={workdir}', *FLAGS, *flags])
  return files.read_json(workdir / 'factors.json')


@pytest.fixture(scope='module')
def searched(trained, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('search')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GLIBC_TUNABLES', 'set')  # no restart
    return workdir, search(trained, workdir)


def test_the_file_has_factors_losses_and_lineage(trained, searched):
  workdir, found = searched
  assert found['base'] == 10_000 and found['rotated'] == 8
  assert (found['train_length'], found['target_length']) == (16, 64)
  losses = found['losses']
  assert set(losses) == {'as trained', 'PI', 'NTK-aware', 'YaRN', 'best'}
  for loss in losses.values():
    assert set(loss) == {'search', 'held_out'}
  best = losses['best']['search']
  assert best <= min(loss['search'] for loss in losses.values() if loss is not losses['as trained'])
  assert found['search']['evaluations'] == 8 + 4 * 6
  assert found['search']['made_by']['commit'] == provenance.provenance()['commit']
  assert found['search']['generator'] == methods.fixed_inputs('paper')
  origin, record = found['search']['weights_of'], files.read_json(trained / 'run.json')
  assert origin['run'] == trained.name and origin['step'] == 60
  assert origin['parameters'] == record['final_parameters']
  rows = files.read_rows(workdir / 'evaluations.jsonl')
  assert min(loss for row in rows for *_, loss in row['candidates']) == best


def test_a_config_names_the_file_and_a_second_search_multiplies(trained, searched, tmp_path):
  from pe_research import evaluate

  workdir, found = searched
  into = tmp_path / 'stretched'
  evaluate.main([f'--workdir={trained}', f'--position=longrope:file={workdir}/factors.json',
                 f'--into={into}', '--lengths=16,64'])  # fmt: skip
  config = run_folder.load_config(into)
  assert config['position']['long_factor'] == found['long_factor']
  assert config['position']['lineage'].startswith('factors.json sha256:')
  # Weights that were trained with those factors: a candidate of ones is what they know.
  params, _ = train_state.load_params(configs.anywhere(run_folder.load_config(trained)), trained)
  tuned = configs.resolve(config | {'length': 64})
  measure = objective.Objective(tuned, params, (2, 64), 1.0, 128)
  np.testing.assert_allclose(measure.stretched, found['long_factor'])
  ones, twice = space.Candidate((1.0,) * 4), space.Candidate((1.0, 1.0, 2.0, 2.0))
  np.testing.assert_allclose(measure.total(ones), found['long_factor'])
  np.testing.assert_allclose(measure.total(twice), np.array(found['long_factor']) * [1, 1, 2, 2])
  # YaRN leaves alone what turned often before any stretching, at 16 tokens and not at 64.
  first, second = (
    plan.make_space(small_plan(of), plan.Run(of), {})
    for of in (run_folder.load_config(trained), tuned)
  )
  assert first.train_length == second.train_length == 16
  assert first.seeds == second.seeds and second.starts[-1] == 64 > first.starts[-1] == 16
  absolute = objective.Objective(tuned, params, (2, 64), 1.0, 128, absolute=True)
  np.testing.assert_array_equal(absolute.total(twice), twice.factors)


def test_factors_for_short_texts_join_the_long_ones(trained, searched, tmp_path, monkeypatch):
  monkeypatch.setenv('GLIBC_TUNABLES', 'set')
  workdir, found = searched
  both = search(
    trained, tmp_path / 'short', f'--short-of={workdir}/factors.json', '--target-length=16'
  )
  assert both['long_factor'] == found['long_factor'] and both['switch_length'] == 16
  assert len(both['short_factor']) == 4
  losses = {name: loss['search'] for name, loss in both['losses'].items()}
  assert {'RoPE', 'long'} <= set(losses)
  assert losses['best'] == min(losses.values()) <= losses['RoPE']


@pytest.mark.parametrize(
  ('flags', 'words'),
  [
    (['--factor=0.5'], ['--factor', '0.5', 'at least 1']),
    (['--target-length=100'], ['--target-length 100', '--factor 4', '16 tokens']),
    (['--factor=inf'], ['--factor', 'inf', 'finite']),
    (['--target-length=0'], ['--target-length is 0', 'at least 1']),
    (['--most=0'], ['--most is 0.0', 'at least 4']),
    (['--most=2'], ['--most', '2', 'at least 4']),
    (['--most=inf'], ['--most', 'inf', 'finite']),
    (['--most=1e300'], ['--most', '1e+300', '1e+06']),
    (['--held-out=3'], ['--held-out is 3', 'multiple of --documents (2)']),
    (['--held-out=40'], ['40 validation documents', '--held-out']),
    (['--documents=40', '--held-out=40'], ['40 training documents', 'are that long']),
    (['--factor=4000'], ['documents of more than 64000 tokens', 'longest has']),
    (['--population=2'], ['--population is 2', '3 seeds']),
    (['--population=0'], ['--population is 0', 'at least 1']),
    (['--probability=2'], ['--probability is 2.0', '(0, 1]']),
    (['--seed=-1'], ['--seed', '-1']),
    (['--short-of=/nowhere.json'], ['/nowhere.json', 'does not exist']),
  ],
)
def test_a_bad_search_is_one_line(trained, tmp_path, capsys, monkeypatch, flags, words):
  monkeypatch.setenv('GLIBC_TUNABLES', 'set')
  with pytest.raises(SystemExit) as stop:
    command.main([f'--run={trained}', f'--workdir={tmp_path}/x', *FLAGS, *flags])
  assert stop.value.code == 2
  error = capsys.readouterr().err
  for word in words:
    assert word in error


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    ({'long_factor': [1.0] * 3}, ['position.long_factor', '3 factors', '4 pairs']),
    ({'long_factor': [1.0, 3.0, 2.0, 4.0]}, ['3.0 to 2.0']),
    ({'rotated': 4, 'long_factor': [1.0] * 2}, ['rotated head width of 4', 'here it is 8']),
    ({'base': 500.0}, ['rotary base of 500', '10000']),
    ({'train_length': 32}, ['training length of 32', '16']),
    ({'temperature': 'warm'}, ['position.temperature', "'warm'"]),
    ({'start_tokens': 'x'}, ['damaged', 'start_tokens']),
    ({'switch_length': [1]}, ['damaged', 'switch_length']),
  ],
)
def test_long_factors_of_another_model_are_refused(trained, searched, tmp_path, change, words):
  path, config = tmp_path / 'factors.json', run_folder.load_config(trained)
  files.write_json(path, searched[1] | change)
  with pytest.raises(ValueError) as error:
    plan.long_factors(str(path), config)
  for word in words:
    assert word in str(error.value)
  bare = {k: v for k, v in searched[1].items() if k not in ('temperature', 'start_tokens')}
  files.write_json(path, bare)
  filled = plan.long_factors(str(path), config)
  assert (filled['temperature'], filled['start_tokens']) == ('none', 0)


def small_plan(config, temperature=None):
  return plan.make(
    plan.Run(config), method='paper', factor=2, most=None, target_length=None,
    temperature=temperature, documents=1, held_out=1, settings=methods.Settings(), short_of=None,
  )  # fmt: skip


@pytest.mark.parametrize(
  ('text', 'temperature', 'words'),
  [
    ('yarn:factor=4', None, ['logits times 1.296', "'yarn'", '--temperature none']),
    ('dynamic_ntk', None, ["'dynamic_ntk'", 'follow the length']),
    ('log_n', None, ["'log_n'", 'grow with the position']),
    ('pi:factor=2', None, None),
    ('longrope:factor=4,long_factor=1;2;3;4,temperature=su', 'none', ['--temperature none']),
    ('longrope:factor=4,long_factor=1;2;3;4,temperature=su', 'su', None),
    ('yarn:factor=4', 'yarn', None),
    ('longrope:factor=4,long_factor=1;2;3;4,attention_factor=1.3', None, ['logits times 1.69']),
    ('yarn:factor=4,attention_factor=1,slice_factor=1.2', None, ['position.slice_factor 1.2']),
  ],
)
def test_what_a_search_would_leave_out_is_said(trained, text, temperature, words):
  saved = run_folder.load_config(trained)
  config = configs.resolve(saved | {'position': lineage.parse_position(text, saved)})
  call = lambda: small_plan(config, temperature)
  if words is None:
    call()
    return
  with pytest.raises(ValueError) as error:
    call()
  for word in words:
    assert word in str(error.value)


def test_short_texts_are_no_longer_than_the_long_ones(trained, searched):
  short_of = plan.long_factors(str(searched[0] / 'factors.json'), run_folder.load_config(trained))
  with pytest.raises(ValueError, match='--target-length is 128, and --short-of stretches to 64'):
    plan.make(
      plan.Run(run_folder.load_config(trained)), method='paper', factor=8, most=None,
      target_length=None, temperature=None, documents=1, held_out=1, settings=methods.Settings(),
      short_of=short_of,
    )  # fmt: skip


def test_a_workdir_belongs_to_one_search(trained, searched, capsys, monkeypatch):
  monkeypatch.setenv('GLIBC_TUNABLES', 'set')
  workdir, found = searched
  with pytest.raises(SystemExit):
    search(trained, workdir, '--seed=4')
  assert 'settings.seed: 0 -> 4' in capsys.readouterr().err
  assert search(trained, workdir) == found


def test_a_run_of_another_kind_has_no_such_factors(corpus):
  config = run_fixtures.config(corpus, 'alibi')
  with pytest.raises(ValueError, match="trained with 'alibi'"):
    small_plan(config)


def test_a_run_of_a_task_has_no_texts_to_search_on():
  flags = [f'--config={run_fixtures.ROOT}/configs/tasks.py:task=copy,position=rope']
  config = configs.resolve(cli.read_config(flags))
  with pytest.raises(ValueError, match="trained on the task 'copy'"):
    small_plan(config)


def test_a_run_that_streams_its_texts_is_searched_on_them(corpus, tmp_path, monkeypatch):
  monkeypatch.setenv('GLIBC_TUNABLES', 'set')
  streamed = {
    'data__loader': 'grain',
    'data__train_split': 'train[:30]',
    'data__validation_split': 'train[30:]',
  }
  config = run_fixtures.config(corpus, steps=3, **streamed)
  main.run(config, tmp_path / 'run')
  found = search(tmp_path / 'run', tmp_path / 'search')
  loaded = texts.load(config)
  found_texts = texts.long_documents(loaded, 2, 64, 0)
  drawn = objective.windows(found_texts, 64, 2, 0, 'training')
  assert found['search']['searched_on'] == drawn.digest
  training = {loaded.source.id(i) for i in range(len(loaded.source))}
  assert set(drawn.names) < training and not set(drawn.names) & set(loaded.validation.names)


def test_windows_are_whole_distinct_documents_drawn_by_the_seed(measured):
  config, _, windows = measured
  documents = texts.load(config).train
  assert len(set(windows.names)) == 2 and windows.tokens.shape == (2, 65)
  for name, tokens in zip(windows.names, windows.tokens, strict=True):
    whole = documents[documents.names.index(name)].tobytes()
    assert tokens.astype(documents.tokens.dtype).tobytes() in whole
  assert objective.windows(documents, 64, 2, 0, 'training').digest == windows.digest
  assert objective.windows(documents, 64, 2, 1, 'training').digest != windows.digest
