"""MPT: ALiBi, without any bias vector."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import EXPANSION, LAYERED, Described, Family


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
  expands = True
  fixed: ClassVar = LAYERED | {
    'attention_bias': (False,),
    'mlp': ('gelu_exact',),
    'mlp_bias': (False,),
    'norm_bias': (False,),
  }

  def read(self, fields) -> Described:
    """See Family."""
    fields.only('no_bias', True)
    fields.only('expansion_ratio', EXPANSION)
    fields.only('logit_scale', None)
    fields.only('norm_type', 'low_precision_layernorm', 'layernorm')
    fields.only('ffn_config', None, {'ffn_type': 'mptmlp'})
    inner = fields.nested('attn_config')
    inner.only('alibi', True)
    inner.only('attn_type', 'multihead_attention')
    for name in ('clip_qkv', 'softmax_scale'):
      inner.only(name, None)
    for name in ('qk_ln', 'prefix_lm', 'rope'):
      inner.only(name, False)
    inner.only('sliding_window_size', -1)
    model = self.model_fields(
      width=fields.size('d_model', 2048),
      layers=fields.size('n_layers', 24),
      heads=fields.size('n_heads', 16),
      norm_eps=fields.get('layer_norm_epsilon', 1e-5),
      tied=fields.flag('tie_word_embeddings', True),
    )
    return Described(model, fields.size('vocab_size'), fields.size('max_seq_len', 2048))

  def read_position(self, fields, length):
    """See Family."""
    del length
    return positions_read.read_alibi(fields.nested('attn_config').get('alibi_bias_max', 8))

  def write(self, model, scheme, length):
    """See Family."""
    positions_write.check_alibi(scheme, model.heads)
    return {
      'd_model': model.width,
      'n_layers': model.layers,
      'n_heads': model.heads,
      'expansion_ratio': EXPANSION,
      'max_seq_len': length,
      'layer_norm_epsilon': model.norm_eps,
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
