"""Llama: RMSNorm, gated MLP, grouped queries, every type of RoPE."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import DERIVED, PLAIN, REQUIRED, Family


class Llama(Family):
  """LlamaForCausalLM."""

  architecture = 'LlamaForCausalLM'
  model_type = 'llama'
  position = 'rotation'
  prefix = 'model.'
  square = False
  position_fields = positions_read.ROPE
  ignored = r'rotary_emb\.inv_freq$'
  names: ClassVar = {
    'hidden_size': ('width', REQUIRED),
    'num_attention_heads': ('heads', REQUIRED),
    'num_key_value_heads': ('kv_heads', DERIVED),
    'num_hidden_layers': ('layers', REQUIRED),
    'head_dim': ('head_dim', DERIVED),
    'intermediate_size': ('mlp_width', REQUIRED),
    'rms_norm_eps': ('norm_eps', 1e-6),
    'attention_bias': ('attention_bias', False),
    'mlp_bias': ('mlp_bias', False),
  }
  length = ('max_position_embeddings', 2048)
  supported: ClassVar = {'hidden_act': ('silu', 'swish')}
  fixed: ClassVar = PLAIN | {
    'projection': ('mha', 'gqa', 'mqa'),
    'mlp': ('swiglu',),
    'norm': ('rms',),
  }

  def read(self, fields):
    """See Family."""
    described = super().read(fields)
    heads, groups = described.model['heads'], described.model['kv_heads']
    kind = 'mha' if groups == heads else 'mqa' if groups == 1 else 'gqa'
    described.model['projection'] = kind
    return described

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values)
    return positions_read.read_rope(rope, most=length, partial=False)

  def write_position(self, model, scheme, length):
    """See Family."""
    fields = positions_write.write_rope(
      scheme, width=model.head_dim, length=length, layouts=('half',), partial=False
    )
    return fields | {'hidden_act': 'silu'}

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
