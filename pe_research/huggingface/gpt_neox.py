"""GPT-NeoX and Pythia: partial rotary embedding, attention and MLP in parallel."""

from typing import ClassVar

from pe_research.huggingface import positions_read, positions_write, tensors
from pe_research.huggingface.family import ACTIVATION_NAMES, LAYERED, REQUIRED, Family

OLDER = 'rotary_emb_base', 'rotary_pct'  # fields before transformers 5


class GPTNeoX(Family):
  """GPTNeoXForCausalLM."""

  architecture = 'GPTNeoXForCausalLM'
  model_type = 'gpt_neox'
  position = 'rotation'
  prefix = 'gpt_neox.'
  ignored = r'attention\.(bias|masked_bias|rotary_emb\.inv_freq)$'
  position_fields = (*positions_read.ROPE, *OLDER)
  renamed: ClassVar = {'lm_head.weight': 'embed_out.weight'}  # before transformers 5
  names: ClassVar = {
    'hidden_size': ('width', REQUIRED),
    'num_attention_heads': ('heads', REQUIRED),
    'num_hidden_layers': ('layers', REQUIRED),
    'intermediate_size': ('mlp_width', REQUIRED),
    'layer_norm_eps': ('norm_eps', 1e-5),
    'attention_bias': ('attention_bias', True),
    'use_parallel_residual': ('parallel', True),
  }
  length = ('max_position_embeddings', 2048)
  activation = ('hidden_act', 'gelu')
  fixed: ClassVar = LAYERED | {
    'attention_bias': (True, False),
    'mlp': tuple(ACTIVATION_NAMES),
    'parallel': (True, False),
  }

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values, *OLDER)
    rope.setdefault(positions_read.PARTIAL, 0.25)
    return positions_read.read_rope(rope, most=length)

  def write_position(self, model, scheme, length):
    """See Family."""
    return positions_write.write_rope(
      scheme,
      width=model.head_dim,
      length=length,
      layouts=('half',),
      partial=True,
      older=OLDER,
    )

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
