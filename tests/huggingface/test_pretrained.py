"""configs/pretrained.py: a published model goes through the code that measures our own."""

import functools
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import published
import pytest
from run_fixtures import ROOT

from configs import finetune, pretrained
from pe_research import evaluate as evaluate_command
from pe_research import main
from pe_research.evaluation import evaluate
from pe_research.huggingface import __main__ as command
from pe_research.huggingface import exporting
from pe_research.runs import lineage, run_folder
from pe_research.search import __main__ as search
from pe_research.settings import configs
from pe_research.storage import files
from pe_research.training import train_state

pytestmark = pytest.mark.usefixtures('tuned')
SMALL = {'lengths': (16, 64), 'targets': 8, 'windows': 4}


@pytest.fixture(scope='module')
def tuned():
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GLIBC_TUNABLES', 'glibc.malloc.hugetlb=0')  # no restart
    yield


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A checkpoint's folder, and the config and parameters that it was exported from."""
  config = published.config('yarn') | {'position': published.config('llama')['position']}
  params = published.params(config)
  path = tmp_path_factory.mktemp('published') / 'model'
  exporting.export(exporting.plan(config), params, path)
  return path, config, params


def config_of(path, argument='', **changes):
  made = pretrained.get_config(f'path={path}{argument}')
  for name, value in SMALL.items():
    made.eval[name] = value
  return configs.resolve(changed(made, changes))


def changed(config, changes):
  """The config with fields of dotted names set."""
  for name, value in changes.items():
    *parents, leaf = name.split('.')
    functools.reduce(lambda holder, parent: holder[parent], parents, config)[leaf] = value
  return config


@pytest.fixture(scope='module')
def run(model, tmp_path_factory):
  """A run that trains nothing, with the model's weights."""
  workdir = tmp_path_factory.mktemp('runs') / 'imported'
  main.run(config_of(model[0]), workdir)
  return workdir


def losses(workdir):
  rows = files.read_rows(workdir / 'results.jsonl')
  return {row['eval_length']: row['value'] for row in rows}


def test_the_same_losses_as_the_weights_have_here(model, run, tmp_path):
  _, config, params = model
  measured = configs.resolve(config | {'eval': config['eval'] | SMALL | {'reach': None}})
  (tmp_path / 'here').mkdir()
  record = files.read_json(run / 'run.json')
  files.write_json(tmp_path / 'here' / 'run.json', record | {'conditions': {}})
  evaluate.evaluate(measured, tmp_path / 'here', params, 0)
  assert losses(run) == pytest.approx(losses(tmp_path / 'here'), rel=1e-6)
  assert losses(run).keys() == {16, 64}
  assert record['steps'] == 0 and not (run / 'checkpoints').exists()
  assert record['start']['run'] == 'model'


@pytest.mark.slow
def test_extensions_are_evaluated_on_it(run, tmp_path, capsys):
  flags = [f'--workdir={run}', '--position=yarn:factor=4', f'--into={tmp_path / "yarn"}']
  evaluate_command.main(flags)
  given = run_folder.load_config(tmp_path / 'yarn')['position']
  assert (given['name'], given['factor'], given['train_length']) == ('yarn', 4, 16)
  stretched, plain = losses(tmp_path / 'yarn'), losses(run)
  assert abs(stretched[64] - plain[64]) > 1e-3
  # The same by its own config.
  direct = config_of(run_path(run), ',position=yarn', **{'position.factor': 4.0})
  main.run(direct, tmp_path / 'direct')
  assert losses(tmp_path / 'direct') == stretched


def run_path(run):
  return run_folder.load_config(run)['start']['pretrained']


@pytest.mark.slow
def test_search_and_export_of_what_it_found(run, tmp_path):
  sizes = ['--population=4', '--parents=2', '--mutations=2', '--crossovers=2', '--iterations=1']
  flags = [f'--run={run}', '--factor=4', f'--workdir={tmp_path / "s4"}', '--documents=1']
  search.main([*flags, '--held-out=1', *sizes])
  found = json.loads((tmp_path / 's4' / 'factors.json').read_text())
  assert found['target_length'] == 64
  position = f'--position=longrope:file={tmp_path / "s4" / "factors.json"}'
  if found['start_tokens']:
    with pytest.raises(SystemExit):
      command.main([f'--workdir={run}', position, f'--into={tmp_path / "out"}'])
    return
  command.main([f'--workdir={run}', position, f'--into={tmp_path / "out"}'])
  fields = json.loads((tmp_path / 'out' / 'config.json').read_text())['rope_parameters']
  assert fields['rope_type'] == 'longrope'
  assert fields['long_factor'] == pytest.approx(found['long_factor'])


@pytest.mark.slow
def test_training_goes_on_from_it(model, run, tmp_path):
  path, _, params = model
  config = config_of(path, ',position=pi,length=32', **{'steps': 2, 'position.factor': 2.0})
  lineage.check_start(config)
  main.run(config, tmp_path / 'tuned')
  record = files.read_json(tmp_path / 'tuned' / 'run.json')
  assert record['start']['parameters'] == files.read_json(run / 'run.json')['final_parameters']
  tuned, step = train_state.load_params(config, tmp_path / 'tuned')
  assert step == 2
  moved = [float(jnp.abs(tuned[name] - params[name]).max()) for name in params]
  # Adam's first two steps move every weight by at most twice the rate.
  assert 0 < max(moved) <= 2.01 * pretrained.RATE
  command.main([f'--workdir={tmp_path / "tuned"}', f'--into={tmp_path / "out"}'])
  back = published.imported(tmp_path / 'out')
  assert published.bits(back) == published.bits(tuned)


@pytest.mark.slow
def test_recipes_start_from_it(run, tmp_path):
  with pytest.raises(ValueError, match='share=0'):
    finetune.get_config(f'start={run},recipe=pi,factor=2')
  made = finetune.get_config(f'start={run},recipe=pi,factor=2,share=0')
  assert (made.steps, made.optimizer.batch) == (1000, 64)
  assert made.optimizer.learning_rate == pretrained.RATE
  made.steps, made.optimizer.batch, made.optimizer.warmup = 1, 2, 0
  config = configs.resolve(made)
  lineage.check_start(config)
  main.run(config, tmp_path / 'pi')
  assert files.read_json(tmp_path / 'pi' / 'run.json')['start']['run'] == run.name


@pytest.mark.slow
def test_narrow_weights_train_in_float32(model, tmp_path):
  _, config, params = model
  exporting.export(exporting.plan(config), params, tmp_path / 'narrow', dtype='bfloat16')
  made = config_of(tmp_path / 'narrow', steps=1)
  main.run(made, tmp_path / 'tuned')
  tuned, _ = train_state.load_params(made, tmp_path / 'tuned')
  assert {str(x.dtype) for x in tuned.values()} == {'float32'}
  main.run(config_of(tmp_path / 'narrow'), tmp_path / 'plain')
  record = files.read_json(tmp_path / 'tuned' / 'run.json')
  plain = files.read_json(tmp_path / 'plain' / 'run.json')
  assert record['start']['parameters'] == plain['final_parameters']


@pytest.mark.slow  # test_huggingface.py has each of its parts
def test_everything_the_folder_says_is_in_the_config(tmp_path):
  for name, (position, _, _) in published.CASES.items():
    path = published.exported(tmp_path / name, name)
    config = config_of(path)
    want = published.config(name)
    free = {'embedding_scale', 'tied'} if name in ('ours', 'gpt2 ours') else set()
    assert {k for k, v in want['model'].items() if config['model'][k] != v} <= free, name
    if position in ('rope', 'alibi', 'learned', 'pi', 'yarn'):
      assert config['position']['name'] == position
    lineage.check_start(config)


@pytest.mark.parametrize(
  'argument, changes, words',
  [
    ('', {'steps': -1}, ['steps', '-1']),
    ('', {'model.width': 64}, ['model.width: 32 -> 64']),
    ('', {'model.norm_eps': 1e-3}, ['model.norm_eps']),
    ('', {'data.tokenizer_file': '/nowhere/tokenizer.json'}, ['data.tokenizer_file', '/nowhere']),
    ('', {'position.base': 500.0}, ['position.base', '500', '10000']),
    (',position=alibi', {}, ["'alibi'", 'pi, ntk']),
    (',position=yarn', {}, ['position.factor']),
    (',position=yarn,length=128', {'position.factor': 4.0}, ['128', '64']),
    ('', {'start.workdir': 'results/run'}, ['start.workdir', 'start.pretrained']),
  ],
)
def test_bad_configs(model, argument, changes, words):
  with pytest.raises(ValueError) as error:
    made = pretrained.get_config(f'path={model[0]}{argument}')
    lineage.check_start(configs.resolve(changed(made, changes)))
  assert all(word in str(error.value) for word in words), str(error.value)


def test_a_folder_that_is_none(tmp_path):
  with pytest.raises(ValueError, match='path is not given'):
    pretrained.get_config('')
  with pytest.raises(ValueError, match=r'no config\.json'):
    pretrained.get_config(f'path={tmp_path}')


def test_other_vocabularies_need_their_tokenizer(tmp_path):
  config = published.config('llama')
  config = config | {'data': config['data'] | {'vocab': 300, 'tokenizer': 'sentencepiece'}}
  exporting.export(exporting.plan(config), published.params(config), tmp_path / 'model')
  with pytest.raises(ValueError, match=r'no tokenizer\.json, and 300 tokens'):
    pretrained.get_config(f'path={tmp_path / "model"}')


def test_weights_that_changed_are_noticed(model, tmp_path):
  _, config, params = model
  path = tmp_path / 'model'
  exporting.export(exporting.plan(config), params, path)
  main.run(config_of(path), tmp_path / 'run')
  moved = {name: x * 1.5 for name, x in params.items()}
  exporting.export(exporting.plan(config), moved, path, overwrite=True)
  saved = run_folder.load_config(tmp_path / 'run')
  with pytest.raises(files.WorkdirError, match='are not those'):
    train_state.load_params(saved, tmp_path / 'run')


def test_a_checkpoint_is_no_run(model):
  with pytest.raises(files.WorkdirError, match=r'pretrained\.py:path='):
    run_folder.load_config(model[0])


@pytest.mark.slow
def test_the_commands(model, tmp_path):
  """As a user types them, errors in one line."""
  run = lambda *arguments: subprocess.run(
    [sys.executable, '-m', *arguments], capture_output=True, text=True, check=False, cwd=ROOT
  )
  lengths = '--config.eval.lengths=(16, 32)'
  given = (f'--config=configs/pretrained.py:path={model[0]}', lengths, '--config.eval.targets=8')
  done = run('pe_research.main', *given, '--config.eval.windows=2', f'--workdir={tmp_path / "w"}')
  assert done.returncode == 0, done.stderr
  assert np.isfinite(list(losses(tmp_path / 'w').values())).all()
  out = ('pe_research.huggingface', f'--workdir={tmp_path / "w"}', f'--into={tmp_path / "out"}')
  assert 'as LlamaForCausalLM' in run(*out).stdout
  done = run(*out)
  assert done.returncode == 2
  assert done.stderr.startswith('error: ') and 'exists' in done.stderr
  done = run(*out, '--position=dynamic_yarn', '--overwrite')
  assert done.returncode == 2 and 'not exportable, because' in done.stderr
  done = run('pe_research.main', '--config=configs/pretrained.py:path=/nowhere', '--workdir=x')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  odd = published.exported(tmp_path / 'odd')
  fields = json.loads((odd / 'config.json').read_text())
  fields['rope_theta'] = fields['rope_parameters']['rope_theta'] = -1.0
  (odd / 'config.json').write_text(json.dumps(fields))
  done = run('pe_research.main', f'--config=configs/pretrained.py:path={odd}', '--workdir=x')
  assert done.returncode == 2 and 'rope_theta is -1' in done.stderr
