"""GPT-2: learned positions, matrices stored as [inputs, outputs]."""

from typing import ClassVar

from pe_research.huggingface import positions_read, tensors
from pe_research.huggingface.family import LAYERED, Described, Family
from pe_research.huggingface.gpt_neox import ACTIVATIONS, NAMES


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
  fixed: ClassVar = LAYERED | {'mlp': tuple(NAMES)}

  def read(self, fields) -> Described:
    """See Family."""
    fields.only('scale_attn_weights', True)
    fields.only('scale_attn_by_inverse_layer_idx', False)
    fields.only('add_cross_attention', False)
    width, heads = fields.size('n_embd', 768), fields.size('n_head', 12)
    others = [name for name in ACTIVATIONS if name != 'gelu_new']
    model = self.model_fields(
      width=width,
      layers=fields.size('n_layer', 12),
      heads=heads,
      mlp=ACTIVATIONS[fields.only('activation_function', 'gelu_new', *others)],
      mlp_width=fields.size('n_inner', 4 * width),
      norm_eps=fields.get('layer_norm_epsilon', 1e-5),
      tied=fields.flag('tie_word_embeddings', True),
    )
    return Described(model, fields.size('vocab_size'), fields.size('n_positions', 1024))

  def read_position(self, fields, length):
    """See Family."""
    del fields
    return positions_read.read_learned(length)

  def write(self, model, scheme, length):
    """See Family."""
    del length
    return {
      'n_embd': model.width,
      'n_inner': model.mlp_width,
      'n_layer': model.layers,
      'n_head': model.heads,
      'n_positions': scheme.max_length,
      'activation_function': NAMES[model.mlp],
      'layer_norm_epsilon': model.norm_eps,
    }

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
