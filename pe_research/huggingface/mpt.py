"""MPT: ALiBi, without any bias vector."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import EXPANSION, LAYERED, Family

ATTENTION = {  # fields of attn_config, with the only supported value
  'alibi': True,
  'attn_type': 'multihead_attention',
  'clip_qkv': None,
  'softmax_scale': None,
  'qk_ln': False,
  'prefix_lm': False,
  'rope': False,
  'sliding_window_size': -1,
}


class MPT(Family):
  """MptForCausalLM.

  alibi_bias_max is read as in its authors' code (llm-foundry). transformers 5.23.0 ignores the
  field and uses 8, so its results differ for models with another value.
  """

  architecture = 'MptForCausalLM'
  model_type = 'mpt'
  position = 'distance'
  prefix = 'transformer.'
  aliases: ClassVar = {
    'd_model': 'hidden_size',
    'n_heads': 'num_attention_heads',
    'n_layers': 'num_hidden_layers',
  }
  names: ClassVar = {
    'd_model': ('width', 2048),
    'n_heads': ('heads', 16),
    'n_layers': ('layers', 24),
    'layer_norm_epsilon': ('norm_eps', 1e-5),
  }
  length = ('max_seq_len', 2048)
  tied = True
  position_fields = (
    'attn_config.alibi',
    'attn_config.alibi_bias_max',
    'attn_config.sliding_window_size',
  )
  supported: ClassVar = {
    'no_bias': (True,),
    'expansion_ratio': (EXPANSION,),
    'logit_scale': (None,),
    'norm_type': ('low_precision_layernorm', 'layernorm'),
    'ffn_config': (None, {'ffn_type': 'mptmlp'}),
  }
  expands = True
  fixed: ClassVar = LAYERED | {
    'attention_bias': (False,),
    'mlp': ('gelu_exact',),
    'mlp_bias': (False,),
    'norm_bias': (False,),
  }

  def read(self, fields):
    """See Family."""
    attention = fields.nested('attn_config')
    for name, value in ATTENTION.items():
      attention.only(name, value)
    return super().read(fields)

  def read_position(self, fields, length):
    """See Family."""
    del length
    return positions_read.read_alibi(fields.nested('attn_config').get('alibi_bias_max', 8))

  def write_position(self, model, scheme, length):
    """See Family."""
    positions_write.check_alibi(scheme, model.heads)
    return {
      'expansion_ratio': EXPANSION,
      'max_seq_len': length,
      'no_bias': True,
      'attn_config': {'alibi': True, 'alibi_bias_max': positions_write.MAX_BIAS},
    }

  def tensors(self, model):
    """See Family."""
    listed = [tensors.table('transformer.wte', 'embedding')]
    for i in range(model.layers):
      theirs, ours = f'transformer.blocks.{i}.', f'blocks/{i}/'
      listed += [
        *tensors.norm(theirs + 'norm_1', ours + 'attention_norm'),
        *tensors.norm(theirs + 'norm_2', ours + 'mlp_norm'),
        *tensors.fused(theirs + 'attn.Wqkv', i, widths=(model.width,) * 3),
        *tensors.linear(theirs + 'attn.out_proj', ours + 'attention/out'),
        *tensors.linear(theirs + 'ffn.up_proj', ours + 'mlp/up'),
        *tensors.linear(theirs + 'ffn.down_proj', ours + 'mlp/down'),
      ]
    return listed + tensors.norm('transformer.norm_f', 'norm')
