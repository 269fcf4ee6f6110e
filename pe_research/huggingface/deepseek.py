"""DeepSeek V2 and V3: latent attention with a rotary slice, in dense layers."""

from typing import ClassVar

from pe_research.huggingface import llama, positions_read, positions_write, tensors
from pe_research.huggingface.family import PLAIN, Described, Family, Fields


class DeepseekV3(Family):
  """DeepseekV3ForCausalLM without experts."""

  architecture = 'DeepseekV3ForCausalLM'
  model_type = 'deepseek_v3'
  position = 'rotation'
  prefix = 'model.'
  square = False
  ignored = r'rotary_emb\.inv_freq$'
  fixed: ClassVar = PLAIN | {
    'projection': ('mla',),
    'mlp': ('swiglu',),
    'mlp_bias': (False,),
    'norm': ('rms',),
  }
  layouts = ('interleaved', 'half')  # of rotary pairs
  first_dense = 3  # default of first_k_dense_replace, layers before the experts begin
  default_length = 4096  # of max_position_embeddings

  def layout(self, fields: Fields) -> str:
    """Layout of rotary pairs."""
    return 'interleaved' if fields.values.get('rope_interleave', True) else 'half'  # null: half

  def version_fields(self, model, scheme) -> dict:
    """Fields of config.json that only this version has."""
    del model
    return {'rope_interleave': scheme.layout == 'interleaved'}

  def mlp_bias(self, fields: Fields) -> bool:
    """Whether the MLP has biases."""
    del fields
    return False

  def read(self, fields) -> Described:
    """See Family; refuses experts."""
    fields.only('hidden_act', 'silu', 'swish')
    layers = fields.size('num_hidden_layers')
    dense = fields.get('first_k_dense_replace', self.first_dense)
    if dense < layers:
      fields.problem(
        f'of {layers} layers those from {dense} on are mixtures of experts '
        '(first_k_dense_replace); this decoder has dense layers only.'
      )
    heads, slice_ = fields.size('num_attention_heads'), fields.size('qk_rope_head_dim', 64)
    if fields.size('num_key_value_heads', heads) != heads:
      fields.problem('num_key_value_heads differs from num_attention_heads; it must not.')
    model = self.model_fields(
      width=fields.size('hidden_size'),
      layers=layers,
      heads=heads,
      head_dim=fields.size('qk_nope_head_dim', 128),
      latent=fields.size('kv_lora_rank', 512),
      query_latent=fields.get('q_lora_rank', 0),
      rotary_dim=slice_,
      value_dim=fields.size('v_head_dim', 128),
      attention_bias=fields.flag('attention_bias', False),
      mlp_width=fields.size('intermediate_size'),
      mlp_bias=self.mlp_bias(fields),
      norm_eps=fields.get('rms_norm_eps', 1e-6),
      tied=fields.flag('tie_word_embeddings', False),
    )
    return Described(
      model, fields.size('vocab_size'), fields.size('max_position_embeddings', self.default_length)
    )

  def read_position(self, fields, length):
    """See Family."""
    rope = positions_read.rope_fields(fields.values)
    layout = self.layout(fields)
    return positions_read.read_rope(rope, most=length, layout=layout, partial=False, sliced=True)

  def write(self, model, scheme, length):
    """See Family."""
    rope, most = positions_write.write_rope(
      scheme,
      width=model.rotary_dim,
      length=length,
      layouts=self.layouts,
      partial=False,
      sliced=True,
    )
    return self.version_fields(model, scheme) | {
      'hidden_size': model.width,
      'intermediate_size': model.mlp_width,
      'num_hidden_layers': model.layers,
      'first_k_dense_replace': model.layers,
      'num_nextn_predict_layers': 0,
      'num_attention_heads': model.heads,
      'num_key_value_heads': model.heads,
      'q_lora_rank': model.query_latent or None,
      'kv_lora_rank': model.latent,
      'qk_nope_head_dim': model.head_dim,
      'qk_rope_head_dim': model.rotary_dim,
      'v_head_dim': model.value_dim,
      'hidden_act': 'silu',
      'rms_norm_eps': model.norm_eps,
      'attention_bias': model.attention_bias,
      'max_position_embeddings': most,
      'rope_parameters': rope,
    }

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
  default_length = 2048
  layouts = ('interleaved',)

  def layout(self, fields: Fields) -> str:
    """Layout of rotary pairs."""
    del fields
    return 'interleaved'

  def version_fields(self, model, scheme) -> dict:
    """Fields of config.json that only this version has."""
    del scheme
    return {'mlp_bias': model.mlp_bias}

  def mlp_bias(self, fields: Fields) -> bool:
    """Whether the MLP has biases."""
    return fields.flag('mlp_bias', False)
