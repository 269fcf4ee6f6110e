"""One run from another: what is inherited, what is recorded, what is refused."""

import shutil

import jax
import numpy as np
import pytest
import run_fixtures

from configs import finetune
from pe_research import evaluate, main
from pe_research.common import provenance
from pe_research.data import batches
from pe_research.runs import conditions, lineage, run_folder
from pe_research.settings import cli, configs
from pe_research.storage import files
from pe_research.training import loop, train_state


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text', documents=30)


@pytest.fixture(scope='module')
def trained(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('rope')
  main.run(
    run_fixtures.config(corpus, position__base=2000.0, position__layout='interleaved'), workdir
  )
  return workdir


@pytest.fixture(scope='module')
def saved(trained):
  return run_folder.load_config(trained)


def parameters(workdir):
  return train_state.load_params(configs.anywhere(run_folder.load_config(workdir)), workdir)[0]


def test_another_scheme_inherits_what_the_weights_know(saved):
  position = lineage.parse_position('yarn:factor=4,ramp=rotations,beta_fast=5', saved)
  assert position['base'] == 2000 and position['layout'] == 'interleaved'
  assert position['train_length'] == 16 and position['factor'] == 4.0
  assert position['ramp'] == 'rotations' and position['beta_fast'] == 5.0
  matched = lineage.parse_position('yarn:preset=matched,factor=4', saved)
  assert matched['base'] == 2000  # of the weights, whatever would fit the length
  assert matched['beta_fast'] == pytest.approx((16 / 2 / np.pi) ** 0.535, rel=1e-2)
  tuned = saved | {'position': position, 'length': 64}
  again = lineage.parse_position('pi:factor=8', tuned)
  assert again['train_length'] == 16 and again['base'] == 2000


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('yrn:factor=4', ["'yrn'", 'Did you mean yarn']),
    ('alibi', ["trained with 'rope'", "'alibi' cannot take over", 'serve pi, ntk']),
    ('pi:factr=4', ['--position=pi:factr', 'Did you mean factor']),
    ('pi:factor=four', ['--position=pi:factor=four', 'float']),
    ('pi:factor=4,factor=8', ['--position=pi', 'factor twice', '4 and 8', 'once']),
    ('pi:name=yarn,factor=4', ['pi:name=yarn', 'a second scheme']),
    ('longrope:long_factor=1;x', ['long_factor=1;x', 'a;b;... of numbers']),
    ('pi:factor=4,base=500', ['position.base is 500', 'trained with 2000']),
    ('pi:factor=4,train_length=32', ['position.train_length is 32', 'trained with 16']),
    ('yarn:factor=4,preset=mached', ["'mached'", 'Did you mean matched']),
  ],
)
def test_what_contradicts_the_weights_is_refused(saved, text, words):
  with pytest.raises(ValueError) as error:
    lineage.parse_position(text, saved)
  for word in words:
    assert word in str(error.value)


def test_weights_of_another_base_bring_it_along(saved):
  plain = lineage.parse_position('abf:new_base=90000', saved)
  assert (plain['base'], plain['new_base']) == (2000, 90_000)
  tuned = saved | {'position': plain, 'length': 64}
  again = lineage.parse_position('pi:factor=2', tuned)
  assert (again['base'], again['train_length'], again['target_length']) == (90_000, 64, None)
  assert lineage.parse_position('abf', tuned)['base'] == 2000  # the same scheme goes on as it was
  with pytest.raises(ValueError, match=r'position.base is 2000.*trained with 90000'):
    lineage.parse_position('rope:base=2000', tuned)


def test_a_run_that_is_stretched_is_no_plain_one(saved):
  lineage.check_plain(saved, 'DIR')
  with pytest.raises(ValueError, match=r"DIR was trained with 'pi', which is stretched already"):
    lineage.check_plain(saved | {'position': lineage.parse_position('pi:factor=2', saved)}, 'DIR')


def test_no_scheme_stretches_alibi(corpus):
  with pytest.raises(ValueError, match=r"DIR was trained with 'alibi', which no scheme stretches"):
    lineage.check_plain(run_fixtures.config(corpus, 'alibi'), 'DIR')
  with pytest.raises(ValueError, match=r"trained with 'alibi'.*stretches 'rope'.*No scheme"):
    lineage.parse_position('yarn:factor=4', run_fixtures.config(corpus, 'alibi'))


def values(workdir):
  return {row['eval_length']: row['value'] for row in files.read_rows(workdir / 'results.jsonl')}


def test_evaluating_under_another_scheme_leaves_the_run_as_it_was(trained, tmp_path):
  before = {p: p.read_bytes() for p in trained.rglob('*') if p.is_file() and p.name != '.lock'}
  for name in ('rope', 'pi:factor=1', 'pi:factor=4', 'dynamic_ntk'):
    into = tmp_path / name.replace(':', '_')
    evaluate.main([f'--workdir={trained}', f'--position={name}', f'--into={into}'])
  assert {p: p.read_bytes() for p in before} == before
  raw = values(trained)
  assert values(tmp_path / 'rope') == values(tmp_path / 'pi_factor=1') == raw
  dynamic, stretched = values(tmp_path / 'dynamic_ntk'), values(tmp_path / 'pi_factor=4')
  assert dynamic[16] == raw[16] and dynamic[32] != raw[32]
  assert stretched[16] != raw[16]
  record, own = (files.read_json(p / 'run.json') for p in (tmp_path / 'pi_factor=4', trained))
  assert record['scheme'] == 'pi' and record['conditions'] == own['conditions']
  origin = record['weights_of']
  assert origin['run'] == trained.name and origin['step'] == 12
  assert origin['parameters'] == own['final_parameters']
  assert record['evaluated_by']['commit'] == provenance.provenance()['commit']
  config = run_folder.load_config(tmp_path / 'pi_factor=4')
  assert config['position'] == lineage.parse_position(
    'pi:factor=4', run_folder.load_config(trained)
  ) | {'target_length': 64}


def test_a_directory_of_one_scheme_is_not_used_for_another(trained, tmp_path, capsys):
  evaluate.main([f'--workdir={trained}', '--position=pi:factor=4', f'--into={tmp_path}/a'])
  with pytest.raises(SystemExit):
    evaluate.main([f'--workdir={trained}', '--position=pi:factor=2', f'--into={tmp_path}/a'])
  assert 'position.factor: 4.0 -> 2.0' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    evaluate.main([f'--workdir={trained}', '--position=pi:factor=2'])
  assert '--into' in capsys.readouterr().err


def test_a_directory_of_one_run_is_not_used_for_another(trained, tmp_path, capsys):
  kept, there = (trained / 'run.json').read_bytes(), tmp_path / 'a'
  other = shutil.copytree(trained, tmp_path / 'other')
  evaluate.main([f'--workdir={trained}', '--position=rope', f'--into={there}'])
  for run, into, owner in ((trained, trained, 'its own'), (other, there, trained.name)):
    with pytest.raises(SystemExit):
      evaluate.main([f'--workdir={run}', '--position=rope', f'--into={into}'])
    said = capsys.readouterr().err
    assert f'weights of {owner} ' in said and 'another --into' in said
  assert (trained / 'run.json').read_bytes() == kept


def tuned(corpus, trained, **overrides):
  stretch = {'position__factor': 4.0, 'position__train_length': 16, 'position__base': 2000.0}
  flags = run_fixtures.flags(
    corpus,
    'pi',
    **stretch | {'position__layout': 'interleaved', 'start__workdir': trained} | overrides,
  )
  flags[0] = flags[0].replace('length=16', f'length={overrides.pop("length", 64)}')
  return configs.resolve(cli.read_config([f for f in flags if not f.startswith('--config.length')]))


def test_training_on_starts_from_the_weights_and_records_them(corpus, trained, tmp_path):
  config = tuned(corpus, trained, optimizer__learning_rate=0.0, data__seed=5)
  lineage.check_start(config)
  main.run(config, tmp_path / 'still')
  before, after = parameters(trained), parameters(tmp_path / 'still')
  jax.tree.map(np.testing.assert_array_equal, before, after)
  record, own = (files.read_json(p / 'run.json') for p in (tmp_path / 'still', trained))
  start = record['start']
  assert (start['run'], start['step'], start['scheme']) == (trained.name, 12, 'rope')
  assert start['parameters'] == own['final_parameters'] == record['final_parameters']
  assert record['initial_parameters'] != own['initial_parameters']
  assert 'config.start.workdir' not in record['conditions']
  earlier = tuned(corpus, trained, optimizer__learning_rate=0.0, start__step=8)
  main.run(earlier, tmp_path / 'earlier')
  start = files.read_json(tmp_path / 'earlier' / 'run.json')['start']
  assert start['step'] == 8 and start['parameters'] != own['final_parameters']


def test_a_killed_fine_tuning_goes_on_to_the_same_bits(corpus, trained, tmp_path, monkeypatch):
  moved = tmp_path / 'moved'
  shutil.copytree(trained, moved)
  config = tuned(corpus, moved)
  straight = loop.train(config, tmp_path / 'straight')
  draw = batches.Memory.draw

  def interrupted(stream):
    if stream.step == 6:
      raise KeyboardInterrupt
    return draw(stream)

  monkeypatch.setattr(batches.Memory, 'draw', interrupted)
  with pytest.raises(KeyboardInterrupt):
    loop.train(config, tmp_path / 'cut')
  monkeypatch.undo()
  shutil.rmtree(moved)  # the start is needed once
  resumed = loop.train(config, tmp_path / 'cut')
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(straight), jax.device_get(resumed))
  one, other = (files.read_json(tmp_path / n / 'run.json') for n in ('straight', 'cut'))
  for field in ('start', 'initial_parameters', 'batches', 'final_parameters', 'fingerprint'):
    assert one[field] == other[field], field
  assert other['changed_on_resume'] == []


def test_the_data_order_has_a_seed_of_its_own(corpus):
  config = run_fixtures.config(corpus, seed=3)
  assert config['data']['seed'] == 3
  other = run_fixtures.config(corpus, seed=3, data__seed=4)
  assert conditions.conditions(config) == conditions.conditions(other)


@pytest.mark.parametrize(
  ('overrides', 'words'),
  [
    ({'position__base': 500.0}, ['position.base is 500', 'trained with 2000']),
    ({'position__train_length': 32}, ['position.train_length is 32', 'trained with 16']),
    ({'model__width': 32}, ['cannot be continued from', 'model.width: 16 -> 32']),
    ({'start__workdir': '/nowhere'}, ['/nowhere', 'no config.json']),
  ],
)
def test_weights_that_do_not_fit_are_refused(corpus, trained, overrides, words):
  with pytest.raises(ValueError) as error:
    lineage.check_start(tuned(corpus, trained, **overrides))
  for word in words:
    assert word in str(error.value)


# ---- Recipes


def recipe(start, **arguments):
  given = ','.join(f'{k}={v}' for k, v in ({'start': start} | arguments).items())
  return finetune.get_config(given)


@pytest.mark.parametrize('name', ['pi', 'yarn', 'abf', 'same', 'raw'])
def test_a_scaled_recipe_costs_its_share_of_the_tokens(trained, saved, name):
  share, spent = 100.0, 0
  for stage in range(len(finetune.RECIPES[name].stages)):
    config = recipe(trained, recipe=name, stage=stage + 1, factor=8, share=share)
    spent += config.steps * config.optimizer.batch * config.length
    assert config.optimizer.learning_rate == pytest.approx(saved['optimizer']['learning_rate'] / 15)
    assert (config.optimizer.schedule, config.optimizer.decay) == ('wsd', 1.0)
    assert config.data.seed != saved['data']['seed']
    assert config.model.to_dict() == saved['model']
  assert spent == saved['steps'] * saved['optimizer']['batch'] * saved['length']


@pytest.mark.parametrize('factor', [3, 5.5, 8, 100])
def test_texts_that_no_step_is_a_multiple_of_cost_the_same_tokens(trained, saved, factor):
  budget = saved['steps'] * saved['optimizer']['batch'] * saved['length']
  config = recipe(trained, recipe='pi', factor=factor, share=300)
  step = config.optimizer.batch * config.length
  assert abs(config.steps * step - 3 * budget) <= step / 2
  assert step <= max(saved['optimizer']['batch'] * saved['length'], config.length)


def test_a_run_tuned_with_plain_rope_was_trained_at_its_new_length(trained, saved, tmp_path):
  tuned = saved | {'length': 32, 'start': {'workdir': str(trained), 'step': None}}
  files.write_json(tmp_path / 'config.json', tuned)
  config = recipe(tmp_path, recipe='pi', factor=4, share=100)
  assert (config.length, config.position.train_length) == (128, 32)
  budget = saved['steps'] * saved['optimizer']['batch'] * saved['length']
  assert config.steps * config.optimizer.batch * config.length == budget


def test_published_recipes_keep_their_own_settings(trained):
  settings = {}
  for name, stage in (('pi', 1), ('yarn', 1), ('yarn', 2), ('abf', 1), ('same', 1), ('raw', 1)):
    config = recipe(trained, recipe=name, stage=stage, factor=8, share=0)
    factor = config.position.get('factor')
    settings[name, stage] = config.steps, config.optimizer.batch, config.length, factor
  assert settings == {
    ('pi', 1): (1000, 64, 128, 8.0),
    ('yarn', 1): (400, 64, 64, 4.0),
    ('yarn', 2): (200, 64, 64, 8.0),
    ('abf', 1): (100_000, 128, 128, None),
    ('same', 1): (1000, 64, 16, None),
    ('raw', 1): (1000, 64, 128, None),
  }


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    ({'recipe': 'yran'}, ['yran', 'Did you mean yarn']),
    ({'recipe': 'pi', 'stage': 2}, ['stage is 2', "'pi' has 1"]),
    ({'share': -1}, ['share', '-1']),
    ({'share': 'inf'}, ['share', 'inf', 'finite']),
    ({'factor': 0}, ['factor', '0', 'at least 1']),
    ({'factor': 'nan'}, ['factor', 'nan', 'at least 1']),
  ],
)
def test_a_bad_recipe_is_named(trained, arguments, words):
  with pytest.raises(ValueError) as error:
    recipe(trained, **arguments)
  for word in words:
    assert word in str(error.value)


def test_no_start_is_said_at_once():
  with pytest.raises(ValueError, match='start=DIR'):
    finetune.get_config('recipe=pi')


def test_a_saved_run_that_says_nothing_of_patience_is_read(corpus):
  config = run_fixtures.config(corpus)
  del config['run']['patience']
  assert configs.resolve(configs.anywhere(config))['run']['patience'] == 0
  del config['model']['width']
  with pytest.raises(ValueError, match=r'has no model\.width'):
    configs.resolve(configs.anywhere(config))
