"""Golden cases of whole models, through the import of their checkpoints."""

import json
import pathlib
import shutil
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from golden_case import Case
from safetensors.numpy import load_file

from pe_research.attention import attend, logits
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.huggingface import importing, tensors
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder

RUN = {'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1}}


def folder_of(case: Case, directory: pathlib.Path, into: pathlib.Path) -> pathlib.Path:
  """A checkpoint's folder: the case's config.json and weights."""
  config = json.loads((directory / case.params['config']).read_text())
  config['architectures'] = [config.pop('class')]
  if config['model_type'] == 'mpt':  # transformers has 8 there, whatever the config says
    config['attn_config']['alibi_bias_max'] = 8
  into.mkdir()
  (into / 'config.json').write_text(json.dumps(config))
  shutil.copy(directory / case.params['weights'], into / 'model.safetensors')
  return into


def imported(path: pathlib.Path) -> transformer.Decoder:
  """The decoder of a checkpoint's folder."""
  config = config_of(path)
  return FunctionalDecoder(config).bind(importing.load(path, config))


def config_of(path: pathlib.Path) -> dict:
  """As much of a resolved config as a checkpoint decides, and the mesh."""
  own = {'seed': 0, 'attention': {'window': None}, 'run': RUN}
  own['start'] = {'workdir': '', 'pretrained': ''}
  return importing.checkpoint(path).config | own


def where(case: Case) -> Tokens:
  """Positions and documents, as the case has them."""
  length = case.inputs['input_ids'].shape[1]
  ids, mask = case.inputs.get('position_ids'), case.inputs.get('attention_mask')
  if ids is None and mask is None:
    return Tokens.contiguous(length)
  if ids is None:  # padding on the left
    return Tokens(
      jnp.asarray((mask.cumsum(-1) - 1) * mask, jnp.int32), jnp.asarray(mask, jnp.int32)
    )
  if mask is not None:
    return Tokens(jnp.asarray(ids, jnp.int32))
  begins = np.diff(ids, axis=1, prepend=ids[:, :1] - 1) != 1  # a document begins where ids restart
  return Tokens(jnp.asarray(ids, jnp.int32), jnp.asarray(begins.cumsum(-1) + 1, jnp.int32))


class Weights:
  """Stands in for `attend.attend` and keeps the weights of the first call, [B, H, Lq, Lk]."""

  def __init__(self):
    self.real, self.first = attend.attend, None

  def __call__(self, q, k, v, *rest, **options):
    if self.first is None:
      eye = jnp.broadcast_to(jnp.eye(k.shape[1])[None, :, None], (*k.shape[:3], k.shape[1]))
      self.first = self.real(q, k, eye, *rest, **options).swapaxes(1, 2)
    return self.real(q, k, v, *rest, **options)


def run(case: Case, decoder: transformer.Decoder, monkeypatch) -> tuple[jax.Array, jax.Array]:
  """Features of the case's tokens [B, L, D], and the weights of the first layer."""
  weights = Weights()
  monkeypatch.setattr(attend, 'attend', weights)
  tokens = jnp.asarray(case.inputs['input_ids'], jnp.int32)
  features, _ = decoder.features(tokens, where(case), Spec())
  return features, weights.first


def decoder_model(case: Case, directory: pathlib.Path, monkeypatch) -> None:
  """Logits and the first layer's attention of an imported model."""
  with tempfile.TemporaryDirectory() as temporary:
    path = folder_of(case, directory, pathlib.Path(temporary) / 'model')
    decoder = imported(path)
  features, weights = run(case, decoder, monkeypatch)
  logits = decoder.logits(features)
  real = np.ones(logits.shape[:2], bool)
  if 'position_ids' not in case.inputs and 'attention_mask' in case.inputs:
    real = case.inputs['attention_mask'] > 0
  for name in case.outputs:
    if name.startswith('attn'):
      case.compare(name, weights, where=real[:, None, :, None])
    else:
      case.compare(name, logits, where=real[:, :, None])


def t5_stack(case: Case, directory: pathlib.Path, monkeypatch) -> None:
  """A T5 stack by its self-attention: a decoder here, an encoder with the causal mask taken off."""
  given, causal = json.loads((directory / case.params['config']).read_text()), None
  causal = given['is_decoder']
  sizes = dict(
    vocab=given['vocab_size'], width=given['d_model'], layers=given['num_layers'],
    heads=given['num_heads'], projection='mha', kv_heads=given['num_heads'],
    head_dim=given['d_kv'], latent=None, query_latent=None, rotary_dim=None, value_dim=None,
    attention_bias=False, mlp=given['dense_act_fn'], mlp_width=given['d_ff'], mlp_bias=False,
    norm='rms', norm_eps=given['layer_norm_epsilon'], norm_bias=False, parallel=False, tied=True,
    embedding_scale=False, embedding_norm=False, qk_norm=False, remat='none', dtype='float32',
  )  # fmt: skip
  position = {
    'name': 't5',
    'buckets': given['relative_attention_num_buckets'],
    'max_distance': given['relative_attention_max_distance'],
    'scale_logits': False,
    'bidirectional': not causal,
  }
  decoder = transformer.Decoder(
    transformer.DecoderConfig(**sizes), position, 64, key=jax.random.key(0)
  )
  table = 'block.0.layer.0.SelfAttention.relative_attention_bias'
  found = [tensors.table('embed_tokens', 'embedding'), tensors.table(table, 'position/0/table')]
  found += tensors.norm('final_layer_norm', 'norm')
  for i in range(given['num_layers']):
    mlp = f'block.{i}.layer.{2 if causal else 1}.'
    attention = f'block.{i}.layer.0.'
    found += tensors.norm(attention + 'layer_norm', f'blocks/{i}/attention_norm')
    found += tensors.norm(mlp + 'layer_norm', f'blocks/{i}/mlp_norm')
    for theirs, ours in (('q', 'query'), ('k', 'key'), ('v', 'value'), ('o', 'out')):
      path = f'blocks/{i}/attention/{ours}'
      found += tensors.linear(f'{attention}SelfAttention.{theirs}', path)
    for theirs, ours in (('wi', 'up'), ('wo', 'down')):
      found += tensors.linear(f'{mlp}DenseReluDense.{theirs}', f'blocks/{i}/mlp/{ours}')
  stored = load_file(directory / case.params['weights'])
  assert {tensor.name for tensor in found} == set(stored)
  params = {}
  for tensor in found:
    params |= tensor.split(stored[tensor.name])
  state = nnx.to_flat_state(nnx.state(decoder, nnx.Param))
  assert {'/'.join(map(str, path)) for path, _ in state} == set(params)
  for path, variable in state:
    variable[...] = jnp.asarray(params['/'.join(map(str, path))])
  if not causal:
    everything = lambda spec, queries, keys, q_index, k_index: jnp.ones(
      (1, 1, 1, q_index.shape[1], k_index.shape[0]), bool
    )
    monkeypatch.setattr(logits, 'visible', everything)
  features, weights = run(case, decoder, monkeypatch)
  for name in case.outputs:
    case.compare(name, weights if name.startswith('attn') else features)
