"""Latent attention is as good as multi-head attention, with a fraction of its cache."""

from experiments.studies.terms import BASES, Claim, Expect, Model, Published, at_base, nll

HEADS = {'model.heads': {'cpu': 8}}
LATENT = {
  'model.projection': 'mla',
  'model.latent': {'cpu': 16, 'accelerator': 256},
  'model.rotary_dim': {'cpu': 4, 'accelerator': 32},
  'model.mlp_width': {'cpu': 191, 'accelerator': 2168},
}
GROUPED = {
  'model.projection': 'gqa',
  'model.kv_heads': {'cpu': 1, 'accelerator': 2},
  'model.mlp_width': {'cpu': 213, 'accelerator': 2472},
}


def models(v: str) -> dict[str, Model]:
  """Three projections, all with RoPE at one base."""
  ways = {'mha': ({}, 'MHA'), 'mla': (LATENT, 'MLA'), 'gqa': (GROUPED, 'GQA, cache as small')}
  rope = at_base('rope', v)
  return {
    f'{name}, {v}': Model(rope, fields=HEADS | fields, label=label, panel=v)
    for name, (fields, label) in ways.items()
  }


def tests(v: str) -> tuple[Expect, ...]:
  """Latent attention against both of the others."""
  mla = nll(f'mla, {v}')
  return (
    Expect('MLA - MHA at L', mla - nll(f'mha, {v}'), above=-0.01, below=0.01, variant=v),
    Expect('MLA - grouped queries at L', mla - nll(f'gqa, {v}'), below=0, variant=v),
  )


CLAIM = Claim(
  id='C31',
  name='mla_quality',
  title='MLA equals multi-head attention in loss, and beats grouped queries of as small a cache.',
  paper='arXiv:2405.04434, tables 8 and 9',
  published=(
    Published('16B MoE: MHA; MLA, BBH', '37.9; 39.0', 'table 9'),
    Published('the same, MMLU', '48.7; 50.0', 'table 9'),
    Published('the same, cached elements a token', '110.6K; 15.6K', 'table 9'),
    Published('7B dense: MQA; GQA of 8; MHA, MMLU', '37.9; 41.2; 45.2', 'table 8', 'transcription'),
  ),
  says='At matched parameters MLA and MHA differ by less than 0.01 nats at L, and MLA is better '
  'than grouped queries whose cache is nearly as small.',
  models={name: model for v in BASES for name, model in models(v).items()},
  tests=tuple(test for v in BASES for test in tests(v)),
  traps=(
    'With few heads the latent is most of the cache: 8 heads on a CPU, and d_c twice their width.',
    'What attention saves in parameters the MLP gets: 167,360, 167,600 and 167,168 in all on a '
    'CPU.',
    'Cache a token and layer on a CPU: MHA 128 numbers, MLA 20, grouped queries (one key head) 16; '
    'that absorbed and expanded attention are equal is a test of the code.',
  ),
  figure=(0.5, 1),
)
