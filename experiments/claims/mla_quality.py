"""Latent attention is as good as multi-head attention, with a fraction of its cache."""

from experiments.claims.terms import Claim, Expect, Model, Published, nll

EIGHT = {'model.heads': 8}
LATENT = EIGHT | {'model.projection': 'mla', 'model.latent': 16, 'model.rotary_dim': 4}
GROUPED = EIGHT | {'model.projection': 'gqa', 'model.kv_heads': 1}

CLAIM = Claim(
  id='C31',
  name='mla_quality',
  title='MLA equals multi-head attention in loss, and beats grouped queries at an equal cache.',
  paper='arXiv:2405.04434, tables 8 and 9',
  published=(
    Published('16B MoE: MHA; MLA, BBH', '37.9; 39.0', 'table 9'),
    Published('the same, MMLU', '48.7; 50.0', 'table 9'),
    Published('the same, cached elements a token', '110.6K; 15.6K', 'table 9'),
    Published('7B dense: MQA; GQA of 8; MHA, MMLU', '37.9; 41.2; 45.2', 'table 8', 'transcription'),
  ),
  says='At matched parameters MLA and MHA differ by less than 0.01 nats at L, and MLA is better '
  'than attention with one key head, whose cache is nearly as small.',
  models={
    'mha': Model('rope', fields=EIGHT, label='MHA'),
    'mla': Model('rope', fields=LATENT, label='MLA'),
    'mqa': Model('rope', fields=GROUPED, label='MQA'),
  },
  tests=(
    Expect('MLA - MHA at L', nll('mla') - nll('mha'), above=-0.01, below=0.01),
    Expect('MLA - one key head at L', nll('mla') - nll('mqa'), below=0),
  ),
  traps=(
    'With few heads the latent is most of the cache: 8 heads, and d_c twice their width.',
    'Cache a token and layer: MHA 128, MLA 20, one key head 16 numbers; the exact equality of '
    'absorbed and expanded attention is a test of the code.',
  ),
  figure=(0.5, 1),
  fewest_seeds=5,
  scales=('cpu',),
)
