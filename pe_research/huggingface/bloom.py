"""BLOOM: ALiBi, and a norm on the embeddings."""

from typing import ClassVar

from pe_research.huggingface import gpt_neox, positions_read, positions_write, tensors
from pe_research.huggingface.family import LAYERED, REQUIRED, Family

LENGTH = (
  2048  # training length of BLOOM, tokens (arXiv:2211.05100, sec. 3.2), where no field has it
)


class Bloom(Family):
  """BloomForCausalLM."""

  architecture = 'BloomForCausalLM'
  model_type = 'bloom'
  position = 'distance'
  prefix = 'transformer.'
  aliases: ClassVar = {
    'hidden_size': 'n_embed',
    'n_head': 'num_attention_heads',
    'n_layer': 'num_hidden_layers',
  }
  names: ClassVar = {
    'hidden_size': ('width', REQUIRED),
    'n_head': ('heads', REQUIRED),
    'n_layer': ('layers', REQUIRED),
    'layer_norm_epsilon': ('norm_eps', 1e-5),
  }
  length = ('seq_length', LENGTH)
  tied = True
  supported: ClassVar = {'apply_residual_connection_post_layernorm': (False,)}
  expands = True
  fixed: ClassVar = LAYERED | {'mlp': ('gelu',), 'embedding_norm': (True,)}

  def read(self, fields):
    """See Family."""
    if fields.flag('slow_but_exact', False) and fields.size('pretraining_tp', 1) > 1:
      fields.problem(
        'slow_but_exact is True, with which transformers leaves out biases; set it to false.'
      )
    return super().read(fields)

  def read_position(self, fields, length):
    """See Family."""
    del fields, length
    return positions_read.read_alibi()

  def write_position(self, model, scheme, length):
    """See Family."""
    positions_write.check_alibi(scheme, model.heads)
    return {'apply_residual_connection_post_layernorm': False, 'seq_length': length}

  def tensors(self, model):
    """See Family."""
    listed = [
      tensors.table('transformer.word_embeddings', 'embedding'),
      *tensors.norm('transformer.word_embeddings_layernorm', 'embedding_norm', bias=True),
    ]
    for i in range(model.layers):
      listed += gpt_neox.block(f'transformer.h.{i}.', 'self_attention.', i, model)
    return listed + tensors.norm('transformer.ln_f', 'norm', bias=True)
