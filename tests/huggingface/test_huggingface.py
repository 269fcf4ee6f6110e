"""Published checkpoints in and out: bit for bit, of any size and type, in any number of files."""

import json
import pathlib
import subprocess
import sys

import golden_models
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import published
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from pe_research.huggingface import exporting, families, folder, tensors

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
STORED = {  # NAME: golden case with another architecture, or another set of options
  case['id']: case
  for case in json.loads((GOLDEN / 'manifest.json').read_text())['cases']
  if case['family'] == 'models' and not case['scheme'].startswith('t5')
}


def stored(path: pathlib.Path) -> dict[str, np.ndarray]:
  found = {}
  for file in path.glob('*.safetensors'):
    found |= load_file(file)
  return found


def as_run(path: pathlib.Path) -> dict:
  """A config as that of a run whose weights come from the folder."""
  config = golden_models.config_of(path)
  return config | {'data': config['data'] | {'tokenizer': 'sentencepiece'}}


@pytest.mark.parametrize('name', STORED)
def test_golden_models_go_in_out_and_in_again(name, tmp_path):
  case = golden_models.Case(STORED[name]['params'], '', {}, {}, **STORED[name]['tolerance'])
  first = golden_models.folder_of(case, GOLDEN, tmp_path / 'first')
  config, params = as_run(first), published.imported(first)
  architecture = json.loads((first / 'config.json').read_text())['architectures'][0]
  exporting.export(exporting.plan(config, architecture), params, tmp_path / 'second')
  again = golden_models.config_of(tmp_path / 'second')
  assert again['model'] == config['model']
  assert published.bits(published.imported(tmp_path / 'second')) == published.bits(params)
  before, after = stored(first), stored(tmp_path / 'second')
  if 'embed_out.weight' in after:  # as releases 4 and 5 both read it
    after['lm_head.weight'] = after.pop('embed_out.weight')
  assert all(before[tensor].tobytes() == x.tobytes() for tensor, x in after.items())
  # Only the output matrix of a tied model is left out.
  assert before.keys() - after.keys() <= {'lm_head.weight'}


@pytest.mark.spread(2)
@pytest.mark.parametrize('name', published.CASES)
def test_exported_models_come_back(name, tmp_path):
  config = published.config(name)
  params = published.params(config)
  back = published.imported(published.exported(tmp_path / 'out', name))
  factors = exporting.plan(config).scales
  for path, x in back.items():
    source = params[path if path in params else 'embedding']
    assert np.array_equal(x, np.asarray(source) * np.float32(factors.get(path, 1))), path
  model = golden_models.config_of(tmp_path / 'out')['model']
  want = config['model'] | {'embedding_scale': False}
  want['tied'] = want['tied'] and not factors.get('embedding')
  assert {k: v for k, v in model.items() if want[k] != v} == {}


@pytest.mark.slow
@given(
  family=st.sampled_from(['llama', 'neox', 'gpt2', 'bloom', 'mpt', 'deepseek']),
  heads=st.integers(1, 6),
  width=st.integers(1, 3).map(lambda n: 4 * n),
  layers=st.integers(1, 3),
  latent=st.integers(1, 9),
  seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_sizes(tmp_path_factory, family, heads, width, layers, latent, seed):
  position, given_, model = published.CASES[family]
  sizes = {'heads': heads, 'kv_heads': None, 'projection': None, 'width': heads * width}
  sizes |= {'layers': layers, 'head_dim': width}
  if family == 'deepseek':
    sizes |= {'projection': 'mla', 'latent': latent, 'query_latent': seed % 3, 'value_dim': latent}
  if family in ('bloom', 'mpt'):
    sizes['mlp_width'] = 4 * heads * width
  config = published.resolved(position, given_, model | sizes)
  params, into = published.params(config, seed), tmp_path_factory.mktemp('sizes') / 'out'
  exporting.export(exporting.plan(config), params, into)
  assert published.bits(published.imported(into)) == published.bits(params)


@given(
  groups=st.integers(1, 4),
  widths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
  inputs=st.integers(1, 4),
  transposed=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_split_and_join_are_inverse(groups, widths, inputs, transposed):
  names = tuple(map(str, range(len(widths))))
  tensor = tensors.Tensor('x', names, tuple(widths), groups, transposed)
  shape = (inputs, groups * sum(widths))
  array = np.arange(np.prod(shape)).reshape(shape[::-1] if transposed else shape)
  parts = tensor.split(array)
  assert {name: x.shape for name, x in parts.items()} == {
    name: (inputs, groups * w) for name, w in zip(names, widths, strict=True)
  }
  assert np.array_equal(tensor.join(parts), array)
  assert tensor.shape({name: x.shape for name, x in parts.items()}) == array.shape
  # The first outputs are those of the first group: all of the first part, then of the next.
  outputs = array if transposed else array.T
  assert np.array_equal(outputs[: widths[0]], parts['0'][:, : widths[0]].T)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_narrow_weights_stay_as_they_are(dtype, tmp_path):
  path = published.exported(tmp_path / 'narrow', dtype=dtype)
  kind = np.dtype(exporting.TYPES[dtype])
  params = published.imported(path)
  assert {x.dtype for x in params.values()} == {kind}
  source = published.params(published.config('llama'))
  for name, x in params.items():
    assert np.asarray(x).tobytes() == np.asarray(source[name]).astype(kind).tobytes()
  # Without being told to, they are written as they came, and the same model computes in float32.
  exporting.export(exporting.plan(as_run(path)), params, tmp_path / 'again')
  assert published.bits(published.imported(tmp_path / 'again')) == published.bits(params)
  assert json.loads((tmp_path / 'again' / 'config.json').read_text())['dtype'] == dtype
  wide = {name: x.astype(jnp.float32) for name, x in params.items()}
  config = golden_models.config_of(path)
  tokens, at = jnp.asarray(published.ids('llama')), golden_models.attend.Tokens.contiguous(24)
  logits = [
    golden_models.FunctionalDecoder(config).bind(p)(tokens, at, golden_models.attend.Spec())
    for p in (params, wide)
  ]
  assert np.array_equal(*logits)


@pytest.mark.parametrize('name', ['llama', 'gpt2', 'deepseek'])
def test_shards(name, tmp_path):
  whole, parts = (
    published.exported(tmp_path / 'whole', name),
    published.exported(tmp_path / 'parts', name, shard_bytes=9000),
  )
  index = json.loads((parts / folder.INDEX).read_text())
  files = sorted(parts.glob('*.safetensors'))
  assert len(files) > 3
  assert [f.name for f in files] == sorted(set(index['weight_map'].values()))
  assert files[0].name == f'model-00001-of-{len(files):05}.safetensors'
  held = [load_file(file) for file in files]
  assert all(len(h) == 1 or sum(x.nbytes for x in h.values()) <= 9000 for h in held)
  assert index['metadata']['total_size'] == sum(x.nbytes for h in held for x in h.values())
  assert published.bits(published.imported(parts)) == published.bits(published.imported(whole))


def test_names_of_other_releases(tmp_path):
  neox = published.exported(tmp_path / 'neox', 'neox')
  want = published.bits(published.imported(neox))
  found = load_file(neox / folder.SINGLE)
  found['lm_head.weight'] = found.pop('embed_out.weight')
  found['gpt_neox.layers.0.attention.rotary_emb.inv_freq'] = np.ones(2, np.float32)
  found['gpt_neox.layers.0.attention.masked_bias'] = np.float32([-1e9])
  found['gpt_neox.layers.0.attention.bias'] = np.tri(4, dtype=bool)
  save_file(found, neox / folder.SINGLE)
  assert published.bits(published.imported(neox)) == want
  gpt2 = published.exported(tmp_path / 'gpt2', 'gpt2')
  want = published.bits(published.imported(gpt2))
  found = {k.removeprefix('transformer.'): v for k, v in load_file(gpt2 / folder.SINGLE).items()}
  found['h.0.attn.bias'] = np.tri(4, dtype=np.float32)
  save_file(found, gpt2 / folder.SINGLE)
  assert published.bits(published.imported(gpt2)) == want


@pytest.mark.parametrize('name', ['gpt2', 'bloom', 'mpt'])
def test_fields_by_the_names_that_all_models_have(name, tmp_path):
  path = published.exported(tmp_path / 'model', name)
  want = golden_models.config_of(path)
  config = json.loads((path / 'config.json').read_text())
  (family,) = (f for f in families.FAMILIES if f.model_type == config['model_type'])
  renamed = {family.aliases.get(k, k): v for k, v in config.items()}
  assert renamed != config
  (path / 'config.json').write_text(json.dumps(renamed))
  assert golden_models.config_of(path) == want


def test_a_tied_model_may_have_its_output_twice(tmp_path):
  path = published.exported(tmp_path / 'tied', 'llama tied')
  want, found = published.bits(published.imported(path)), load_file(path / folder.SINGLE)
  found['lm_head.weight'] = found['model.embed_tokens.weight'].copy()
  save_file(found, path / folder.SINGLE)
  assert published.bits(published.imported(path)) == want
  found['lm_head.weight'][3, 3] += 1
  save_file(found, path / folder.SINGLE)
  with pytest.raises(ValueError, match=r'lm_head\.weight differs'):
    published.imported(path)


def test_every_architecture_has_a_case():
  names = {f.architecture for f in families.FAMILIES}
  assert names == {exporting.plan(published.config(n)).family.architecture
                   for n in published.CASES}  # fmt: skip


MEASURE = """
import pathlib, sys
sys.path[:0] = ['tests', '.']
import golden_models
from pe_research.huggingface import importing
def status(field):
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
small, large = map(pathlib.Path, sys.argv[1:])
importing.load(small, golden_models.config_of(small))
config = golden_models.config_of(large)
before = status('VmRSS')
pathlib.Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
params = importing.load(large, config)
print(status('VmHWM') - before, sum(x.nbytes for x in params.values()))
"""


def test_the_host_holds_the_weights_and_one_file(tmp_path):
  small = published.exported(tmp_path / 'small', dtype='bfloat16')
  changes = {'width': 512, 'mlp_width': 2048, 'layers': 12, 'head_dim': 128}
  config = published.resolved('rope', {}, published.LLAMA | changes)
  shapes = jax.eval_shape(golden_models.FunctionalDecoder(config).init)
  params = {name: np.ones(x.shape, ml_dtypes.bfloat16) for name, x in shapes.items()}
  shard = 12 * 2**20
  exporting.export(exporting.plan(config), params, tmp_path / 'large', shard_bytes=shard)
  done = subprocess.run(
    [sys.executable, '-c', MEASURE, small, tmp_path / 'large'],
    capture_output=True, text=True, check=True, cwd=pathlib.Path(__file__).parents[2],
  )  # fmt: skip
  taken, weights = map(int, done.stdout.split()[-2:])
  assert weights > 90 * 2**20
  # What is left over belongs to JAX, which traces the model in between.
  assert taken < weights + shard + 24 * 2**20
