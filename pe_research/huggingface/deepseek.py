"""DeepSeek V2 and V3: latent attention with a rotary slice, in dense layers."""

from typing import ClassVar

from pe_research.huggingface import llama, positions_read, positions_write, tensors
from pe_research.huggingface.family import PLAIN, REQUIRED, Family, Fields


class DeepseekV3(Family):
  """DeepseekV3ForCausalLM without experts."""

  architecture = 'DeepseekV3ForCausalLM'
  model_type = 'deepseek_v3'
  position = 'rotation'
  prefix = 'model.'
  square = False
  ignored = r'rotary_emb\.inv_freq$'
  names: ClassVar = {
    'hidden_size': ('width', REQUIRED),
    'num_attention_heads': ('heads', REQUIRED),
    'num_hidden_layers': ('layers', REQUIRED),
    'qk_nope_head_dim': ('head_dim', 128),
    'qk_rope_head_dim': ('rotary_dim', 64),
    'v_head_dim': ('value_dim', 128),
    'kv_lora_rank': ('latent', 512),
    'intermediate_size': ('mlp_width', REQUIRED),
    'rms_norm_eps': ('norm_eps', 1e-6),
    'attention_bias': ('attention_bias', False),
  }
  length = ('max_position_embeddings', 4096)
  supported: ClassVar = {'hidden_act': ('silu', 'swish')}
  fixed: ClassVar = PLAIN | {
    'projection': ('mla',),
    'mlp': ('swiglu',),
    'mlp_bias': (False,),
    'norm': ('rms',),
  }
  layouts = ('interleaved', 'half')  # of rotary pairs
  # The last is of experts, of which there are none.
  position_fields = (*positions_read.ROPE, 'rope_interleave', 'routed_scaling_factor')
  first_dense = 3  # default of first_k_dense_replace, layers before the experts begin

  def layout(self, fields: Fields) -> str:
    """Layout of rotary pairs."""
    return 'interleaved' if fields.values.get('rope_interleave', True) else 'half'  # null: half

  def version_fields(self, scheme) -> dict:
    """Fields of config.json that only this version has."""
    return {'rope_interleave': scheme.layout == 'interleaved'}

  def read(self, fields):
    """See Family; refuses experts."""
    described = super().read(fields)
    layers, heads = described.model['layers'], described.model['heads']
    dense = fields.number('first_k_dense_replace', self.first_dense)
    if dense < layers:
      fields.problem(
        f'of {layers} layers those from {dense:g} on are mixtures of experts '
        '(first_k_dense_replace); this decoder has dense layers only.'
      )
    if fields.size('num_key_value_heads', heads) != heads:
      fields.problem('num_key_value_heads differs from num_attention_heads; it must not.')
    rank = fields.get('q_lora_rank', 0)  # null or 0: queries are not compressed
    described.model['query_latent'] = fields.size('q_lora_rank') if rank else 0
    return described

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values)
    layout = self.layout(fields)
    return positions_read.read_rope(rope, most=length, layout=layout, partial=False, sliced=True)

  def write_position(self, model, scheme, length):
    """See Family."""
    fields = positions_write.write_rope(
      scheme,
      width=model.rotary_dim,
      length=length,
      layouts=self.layouts,
      partial=False,
      sliced=True,
    )
    return (
      fields
      | self.version_fields(scheme)
      | {
        'first_k_dense_replace': model.layers,
        'num_nextn_predict_layers': 0,
        'num_key_value_heads': model.heads,
        'q_lora_rank': model.query_latent or None,
        'hidden_act': 'silu',
      }
    )

  def tensors(self, model):
    """See Family."""
    listed = [tensors.table('model.embed_tokens', 'embedding')]
    widths, bias = (model.head_dim, model.rotary_dim), model.attention_bias
    for i in range(model.layers):
      theirs, ours = f'model.layers.{i}.self_attn.', f'blocks/{i}/attention/'
      queries = [ours + 'query', ours + 'position_query']
      heads = {'groups': model.heads, 'widths': widths}
      listed += llama.norms(i)
      if model.query_latent:
        listed += tensors.linear(theirs + 'q_a_proj', ours + 'query_down', bias=bias)
        listed += tensors.norm(theirs + 'q_a_layernorm', ours + 'query_norm')
        listed += tensors.linear(theirs + 'q_b_proj', *queries, **heads)
      else:
        listed += tensors.linear(theirs + 'q_proj', *queries, **heads)
      listed += tensors.linear(
        theirs + 'kv_a_proj_with_mqa',
        ours + 'latent',
        ours + 'position_key',
        widths=(model.latent, model.rotary_dim),
        bias=bias,
      )
      listed += tensors.norm(theirs + 'kv_a_layernorm', ours + 'latent_norm')
      listed += tensors.linear(
        theirs + 'kv_b_proj',
        ours + 'key',
        ours + 'value',
        groups=model.heads,
        widths=(model.head_dim, model.value_dim),
      )
      listed += tensors.linear(theirs + 'o_proj', ours + 'out', bias=bias)
      listed += llama.mlp(i, model.mlp_bias)
    return listed + tensors.norm('model.norm', 'norm')


class DeepseekV2(DeepseekV3):
  """DeepseekV2ForCausalLM without experts."""

  architecture = 'DeepseekV2ForCausalLM'
  model_type = 'deepseek_v2'
  fixed: ClassVar = {k: v for k, v in DeepseekV3.fixed.items() if k != 'mlp_bias'}
  first_dense = 0
  length = ('max_position_embeddings', 2048)
  names: ClassVar = DeepseekV3.names | {'mlp_bias': ('mlp_bias', False)}
  layouts = ('interleaved',)

  def layout(self, fields: Fields) -> str:
    """Layout of rotary pairs."""
    del fields
    return 'interleaved'

  def version_fields(self, scheme) -> dict:
    """Fields of config.json that only this version has."""
    del scheme
    return {}
