"""MPT: ALiBi, without any bias vector."""

from typing import ClassVar

from pe_research.huggingface import bloom, tensors
from pe_research.huggingface.family import Described, Family, Fields
from pe_research.positions import huggingface_read, huggingface_write
from pe_research.positions.huggingface_write import NotExportable


class MPT(Family):
  """MptForCausalLM.

  Its alibi_bias_max is read as its authors' code does (llm-foundry); transformers 5.23.0 has 8 in
  its place, so that it computes something else for MPT-7B-StoryWriter, which was trained with 16.
  """

  architecture = 'MptForCausalLM'
  model_type = 'mpt'
  position = 'alibi'
  prefix = 'transformer.'
  aliases: ClassVar = {
    'd_model': 'hidden_size',
    'n_heads': 'num_attention_heads',
    'n_layers': 'num_hidden_layers',
  }
  fixed: ClassVar = {
    'projection': ('mha',),
    'attention_bias': (False,),
    'mlp': ('gelu_exact',),
    'mlp_bias': (False,),
    'norm': ('layer',),
    'norm_bias': (False,),
    'parallel': (False,),
    'embedding_norm': (False,),
    'qk_norm': (False,),
  }

  def read(self, fields) -> Described:
    """See Family."""
    fields.only('no_bias', True)
    fields.only('expansion_ratio', 4)
    fields.only('logit_scale', None)
    fields.only('norm_type', 'low_precision_layernorm', 'layernorm')
    fields.only('ffn_config', None, {'ffn_type': 'mptmlp'})
    inner = Fields(fields.get('attn_config', {}), f'{fields.where}, attn_config')
    inner.only('alibi', True)
    inner.only('attn_type', 'multihead_attention')
    for name in ('clip_qkv', 'softmax_scale'):
      inner.only(name, None)
    for name in ('qk_ln', 'prefix_lm', 'rope'):
      inner.only(name, False)
    inner.only('sliding_window_size', -1)
    width, heads = fields.size('d_model', 2048), fields.size('n_heads', 16)
    model = self.usual(
      width=width,
      layers=fields.size('n_layers', 24),
      heads=heads,
      kv_heads=heads,
      head_dim=width // heads,
      mlp_width=4 * width,
      norm_eps=fields.get('layer_norm_epsilon', 1e-5),
      tied=fields.flag('tie_word_embeddings', True),
    )
    position = huggingface_read.read_alibi(inner.get('alibi_bias_max', 8))
    return Described(model, fields.size('vocab_size'), position, fields.size('max_seq_len', 2048))

  def write(self, model, scheme, length):
    """See Family."""
    most = huggingface_write.alibi_bias(scheme, model.heads)
    if most != 8:
      raise NotExportable(
        f'position.max_bias is {most:g}; transformers has 8, whatever is asked for'
      )
    return {
      'd_model': model.width,
      'n_layers': model.layers,
      'n_heads': model.heads,
      'expansion_ratio': 4,
      'max_seq_len': length,
      'layer_norm_epsilon': model.norm_eps,
      'no_bias': True,
      'attn_config': {'alibi': True, 'alibi_bias_max': 8},
    }

  def obstacles(self, model):
    """See Family; the MLP is four times as wide as the model."""
    return super().obstacles(model) + bloom.wide(model)

  def tensors(self, model):
    """See Family."""
    found = [tensors.table('transformer.wte', 'embedding')]
    for i in range(model.layers):
      theirs, ours = f'transformer.blocks.{i}.', f'blocks/{i}/'
      found += [
        *tensors.norm(theirs + 'norm_1', ours + 'attention_norm'),
        *tensors.norm(theirs + 'norm_2', ours + 'mlp_norm'),
        *tensors.linear(
          theirs + 'attn.Wqkv',
          *(ours + f'attention/{part}' for part in ('query', 'key', 'value')),
          widths=(model.width,) * 3,
        ),
        *tensors.linear(theirs + 'attn.out_proj', ours + 'attention/out'),
        *tensors.linear(theirs + 'ffn.up_proj', ours + 'mlp/up'),
        *tensors.linear(theirs + 'ffn.down_proj', ours + 'mlp/down'),
      ]
    return found + tensors.norm('transformer.norm_f', 'norm')
