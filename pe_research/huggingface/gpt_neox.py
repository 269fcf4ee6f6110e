"""GPT-NeoX and Pythia: partial rotary embedding, attention and MLP in parallel."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import LAYERED, Described, Family

ACTIVATIONS = {
  'gelu': 'gelu_exact',
  'gelu_new': 'gelu',
  'gelu_fast': 'gelu',
  'gelu_pytorch_tanh': 'gelu',
  'relu': 'relu',
}
NAMES = {'gelu_exact': 'gelu', 'gelu': 'gelu_new', 'relu': 'relu'}


class GPTNeoX(Family):
  """GPTNeoXForCausalLM."""

  architecture = 'GPTNeoXForCausalLM'
  model_type = 'gpt_neox'
  position = 'rotation'
  prefix = 'gpt_neox.'
  ignored = r'attention\.(bias|masked_bias|rotary_emb\.inv_freq)$'
  renamed: ClassVar = {'lm_head.weight': 'embed_out.weight'}  # before transformers 5
  fixed: ClassVar = LAYERED | {
    'attention_bias': (True, False),
    'mlp': tuple(NAMES),
    'parallel': (True, False),
  }

  def read(self, fields) -> Described:
    """See Family."""
    width, heads = fields.size('hidden_size'), fields.size('num_attention_heads')
    model = self.model_fields(
      width=width,
      layers=fields.size('num_hidden_layers'),
      heads=heads,
      attention_bias=fields.flag('attention_bias', True),
      mlp=ACTIVATIONS[fields.only('hidden_act', *ACTIVATIONS)],
      mlp_width=fields.size('intermediate_size'),
      norm_eps=fields.get('layer_norm_eps', 1e-5),
      parallel=fields.flag('use_parallel_residual', True),
      tied=fields.flag('tie_word_embeddings', False),
    )
    return Described(model, fields.size('vocab_size'), fields.size('max_position_embeddings', 2048))

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values, 'rotary_emb_base', 'rotary_pct')
    rope.setdefault(positions_read.PARTIAL, 0.25)
    return positions_read.read_rope(rope, most=length)

  def write(self, model, scheme, length):
    """See Family."""
    rope, most = positions_write.write_rope(
      scheme, width=model.head_dim, length=length, layouts=('half',), partial=True
    )
    return {
      'hidden_size': model.width,
      'intermediate_size': model.mlp_width,
      'num_hidden_layers': model.layers,
      'num_attention_heads': model.heads,
      'hidden_act': NAMES[model.mlp],
      'layer_norm_eps': model.norm_eps,
      'attention_bias': model.attention_bias,
      'use_parallel_residual': model.parallel,
      'max_position_embeddings': most,
      'rope_parameters': rope,
    }

  def tensors(self, model):
    """See Family."""
    listed = [tensors.table('gpt_neox.embed_in', 'embedding')]
    for i in range(model.layers):
      listed += block(f'gpt_neox.layers.{i}.', 'attention.', i, model)
    return listed + tensors.norm('gpt_neox.final_layer_norm', 'norm', bias=True)


def block(theirs: str, attention: str, i: int, model) -> list[tensors.Tensor]:
  """Block i of GPT-NeoX or BLOOM; `theirs` and `attention` are prefixes of tensor names."""
  ours, bias = f'blocks/{i}/', model.attention_bias
  heads = {'groups': model.heads, 'widths': (model.head_dim,) * 3}
  return [
    *tensors.norm(theirs + 'input_layernorm', ours + 'attention_norm', bias=True),
    *tensors.norm(theirs + 'post_attention_layernorm', ours + 'mlp_norm', bias=True),
    *tensors.fused(theirs + attention + 'query_key_value', i, bias=bias, **heads),
    *tensors.linear(theirs + attention + 'dense', ours + 'attention/out', bias=bias),
    *tensors.linear(theirs + 'mlp.dense_h_to_4h', ours + 'mlp/up', bias=True),
    *tensors.linear(theirs + 'mlp.dense_4h_to_h', ours + 'mlp/down', bias=True),
  ]
