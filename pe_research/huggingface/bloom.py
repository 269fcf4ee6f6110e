"""BLOOM: ALiBi, and a norm on the embeddings."""

from typing import ClassVar

from pe_research.huggingface import gpt_neox, tensors
from pe_research.huggingface.family import Described, Family
from pe_research.positions import huggingface_read, huggingface_write
from pe_research.positions.huggingface_write import NotExportable

LENGTH = 2048  # tokens that BLOOM was trained at (arXiv:2211.05100, sec. 3.2); no field says it


class Bloom(Family):
  """BloomForCausalLM."""

  architecture = 'BloomForCausalLM'
  model_type = 'bloom'
  position = 'alibi'
  prefix = 'transformer.'
  aliases: ClassVar = {
    'hidden_size': 'n_embed',
    'n_head': 'num_attention_heads',
    'n_layer': 'num_hidden_layers',
  }
  fixed: ClassVar = {
    'projection': ('mha',),
    'attention_bias': (True,),
    'mlp': ('gelu',),
    'mlp_bias': (True,),
    'norm': ('layer',),
    'norm_bias': (True,),
    'parallel': (False,),
    'embedding_norm': (True,),
    'qk_norm': (False,),
  }

  def read(self, fields) -> Described:
    """See Family."""
    fields.only('apply_residual_connection_post_layernorm', False)
    if fields.flag('slow_but_exact', False) and fields.size('pretraining_tp', 1) > 1:
      raise ValueError(
        f'{fields.where}: slow_but_exact is True, with which transformers leaves out biases; set '
        'it to false.'
      )
    width = fields.size('hidden_size')
    heads = fields.size('n_head')
    model = self.usual(
      width=width,
      layers=fields.size('n_layer'),
      heads=heads,
      kv_heads=heads,
      head_dim=width // heads,
      mlp_width=4 * width,
      norm_eps=fields.get('layer_norm_epsilon', 1e-5),
      tied=fields.flag('tie_word_embeddings', True),
    )
    length = fields.size('seq_length', LENGTH)
    return Described(model, fields.size('vocab_size'), huggingface_read.read_alibi(), length)

  def write(self, model, scheme, length):
    """See Family."""
    most = huggingface_write.alibi_bias(scheme, model.heads)
    if most != 8:
      raise NotExportable(f'position.max_bias is {most:g}, and there 8')
    return {
      'hidden_size': model.width,
      'n_layer': model.layers,
      'n_head': model.heads,
      'layer_norm_epsilon': model.norm_eps,
      'apply_residual_connection_post_layernorm': False,
      'seq_length': length,
    }

  def obstacles(self, model):
    """See Family; the MLP is four times as wide as the model."""
    return super().obstacles(model) + wide(model)

  def tensors(self, model):
    """See Family."""
    found = [
      tensors.table('transformer.word_embeddings', 'embedding'),
      *tensors.norm('transformer.word_embeddings_layernorm', 'embedding_norm', bias=True),
    ]
    for i in range(model.layers):
      theirs, ours = f'transformer.h.{i}.', f'blocks/{i}/'
      found += [
        *tensors.norm(theirs + 'input_layernorm', ours + 'attention_norm', bias=True),
        *tensors.norm(theirs + 'post_attention_layernorm', ours + 'mlp_norm', bias=True),
        *gpt_neox.fused(theirs + 'self_attention.query_key_value', i, model, True),
        *tensors.linear(theirs + 'self_attention.dense', ours + 'attention/out', bias=True),
        *tensors.linear(theirs + 'mlp.dense_h_to_4h', ours + 'mlp/up', bias=True),
        *tensors.linear(theirs + 'mlp.dense_4h_to_h', ours + 'mlp/down', bias=True),
      ]
    return found + tensors.norm('transformer.ln_f', 'norm', bias=True)


def wide(model) -> list[str]:
  """The obstacle of a class whose MLP has a width of its own."""
  if model.mlp_width == 4 * model.width:
    return []
  return [f'model.mlp_width is {model.mlp_width}, and there {4 * model.width}, 4 times the width']
