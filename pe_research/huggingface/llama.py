"""Llama: RMSNorm, gated MLP, grouped queries, every type of RoPE."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import PLAIN, Described, Family


class Llama(Family):
  """LlamaForCausalLM."""

  architecture = 'LlamaForCausalLM'
  model_type = 'llama'
  position = 'rotation'
  prefix = 'model.'
  square = False
  ignored = r'rotary_emb\.inv_freq$'
  fixed: ClassVar = PLAIN | {
    'projection': ('mha', 'gqa', 'mqa'),
    'mlp': ('swiglu',),
    'norm': ('rms',),
  }

  def read(self, fields) -> Described:
    """See Family."""
    fields.only('hidden_act', 'silu', 'swish')
    width, heads = fields.size('hidden_size'), fields.size('num_attention_heads')
    groups = fields.size('num_key_value_heads', heads)
    model = self.model_fields(
      width=width,
      layers=fields.size('num_hidden_layers'),
      heads=heads,
      projection='mha' if groups == heads else 'mqa' if groups == 1 else 'gqa',
      kv_heads=groups,
      head_dim=fields.size('head_dim', width // heads),
      attention_bias=fields.flag('attention_bias', False),
      mlp_width=fields.size('intermediate_size'),
      mlp_bias=fields.flag('mlp_bias', False),
      norm_eps=fields.get('rms_norm_eps', 1e-6),
      tied=fields.flag('tie_word_embeddings', False),
    )
    return Described(model, fields.size('vocab_size'), fields.size('max_position_embeddings', 2048))

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values)
    return positions_read.read_rope(rope, most=length, partial=False)

  def write(self, model, scheme, length):
    """See Family."""
    rope, most = positions_write.write_rope(
      scheme, width=model.head_dim, length=length, layouts=('half',), partial=False
    )
    return {
      'hidden_size': model.width,
      'intermediate_size': model.mlp_width,
      'num_hidden_layers': model.layers,
      'num_attention_heads': model.heads,
      'num_key_value_heads': model.kv_heads,
      'head_dim': model.head_dim,
      'hidden_act': 'silu',
      'rms_norm_eps': model.norm_eps,
      'attention_bias': model.attention_bias,
      'mlp_bias': model.mlp_bias,
      'max_position_embeddings': most,
      'rope_parameters': rope,
    }

  def tensors(self, model):
    """See Family."""
    listed = [tensors.table('model.embed_tokens', 'embedding')]
    for i in range(model.layers):
      listed += norms(i)
      for theirs, ours in (('q', 'query'), ('k', 'key'), ('v', 'value'), ('o', 'out')):
        listed += tensors.linear(
          f'model.layers.{i}.self_attn.{theirs}_proj',
          f'blocks/{i}/attention/{ours}',
          bias=model.attention_bias,
        )
      listed += mlp(i, model.mlp_bias)
    return listed + tensors.norm('model.norm', 'norm')


def norms(i: int) -> list[tensors.Tensor]:
  """The two norms of block i."""
  theirs, ours = f'model.layers.{i}.', f'blocks/{i}/'
  return [
    *tensors.norm(theirs + 'input_layernorm', ours + 'attention_norm'),
    *tensors.norm(theirs + 'post_attention_layernorm', ours + 'mlp_norm'),
  ]


def mlp(i: int, bias: bool) -> list[tensors.Tensor]:
  """The gated MLP of block i."""
  return [
    tensor
    for part in ('gate', 'up', 'down')
    for tensor in tensors.linear(
      f'model.layers.{i}.mlp.{part}_proj', f'blocks/{i}/mlp/{part}', bias=bias
    )
  ]
