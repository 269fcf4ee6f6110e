"""Published checkpoints that are damaged, of another kind, too large; and folders that exist."""

import json
import pathlib
import shutil

import golden_models
import jax
import numpy as np
import published
import pytest
from safetensors.numpy import load_file, save_file

from pe_research.huggingface import exporting, folder, importing
from pe_research.machines import memory


def edit(path: pathlib.Path, **changes) -> None:
  config = json.loads((path / 'config.json').read_text())
  config = {k: v for k, v in (config | changes).items() if v is not ...}
  (path / 'config.json').write_text(json.dumps(config))


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'model_type': 'mamba'}, ["'mamba'", 'LlamaForCausalLM', 'MptForCausalLM']),
    ({'model_type': ...}, ['None', 'LlamaForCausalLM']),
    (
      {'model_type': 'mixtral', 'num_local_experts': 8},
      ['mixture of experts', 'num_local_experts'],
    ),
    ({'architectures': ['LlamaForSequenceClassification']}, ['SequenceClassification', 'CausalLM']),
    ({'hidden_size': ...}, ['hidden_size']),
    ({'hidden_size': 'wide'}, ['hidden_size', "'wide'"]),
    ({'vocab_size': 0}, ['vocab_size', '0']),
    ({'hidden_act': 'gelu'}, ['hidden_act', "'gelu'", "'silu'"]),
    ({'rope_parameters': {'rope_type': 'spiral'}}, ["'spiral'", 'longrope']),
    ({'rope_parameters': {'rope_type': 'yarn', 'factor': 0.5}}, ['0.5']),
    ({'rope_parameters': {'rope_type': 'linear', 'factor': 'x'}}, ['config.json']),
    ({'partial_rotary_factor': 0.5}, ['partial_rotary_factor', '0.5']),
    ({'quantization_config': {'bits': 4}}, ['quantized']),
    ({'rope_parameters': {'rope_type': 'linear', 'factor': 0}}, ['config.json', 'factor is 0']),
    ({'attention_bias': []}, ['attention_bias', 'true or false']),
    ({'architectures': 5}, ['config.json', 'architectures is 5', 'list of names']),
    ({'model_type': []}, ['config.json', 'model_type is []']),
    ({'rms_norm_eps': 'small'}, ['rms_norm_eps', "'small'"]),
    ({'sliding_window': 512}, ['sliding_window is 512', 'positions']),
    ({'layer_types': ['chunked_attention'] * 2}, ['layer_types', 'positions']),
    ({'num_key_value_heads': 3}, ['model.kv_heads', '3']),
    ({'hidden_size': 48}, ['disagree', 'model.embed_tokens.weight', '(256, 32)', '(256, 48)']),
    ({'num_hidden_layers': 3}, ['missing', 'model.layers.2.self_attn.q_proj.weight']),
    ({'num_hidden_layers': 1}, ['unexpected', 'model.layers.1.self_attn.q_proj.weight']),
    ({'attention_bias': True}, ['missing', 'model.layers.0.self_attn.q_proj.bias']),
  ],
)
def test_a_bad_config_is_named(changes, words, tmp_path):
  path = published.exported(tmp_path / 'bad')
  edit(path, **changes)
  with pytest.raises(ValueError) as error:
    published.imported(path)
  assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
  'name, changes, words',
  [
    ('deepseek', {'first_k_dense_replace': 1}, ['of 2 layers', '1 on', 'mixtures of experts']),
    ('deepseek 2', {'first_k_dense_replace': ...}, ['of 2 layers', '0 on', 'mixtures of experts']),
    ('deepseek', {'partial_rotary_factor': 0.5}, ['partial_rotary_factor', '0.5', 'proportional']),
    ('bloom', {'slow_but_exact': True, 'pretraining_tp': 4}, ['slow_but_exact']),
    ('mpt', {'norm_type': 'rmsnorm'}, ['norm_type', "'rmsnorm'"]),
    ('mpt', {'attn_config': {'rope': True}}, ['attn_config', 'rope']),
    ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, ['scale_attn_by_inverse_layer_idx']),
    ('bloom', {'apply_residual_connection_post_layernorm': True}, ['post_layernorm']),
    ('mpt', {'no_bias': False}, ['no_bias']),
    ('mpt', {'attn_config': {'alibi': False}}, ['attn_config', 'alibi']),
    ('mpt', {'attn_config': {'clip_qkv': 6}}, ['clip_qkv', '6']),
    ('neox', {'hidden_act': 'swish'}, ['hidden_act', "'swish'"]),
  ],
)
def test_what_the_decoder_does_not_do_is_named(name, changes, words, tmp_path):
  path = published.exported(tmp_path / 'bad', name)
  edit(path, **changes)
  with pytest.raises(ValueError) as error:
    published.imported(path)
  assert all(word in str(error.value) for word in words), str(error.value)


def test_absent_and_damaged_files(tmp_path):
  with pytest.raises(ValueError, match=r'no config\.json'):
    importing.checkpoint(tmp_path)
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='is a file'):
    importing.checkpoint(tmp_path / 'file')
  path = published.exported(tmp_path / 'whole')
  config, file = golden_models.config_of(path), path / folder.SINGLE
  content = file.read_bytes()
  for bad in (content[: len(content) - 100], content[:50], b'', b'{}' * 50):
    file.write_bytes(bad)
    with pytest.raises(ValueError, match=r'model\.safetensors is damaged'):
      importing.load(path, config)
  file.unlink()
  with pytest.raises(ValueError, match='neither'):
    importing.load(path, config)
  (path / 'config.json').write_text('{"model_type": ')
  with pytest.raises(ValueError, match='cannot be read'):
    importing.checkpoint(path)


def test_a_single_file_goes_before_an_index_that_an_earlier_save_left(tmp_path):
  path, old = published.exported(tmp_path / 'whole'), tmp_path / 'old'
  wanted = published.bits(published.imported(path))
  published.exported(old, shard_bytes=9000)
  for file in old.glob('model*'):
    shutil.copy(file, path / file.name)
    part = path / file.name
    if part.suffix == '.safetensors':
      save_file({name: x + 1 for name, x in load_file(part).items()}, part)
  assert (path / folder.INDEX).exists()
  assert published.bits(published.imported(path)) == wanted
  for file in path.glob('model-*'):
    file.unlink()
  assert published.bits(published.imported(path)) == wanted


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json'])
def test_a_pointer_of_git_lfs_is_called_that(name, tmp_path):
  path = published.exported(tmp_path / 'pointer')
  (path / name).write_text(f'version https://git-lfs.github.com/spec/v1\noid sha256:{"0" * 64}\n')
  with pytest.raises(ValueError, match=f'{name} is a Git LFS pointer.*git lfs pull'):
    importing.checkpoint(path)


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
  path = published.exported(tmp_path / 'adapted')
  (path / 'adapter_config.json').write_text('{}')
  with pytest.raises(ValueError, match=r'adapter_config\.json is there'):
    importing.checkpoint(path)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_named_with_its_tensor(value, tmp_path):
  path, name = published.exported(tmp_path / 'bad'), 'model.layers.1.mlp.up_proj.weight'
  found = load_file(path / folder.SINGLE)
  found[name][3, 4] = value
  save_file(found, path / folder.SINGLE)
  with pytest.raises(ValueError, match=f'1 of .* values of {name} are NaN or infinite'):
    published.imported(path)


def test_a_tied_head_that_is_padded_is_compared_where_both_have_rows(tmp_path):
  path = published.exported(tmp_path / 'tied', 'llama tied')
  wanted = published.bits(published.imported(path))
  found = load_file(path / folder.SINGLE)
  embedding = found['model.embed_tokens.weight']
  padded = np.concatenate([embedding, np.zeros((8, embedding.shape[1]), np.float32)])
  save_file(found | {'lm_head.weight': padded}, path / folder.SINGLE)
  assert published.bits(published.imported(path)) == wanted
  save_file(found | {'lm_head.weight': padded + 1}, path / folder.SINGLE)
  with pytest.raises(ValueError, match=r'264 rows, and the embedding 256.*remove lm_head\.weight'):
    published.imported(path)


def test_bad_indices(tmp_path):
  path = published.exported(tmp_path / 'parts', shard_bytes=9000)
  config, index = golden_models.config_of(path), path / folder.INDEX
  listed = json.loads(index.read_text())
  missing = path / 'model-00002-of-00009.safetensors'
  shard = sorted(path.glob('*.safetensors'))[1]
  shutil.move(shard, tmp_path / 'aside')
  with pytest.raises(ValueError, match=f'names {shard.name}, absent'):
    importing.load(path, config)
  shutil.move(tmp_path / 'aside', shard)
  assert not missing.exists() or missing == shard
  listed['weight_map']['model.norm.weight'] = shard.name
  index.write_text(json.dumps(listed))
  with pytest.raises(ValueError, match=r'not in their files: model\.norm\.weight'):
    importing.load(path, config)
  for bad in ('{}', '{"weight_map": {"lm_head.weight": null}}'):
    index.write_text(bad)
    with pytest.raises(ValueError, match='no weight_map'):
      importing.load(path, config)


def test_two_outputs_are_one_too_many(tmp_path):
  path = published.exported(tmp_path / 'neox', 'neox')
  found = load_file(path / folder.SINGLE)
  found['lm_head.weight'] = found['embed_out.weight'] + 1
  save_file(found, path / folder.SINGLE)
  with pytest.raises(ValueError, match=r'unexpected: embed_out\.weight'):
    published.imported(path)


def test_whole_numbers_are_no_weights(tmp_path):
  path = published.exported(tmp_path / 'whole')
  config, found = golden_models.config_of(path), load_file(path / folder.SINGLE)
  found['model.norm.weight'] = found['model.norm.weight'].astype(np.int32)
  save_file(found, path / folder.SINGLE)
  with pytest.raises(ValueError, match=r'model\.norm\.weight \(I32\)'):
    importing.load(path, config)


def test_what_does_not_fit_is_said_before_it_is_read(tmp_path, monkeypatch):
  path = published.exported(tmp_path / 'large')
  config = golden_models.config_of(path)
  size = sum(x.nbytes for x in published.imported(path).values()) * jax.device_count()
  monkeypatch.setattr(folder, 'read', lambda *_: pytest.fail('weights were read'))
  monkeypatch.setattr(memory, 'available', lambda: size - 1)
  with pytest.raises(ValueError, match='GiB for its weights'):
    importing.load(path, config)


def test_an_existing_folder_is_kept(tmp_path):
  path = published.exported(tmp_path / 'out')
  before = published.bits(published.imported(path))
  with pytest.raises(ValueError, match='exists'):
    published.exported(path, 'llama tied')
  assert published.bits(published.imported(path)) == before
  published.exported(path, 'llama tied', overwrite=True)
  assert json.loads((path / 'config.json').read_text())['tie_word_embeddings']
  assert published.bits(published.imported(path)) != before
  other = tmp_path / 'thesis'
  other.mkdir()
  (other / 'chapter.txt').write_text('five years')
  with pytest.raises(ValueError, match='holds no checkpoint'):
    published.exported(other, overwrite=True)
  assert (other / 'chapter.txt').read_text() == 'five years'


def test_the_source_of_the_weights_is_never_replaced(tmp_path):
  path = published.exported(tmp_path / 'source')
  config = golden_models.config_of(path) | {'start': {'workdir': '', 'pretrained': str(path)}}
  with pytest.raises(ValueError, match='come from'):
    exporting.export(exporting.plan(config), published.imported(path), path, overwrite=True)


def test_numbers_that_a_type_does_not_hold(tmp_path):
  config = published.config('llama')
  params = published.params(config)
  params['norm/scale'] = params['norm/scale'].at[3].set(1e6)
  with pytest.raises(ValueError, match=r'norm/scale .* float16'):
    exporting.export(exporting.plan(config), params, tmp_path / 'out', dtype='float16')
  assert not (tmp_path / 'out').exists()
  exporting.export(exporting.plan(config), params, tmp_path / 'out', dtype='bfloat16')


def test_a_folder_that_cannot_be_put_leaves_the_old_one(tmp_path, monkeypatch):
  path = published.exported(tmp_path / 'out')
  before = published.bits(published.imported(path))
  real = pathlib.Path.rename

  def rename(self, target):
    if self.name.endswith('.part'):
      raise OSError(28, 'full')
    return real(self, target)

  monkeypatch.setattr(pathlib.Path, 'rename', rename)
  with pytest.raises(OSError, match='full'):
    published.exported(path, 'llama tied', overwrite=True)
  assert [f.name for f in tmp_path.iterdir()] == ['out']
  assert published.bits(published.imported(path)) == before


def test_a_failure_leaves_nothing_half_written(tmp_path, monkeypatch):
  path = published.exported(tmp_path / 'out')
  before = published.bits(published.imported(path))
  monkeypatch.setattr(exporting, 'save_file', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    published.exported(path, overwrite=True)
  with pytest.raises(ZeroDivisionError):
    published.exported(tmp_path / 'new')
  assert [f.name for f in tmp_path.iterdir()] == ['out']
  assert published.bits(published.imported(path)) == before


def test_all_problems_of_a_folder_are_listed_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr(folder, 'read', lambda *_: pytest.fail('weights were read'))
  path = published.exported(tmp_path / 'bad', shard_bytes=9000)
  absent, damaged = sorted(path.glob('*.safetensors'))[:2]
  absent.unlink()
  damaged.write_bytes(b'')
  (path / importing.TOKENIZER).write_text('{')
  edit(path, hidden_size='wide', hidden_act='gelu', rope_parameters={'rope_type': 'llama3'})
  with pytest.raises(ValueError, match='for 6 reasons') as error:
    importing.checkpoint(path, tokenizer=True)
  said = str(error.value)
  for words in (
    "config.json: hidden_size is 'wide'", "config.json: hidden_act is 'gelu'",
    "'llama3' needs factor, low_freq_factor", f'names {absent.name}, absent',
    f'{damaged.name} is damaged', 'is not a tokenizer.json',
  ):  # fmt: skip
    assert words in said, said
  assert '\n' not in said


def test_all_mismatches_of_the_tensors_are_listed_at_once(tmp_path):
  path = published.exported(tmp_path / 'bad')
  found = load_file(path / folder.SINGLE)
  found['more'] = found.pop('model.norm.weight')
  found['lm_head.weight'] = found['lm_head.weight'].astype(np.int32)
  found['model.embed_tokens.weight'] = found['model.embed_tokens.weight'][1:]
  save_file(found, path / folder.SINGLE)
  edit(path, rope_parameters={'rope_type': 'default', 'rope_theta': -1.0}, rope_theta=...)
  with pytest.raises(ValueError, match='rope_theta is -1; it must be above 0'):
    importing.checkpoint(path)
  edit(path, rope_parameters={'rope_type': 'default', 'rope_theta': 10.0})
  with pytest.raises(ValueError, match='for 4 reasons') as error:
    importing.checkpoint(path)
  said = str(error.value)
  assert all(words in said for words in ('missing: model.norm.weight', 'unexpected: more',
             'lm_head.weight (I32)', '(255, 32), expected (256, 32)')), said  # fmt: skip
