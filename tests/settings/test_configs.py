"""Configs: arguments, derived values, and errors that name the value, the limit and the fix."""

import json

import decoder_fixtures as fixtures
import pytest

from configs import lm, smoke, tasks
from pe_research import positions
from pe_research.common import nested
from pe_research.model import decoder_config
from pe_research.runs import conditions
from pe_research.settings import cli, configs

BAD = {
  'model.heads=5': ['model.width (64)', 'model.heads (5)', 'model.head_dim'],
  'model.kv_heads=3': ['model.heads (4)', 'model.kv_heads (3)'],
  'model.projection=mhla': ["'mhla'", 'mha, gqa, mqa, mla'],
  'model.projection=gqa': ["'gqa'", 'model.kv_heads'],
  'model.projection=mqa|model.kv_heads=2': ['model.kv_heads is 2', "'mqa' has 1"],
  'model.projection=mla|model.kv_heads=1': ['model.kv_heads is 1', "'mla' has 4"],
  'model.projection=mla|model.qk_norm=True': ['model.qk_norm', 'latents'],
  'model.projection=mla|model.latent=0': ['model.latent is 0', 'at least 1'],
  'model.projection=mla|model.query_latent=-1': ['model.query_latent is -1', 'at least 0'],
  'model.projection=mla|model.rotary_dim=3': ['3 channels', 'even'],
  'model.latent=16': ['model.latent is 16', "'mla'", "'mha'"],
  'model.head_dim=5': ['5 channels', 'even'],
  'model.mlp=tanh': ["'tanh'", 'gelu'],
  'model.dtype=float16': ["'float16'", 'bfloat16'],
  'model.remat=all': ["'all'", 'block'],
  'model.width=100000000': ['model.width is 100000000', 'at most 1048576'],
  'model.layers=1000000': ['model.layers is 1000000', 'at most 1000'],
  'optimizer.batch=1000000000': ['optimizer.batch is 1000000000', 'at most'],
  'data.task_size=1000000000': ['data.task_size is 1000000000', 'at most'],
  'model.width=0': ['model.width', '0'],
  'attention.implementation=flash': ["'flash'", 'tiled'],
  'attention.window=0': ['window', '0'],
  'optimizer.schedule=linear': ["'linear'", 'cosine'],
  'optimizer.accumulate=3': ['(32)', '(3)'],
  'optimizer.warmup=1500': ['1500', 'warmup'],
  'optimizer.decay=2.0': ['2.0', '0 to 1'],
  'optimizer.b1=1.0': ['optimizer.b1 is 1.0', '[0, 1)'],
  'optimizer.b2=-0.1': ['optimizer.b2 is -0.1', '[0, 1)'],
  'optimizer.eps=-1.0': ['optimizer.eps is -1.0', 'at least 0'],
  'optimizer.final=5.0': ['optimizer.final is 5.0', '0 to 1'],
  'eval.every=-1': ['eval.every is -1', 'at least 0'],
  'start.step=-3': ['start.step is -3', 'at least 0'],
  'data.loader=disk': ["'disk'", 'grain'],
  'data.loader=grain': ['validation_split'],
  'data.tokenizer=bpe': ["'bpe'", 'sentencepiece'],
  'data.validation_fraction=1.0': ['1.0', 'between 0 and 1'],
  'eval.targets=65': ['eval.targets (65)', '64'],
  "eval.protocols=('sliding',)|eval.stride=65": ['eval.stride (65)', '(64)'],
  "eval.lengths=(128,)|eval.targets=65|eval.controls=('cropped',)": ['(65)', 'length (64)'],
  'eval.reach=100': ['eval.reach (100)', '4096'],
  "eval.protocols=('sliding_window',)": ["'sliding_window'", 'sliding'],
  "eval.controls=('crop',)": ["'crop'", 'cropped'],
  "eval.measurements=('passkey/depth:1.05/64',)": [
    "'passkey/depth:1.05/64'",
    'depth:SHARE[+keys:N][+cropped][+scale:X]',
  ],
  "eval.measurements=('passkey/depth:2x/64',)": ["'passkey/depth:2x/64'", 'passkey/CONTROL/LENGTH'],
  "eval.measurements=('sliding/none/0',)": ["'sliding/none/0'", 'sliding/CONTROL/LENGTH'],
  "eval.measurements=('paskey/none/64',)": ["'paskey'", 'Did you mean passkey'],
  "eval.protocols=('task',)": ["'task'", 'data.task names none'],
  'data.task=copy': ['length is 64', "'copy'", 'at size 20 have 41 tokens'],
  'data.task=sorting': ["'sorting'", 'sort'],
  'data.task=copy|length=41': ["('task',)", 'fixed_targets'],
  "data.task=copy|length=41|eval.protocols=('task',)|data.needles=0.5": [
    'data.needles is 0.5',
    '0',
  ],
  'data.needles=1.5': ['data.needles is 1.5', '0 to 1'],
  'data.needles=0.5|data.needle_keys=0': ['data.needle_keys is 0', 'at least 1'],
  'data.needles=0.5|data.packing=True': ['data.needles', 'data.packing'],
  'data.limit=0': ['data.limit is 0', 'at least 1'],
  'eval.lengths=(64.5,)': ['eval.lengths has 64.5', 'whole numbers'],
  'eval.lengths=(64,64)': ['eval.lengths names 64 twice'],
  'eval.controls=(1,)': ['eval.controls has 1', 'names'],
  'eval.measurements=(1,)': ['eval.measurements has 1', 'names'],
  'eval.lengths=()': ['eval.lengths is empty'],
  'eval.lengths=(9223372036854775808,)': ['eval.lengths is 9223372036854775808', 'at most'],
  'eval.lengths=(-9223372036854775808,)': ['eval.lengths is -9223372036854775808', 'at least'],
  'position.base=nan': ['position.base is nan', 'finite'],
  'run.label=\x1b[31m': ['--config.run.label', 'cannot be printed'],
  'matmul_precision=fast': ["'fast'", 'highest'],
  'run.mesh.data=0': ['run.mesh.data', '0'],
  'run.keep=0': ['run.keep', '0'],
  'steps=0': ['steps is 0'],
  'seed=-1': ['seed is -1'],
  'seed=4294967296': ['seed is 4294967296', 'at most 4294967295'],
}


@pytest.mark.parametrize('override', BAD)
def test_a_bad_value_is_named_with_its_limit(override):
  with pytest.raises(ValueError) as error:
    flags = [f'--config.{item}' for item in override.split('|')]
    configs.resolve(cli.read_config(['--config=configs/lm.py', *flags]))
  for part in BAD[override]:
    assert part in str(error.value)


@pytest.mark.parametrize(
  ('flags', 'parts'),
  [
    (['--config=configs/lm.py:position=alibbi'], ['alibbi', 'Did you mean alibi']),
    (['--config=configs/lm.py:positon=alibi'], ['positon', 'Did you mean position']),
    (['--config=configs/lm.py:length=long'], ["'long'", 'int']),
    (
      ['--config=configs/lm.py', '--config.model.widht=3'],
      ["no field 'widht'. Did you mean width or", 'config.model has', 'layers'],
    ),
    (
      ['--config=configs/lm.py:position=nope', '--config.position.base=3'],
      ["--config.position.base=3: there is no field 'base'", 'config.position has name.'],
    ),
    (['--config=configs/lm.py', '--config.steps.base=3'], ['config.steps is 1500, which has no']),
    (['--config=configs/lm.py', '--config.position.bas=3'], ['bas', 'base']),
    (['--config=configs/lm.py', '--config.model.width=wide'], ['model.width', 'wide']),
    (['--config=configs/none.py'], ['configs/none.py', 'No such file']),
    (['--config=/etc/passwd'], ['config: ', '/etc/passwd']),
    (['--config=README.md'], ['config: ']),
    (['--config=configs/lm.py', '--length=3'], ['--length=3', '--config.name=value']),
    ([], ['--config=configs/lm.py']),
  ],
)
def test_a_misspelt_flag_is_one_line_with_the_nearest_name(flags, parts):
  with pytest.raises(ValueError) as error:
    configs.resolve(cli.read_config(flags))
  assert '\n' not in str(error.value) and 'Traceback' not in str(error.value)
  for part in parts:
    assert part in str(error.value)


@pytest.mark.parametrize('family', [lm, smoke])
@pytest.mark.parametrize('name', positions.SCHEMES)
def test_every_scheme_resolves_and_survives_json(family, name):
  given = family.get_config(f'position={name}')
  given.position.update(fixtures.position(name, rotary=given.model.width // given.model.heads))
  if 'train_length' in given.position:
    given.position.train_length = None
  config = configs.resolve(given)
  assert config['position'].keys() == positions.defaults(name).keys()
  again = configs.resolve(json.loads(json.dumps(config)))
  assert again == config
  unset = [field for field, value in nested.flat(config).items() if value is None]
  # None is their value: all tokens, no latents, a computed temperature, the newest step.
  computed = ['attention_factor', 'mscale', 'mscale_all_dim'] if 'yarn' in name else []
  positional = [f'position.{field}' for field in computed]
  latents = [f'model.{field}' for field in sorted(decoder_config.MLA_FIELDS)]
  assert unset == ['attention.window', 'data.limit', *latents, *positional, 'start.step']


def test_a_learned_table_shorter_than_the_training_length_is_refused():
  flags = ['--config=configs/lm.py:position=learned', '--config.position.max_length=20']
  with pytest.raises(ValueError, match=r'holds 20 positions; asked for 64.*position.max_length'):
    configs.resolve(cli.read_config(flags))


def test_derived_values_follow_what_they_derive_from():
  flags = ['--config=configs/lm.py:position=learned,length=48', '--config.model.width=96']
  flags += ['--config.model.mlp=gelu', '--config.eval.lengths=(48,)']
  config = configs.resolve(cli.read_config(flags))
  assert config['position']['max_length'] == 48
  assert config['model']['head_dim'] == 24 and config['model']['kv_heads'] == 4
  assert config['model']['mlp_width'] == 4 * 96
  for given, projection, groups in (
    ([], 'mha', 4), (['kv_heads=4'], 'mha', 4), (['kv_heads=2'], 'gqa', 2),
    (['kv_heads=1'], 'mqa', 1), (['projection=mqa'], 'mqa', 1), (['projection=mla'], 'mla', 4),
  ):  # fmt: skip
    found = configs.resolve(cli.read_config([*flags, *(f'--config.model.{g}' for g in given)]))
    assert (found['model']['projection'], found['model']['kv_heads']) == (projection, groups)
  latent = {'latent': 96, 'query_latent': 0, 'rotary_dim': 12, 'value_dim': 24}
  assert {field: found['model'][field] for field in latent} == latent
  gated = configs.resolve(cli.read_config([*flags, '--config.model.mlp=swiglu']))
  assert gated['model']['mlp_width'] == 8 / 3 * 96


def test_conditions_leave_out_scheme_seed_and_bookkeeping_only():
  rope = configs.resolve(lm.get_config('position=rope'))
  alibi = configs.resolve(lm.get_config('position=alibi,seed=3'))
  alibi['run']['save_every'] = 1
  assert conditions.conditions(rope) == conditions.conditions(alibi)
  for field, value in nested.flat(conditions.experiment(rope)).items():
    places = (
      'data.tokenizer_file',
      'start.workdir',
      'start.pretrained',
    )  # the record has what is there
    if field in ('seed', 'data.seed', *places) or field.startswith('position.'):
      continue
    other = json.loads(json.dumps(rope))
    *path, last = field.split('.')
    node = other
    for key in path:
      node = node[key]
    node[last] = 'changed' if value != 'changed' else 'other'
    assert conditions.conditions(other) != conditions.conditions(rope), field
    assert nested.difference(rope, other) == [f'{field}: {value} -> changed']


def test_a_task_has_the_length_of_its_examples():
  config = configs.resolve(tasks.get_config('task=addition,size=10,position=alibi,seed=2'))
  assert config['length'] == len('0123456789+0123456789=01234567890.') - 1
  assert config['data']['task'] == 'addition' and config['eval']['lengths'] == [5, 10, 15, 20]
  with pytest.raises(ValueError, match=r"'addtion'.*addition"):
    tasks.get_config('task=addtion')
  with pytest.raises(ValueError, match='size is 0'):
    tasks.get_config('size=0')
  with pytest.raises(ValueError, match=r"'recall' has examples of 40 pairs at most, and 41"):
    tasks.get_config('task=recall,size=41')
  with pytest.raises(ValueError, match='40 pairs at most, and 50 are asked for'):
    configs.resolve(tasks.get_config('task=recall,size=25'))
  assert configs.resolve(tasks.get_config('task=recall,size=20'))['eval']['lengths'][-1] == 40
