"""GPT-2: learned positions, matrices stored as [inputs, outputs]."""

from typing import ClassVar

from pe_research.huggingface import positions_read, tensors
from pe_research.huggingface.family import ACTIVATION_NAMES, DERIVED, LAYERED, Family


class GPT2(Family):
  """GPT2LMHeadModel."""

  architecture = 'GPT2LMHeadModel'
  model_type = 'gpt2'
  position = 'table'
  prefix = 'transformer.'
  ignored = r'attn\.(bias|masked_bias)$'
  aliases: ClassVar = {
    'n_embd': 'hidden_size',
    'n_head': 'num_attention_heads',
    'n_layer': 'num_hidden_layers',
    'n_positions': 'max_position_embeddings',
  }
  names: ClassVar = {
    'n_embd': ('width', 768),
    'n_head': ('heads', 12),
    'n_layer': ('layers', 12),
    'n_inner': ('mlp_width', DERIVED),
    'layer_norm_epsilon': ('norm_eps', 1e-5),
  }
  length = ('n_positions', 1024)
  tied = True
  activation = ('activation_function', 'gelu_new')
  supported: ClassVar = {
    'scale_attn_weights': (True,),
    'scale_attn_by_inverse_layer_idx': (False,),
    'add_cross_attention': (False,),
  }
  fixed: ClassVar = LAYERED | {'mlp': tuple(ACTIVATION_NAMES)}

  def read_position(self, fields, length):
    """See Family."""
    del fields
    return positions_read.read_learned(length)

  def write_position(self, model, scheme, length):
    """See Family."""
    del model, length
    return {'n_positions': scheme.max_length}

  def tensors(self, model):
    """See Family."""
    listed = [
      tensors.table('transformer.wte', 'embedding'),
      tensors.table('transformer.wpe', 'position/0/table'),
    ]
    columns = {'bias': True, 'transposed': False}
    for i in range(model.layers):
      theirs, ours = f'transformer.h.{i}.', f'blocks/{i}/'
      listed += [
        *tensors.norm(theirs + 'ln_1', ours + 'attention_norm', bias=True),
        *tensors.norm(theirs + 'ln_2', ours + 'mlp_norm', bias=True),
        *tensors.fused(theirs + 'attn.c_attn', i, widths=(model.width,) * 3, **columns),
        *tensors.linear(theirs + 'attn.c_proj', ours + 'attention/out', **columns),
        *tensors.linear(theirs + 'mlp.c_fc', ours + 'mlp/up', **columns),
        *tensors.linear(theirs + 'mlp.c_proj', ours + 'mlp/down', **columns),
      ]
    return listed + tensors.norm('transformer.ln_f', 'norm', bias=True)
