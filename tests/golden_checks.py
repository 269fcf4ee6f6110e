"""One checker for each scheme of the golden cases, all through the public hooks of ours."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from golden_case import Case

from pe_research import positions
from pe_research.positions.base import Dims, PositionScheme


def needs(what: str):
  """Skips a case for a thing that the registry lacks."""
  pytest.skip(f'needs {what}, which is not registered')


def absent(what: str) -> Callable[[Case], None]:
  """The check of a scheme that the registry lacks altogether."""
  return lambda case: needs(what)


def build(name: str, *, width=8, heads=1, rotary=8, length=64, **config) -> PositionScheme:
  return positions.build({'name': name, **config}, Dims(width, heads, rotary, length), nnx.Rngs(0))


def run(length: int, offset: int = 0) -> jnp.ndarray:
  """int32 [1, L], consecutive positions."""
  return jnp.arange(offset, offset + length)[None]


# ---- RoPE and what stretches it

NAMES = {  # theirs -> ours
  'default': 'rope',
  'proportional': 'rope',
  'linear': 'pi',
  'dynamic': 'dynamic_ntk',
  'yarn': 'yarn',
  'longrope': 'longrope',
  'llama3': 'llama3',
}
RENAMED = {
  'original_max_position_embeddings': 'train_length',
  'magnitude_scaling_policy': 'temperature',
}
KEPT = (
  'factor',
  'beta_fast',
  'beta_slow',
  'mscale',
  'mscale_all_dim',
  'attention_factor',
  'low_freq_factor',
  'high_freq_factor',
  'short_factor',
  'long_factor',
)


def rope(params: dict[str, Any], width: int, layout: str = 'half') -> PositionScheme:
  """The scheme that `params` describe, for heads of `width` channels."""
  kind = params.get('rope_type', 'default')
  name = NAMES[kind]
  own = {RENAMED.get(k, k): params[k] for k in (*KEPT, *RENAMED) if params.get(k) is not None}
  most = params.get('max_position_embeddings')
  if kind == 'dynamic':
    own['train_length'] = most
  if kind == 'yarn':
    own['ramp'] = 'pairs' if params.get('truncate', True) else 'unrounded'
  if kind == 'longrope':
    own = {'temperature': 'su'} | own
    own |= {} if 'factor' in own else {'target_length': most}
  if kind == 'proportional' and own.get('factor', 1) != 1:
    name = 'pi'
  if params.get('interpolation_factor', 1) != 1:
    name, own = 'pi', {'factor': params['interpolation_factor']}
  if params.get('base_rescale_factor', 1) != 1:
    name, own = 'ntk', {'factor': params['base_rescale_factor']}
  if name == 'rope':
    own = {}
  return build(
    name,
    rotary=width,
    base=params['rope_theta'],
    layout=layout,
    fraction=params.get('partial_rotary_factor', params.get('rotary_dim', width) / width),
    partial='frequencies' if kind == 'proportional' else 'width',
    **own,
  )


def turned(case: Case, name: str, hook, pos: jnp.ndarray) -> jnp.ndarray:
  """The hook's result for the input, in the input's own order of axes, which the notes state."""
  swap = '(batch, seq, heads' not in case.notes
  x = jnp.asarray(case.inputs[name])
  out = hook(x.swapaxes(1, 2) if swap else x, pos, int(pos.max()) + 1)
  return out.swapaxes(1, 2) if swap else out


def attention_factor(scheme: PositionScheme, length: int) -> float:
  """What multiplies queries and keys each: theirs is on both, ours once on the logits."""
  return float(np.sqrt(scheme.logit_scale(run(1), length)))


def inv_freq(kind: str) -> Callable[[Case], None]:
  def check(case: Case):
    length = case.params.get('seq_len') or 1
    scheme = rope(case.params | {'rope_type': kind}, case.params['head_dim'])
    case.compare('inv_freq', scheme.frequencies(length))
    if 'attention_factor' in case.outputs:
      case.compare('attention_factor', attention_factor(scheme, length))

  return check


def ntk_aware(case: Case):
  given = case.params
  scheme = build('ntk', rotary=given['head_dim'], base=given['rope_theta'], factor=given['alpha'])
  case.compare('inv_freq', scheme.frequencies(1))


def rotate(layout: str) -> Callable[[Case], None]:
  def check(case: Case):
    pos = jnp.asarray(case.inputs['position_ids'], jnp.int32)
    width = case.inputs['q'].shape[-1]
    scheme = rope(case.params, width, layout)
    scale = attention_factor(scheme, int(pos.max()) + 1)
    case.compare('q_rot', scale * turned(case, 'q', scheme.query, pos))
    case.compare('k_rot', scale * turned(case, 'k', scheme.key, pos))
    if 'cos' in case.outputs:
      # The first channel of each pair as a unit vector turns into (cos, sin).
      first = jnp.where(jnp.arange(width) < width // 2, 1.0, 0.0)
      unit = jnp.broadcast_to(first, (*pos.shape, 1, width))
      cos, sin = np.split(scheme.query(unit, pos, int(pos.max()) + 1)[..., 0, :], 2, axis=-1)
      case.compare('cos', scale * np.concatenate([cos, cos], axis=-1))
      case.compare('sin', scale * np.concatenate([sin, sin], axis=-1))

  return check


def rotate_one(case: Case):
  pos = jnp.asarray(case.inputs['positions'], jnp.int32)[None]
  scheme = rope(case.params, case.inputs['x'].shape[-1], 'interleaved')
  # Theirs divides the angles, ours the frequencies.
  divided = case.params.get('interpolation_factor', 1)
  case.compare('inv_freq', divided * scheme.frequencies(int(pos.max()) + 1))
  case.compare('x_rot', turned(case, 'x', scheme.query, pos))


def mla_decoupled(case: Case):
  pos = jnp.asarray(case.inputs['position_ids'], jnp.int32)
  width = case.params['qk_rope_head_dim']
  pairs, halves = (rope(case.params, width, layout) for layout in ('interleaved', 'half'))
  scale = attention_factor(pairs, int(pos.max()) + 1)
  # V3 turns the pairs (2i, 2i + 1) as V2 does, but leaves them at i and i + R/2.
  order = np.arange(width).reshape(-1, 2).T.ravel()
  for name, hook in ('q', 'query'), ('k', 'key'):
    out = scale * turned(case, name, getattr(pairs, hook), pos)
    case.compare(f'{name}_rot_v2', out)
    case.compare(f'{name}_rot_v3', out[..., order])
    out = scale * turned(case, name, getattr(halves, hook), pos)
    case.compare(f'{name}_rot_v3_noninterleaved', out)


# ---- T5


def t5(params: dict[str, Any], table: np.ndarray) -> PositionScheme:
  """T5 with the table [buckets, H] put in."""
  both = bool(params.get('bidirectional') or not params.get('causal', True))
  buckets, heads = table.shape
  reach = params['max_distance']
  scheme = build('t5', heads=heads, buckets=buckets, max_distance=reach, bidirectional=both)
  assert buckets == params['num_buckets']
  scheme.table[...] = jnp.asarray(table, jnp.float32)
  return scheme


def t5_bucket(case: Case):
  # A table whose rows hold their own number shows the bucket.
  scheme = t5(case.params, np.arange(case.params['num_buckets'])[:, None])
  relative = case.inputs['relative_position']  # key - query
  query = -relative.min()
  bias = scheme.bias(jnp.asarray([[query]]), jnp.asarray(relative + query)[None])
  case.compare('bucket', bias[0, 0, 0])


def t5_bias(case: Case):
  scheme = t5(case.params, case.inputs['table'])
  queries = run(case.params['query_length'], case.params['query_offset'])
  case.compare('bias', scheme.bias(queries, run(case.params['key_length'])))


def t5_bias_scaled(case: Case):
  weight = case.inputs['param.relative_attention_bias.weight']
  scheme = t5(case.params, weight * case.params['scale'])
  for name, want in case.outputs.items():
    queries, keys = want.shape[-2:]
    case.compare(name, scheme.bias(run(queries, keys - queries), run(keys))[0])


# ---- ALiBi


def alibi(heads: int, max_bias: float = 8, **config) -> PositionScheme:
  return build('alibi', heads=heads, max_bias=max_bias, **config)


def alibi_slopes(case: Case):
  for name in case.outputs:
    _, _, most = name.partition('slopes_mpt_max')
    scheme = alibi(case.params['heads'], float(most or 8))
    case.compare(name, -scheme.bias(run(1, 1), run(1))[0, :, 0, 0])


def real_tokens(case: Case) -> np.ndarray:
  """int32 [B, L]: positions counted from the first real token; padding gets 0."""
  mask = case.inputs['attention_mask']
  return ((mask.cumsum(-1) - 1) * mask).astype(np.int32)


def alibi_by_key(case: Case):
  # slope * k_pos is what is left of -slope * (q_pos - k_pos) in the row of position 0; in the
  # other rows the two differ by a constant, which softmax drops.
  keys = real_tokens(case)
  bias = alibi(case.params['heads']).bias(jnp.zeros((len(keys), 1), jnp.int32), keys)
  case.compare('alibi', bias.reshape(-1, *bias.shape[2:]))


def alibi_bfloat16(case: Case):
  # Falcon rounds the slopes, the positions and their product to bfloat16.
  keys = real_tokens(case)
  slopes = -alibi(case.params['heads']).bias(run(1, 1), run(1))
  narrow = lambda x: np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float32)
  bias = narrow(narrow(slopes) * narrow(keys)[:, None, None, :])
  case.compare('alibi', bias.reshape(-1, *bias.shape[2:]))


def alibi_last_row(case: Case):
  length = case.params['length']
  scheme = alibi(case.params['heads'], case.params['alibi_bias_max'])
  case.compare('alibi', scheme.bias(run(1, length - 1), run(length))[0])


def alibi_square(case: Case, scheme: PositionScheme, queries, keys):
  # Theirs is -slope |i - j| and ours -slope (i - j): the same where the key is not ahead.
  case.compare('bias', scheme.bias(queries, keys)[0], where=keys[:, None, :] <= queries[:, :, None])


def alibi_full(case: Case):
  queries = run(case.params['query_length'], case.params['query_offset'])
  alibi_square(case, alibi(case.params['heads']), queries, run(case.params['key_length']))


def alibi_partial(case: Case):
  scheme = alibi(case.params['total_heads'], biased_heads=case.params['heads'])
  at = run(case.params['length'])
  alibi_square(case, scheme, at, at)


def alibi_positions(case: Case):
  at = jnp.asarray(case.inputs['positions'], jnp.int32)[None]
  alibi_square(case, alibi(case.params['heads']), at, at)


# ---- Learned functions of the distance


def kerple(case: Case):
  if any(name.startswith('wei_') for name in case.inputs):
    needs('a kernel that multiplies the logits')
  own, length = case.inputs, case.params['length']
  logarithm = 'variant' not in case.params
  scheme = build('kerple', heads=case.params['heads'], kernel='log' if logarithm else 'power')
  scheme.r1[...] = jnp.asarray(own['bias_p' if logarithm else 'bias_a'])
  other = own['bias_a'] if logarithm else own.get('bias_p', np.ones(case.params['heads']))
  scheme.r2[...] = jnp.asarray(other, jnp.float32)
  case.compare('out', own['scores'] + scheme.bias(run(length), run(length)))


def fire(case: Case):
  own, given = case.inputs, case.params
  scheme = build(
    'fire', heads=given['heads'], hidden=given['mlp_width'], threshold=float(own['param.init_L'])
  )
  for name, value in {
    'inner': own['param.mlp.0.weight'][:, 0],
    'inner_bias': own['param.mlp.0.bias'],
    'outer': own['param.mlp.2.weight'].T,
    'outer_bias': own['param.mlp.2.bias'],
    'rate': own['param.c'],
    'multiplier': own['param.L_multiplier'],
  }.items():
    getattr(scheme, name)[...] = jnp.asarray(value)
  for length in given['lengths']:
    case.compare(f'bias_T{length}', scheme.bias(run(length), run(length)))


def xpos(case: Case):
  given = case.params
  width, base, gamma = given['head_dim'], given['scale_base'], given['gamma']
  scheme = build(
    'xpos', rotary=width, layout='interleaved', scale_base=base, gamma=gamma,
    base=given['rope_theta'],
  )  # fmt: skip
  pos = run(given['length'], given['offset'])
  q, k = (jnp.asarray(case.inputs[name])[:, :, None] for name in 'qk')
  q, k = scheme.query(q, pos, None)[:, :, 0], scheme.key(k, pos, None)[:, :, 0]
  case.compare('scores', jnp.einsum('bqd,bkd->bqk', q, k))
  # Theirs counts the exponent from the middle of the text, which cancels in the scores.
  end = given['length'] + given['offset']
  middle = -(-end // 2) if 'ceil' in case.notes else end // 2
  zeta = (np.arange(0, width, 2) / width + gamma) / (1 + gamma)
  moved = np.repeat(zeta ** (middle / base), 2)
  case.compare('q_rot', np.asarray(q) / moved)
  case.compare('k_rot', np.asarray(k) * moved)


# ---- Absolute positions


def sinusoidal(layout: str) -> Callable[[Case], None]:
  def check(case: Case):
    given = case.params
    (scale,) = case.inputs.get('scale', [1.0])
    scheme = build(
      'sinusoidal', width=given['dim'], layout=layout, base=given['base'], scale=float(scale)
    )
    rows = range(given['num_positions']) if 'num_positions' in given else case.inputs['positions']
    pos = jnp.asarray(rows, jnp.int32)[None] + given.get('offset', 0)
    padding = given.get('padding_idx', -1)  # its row is zero, and no position
    case.compare('table', scheme.table(pos)[0], where=pos[0, :, None] != padding)

  return check


def fairseq_lookup(case: Case):
  real = case.inputs['input_ids'] != case.params['padding_idx']
  pos = case.params['padding_idx'] + real.cumsum(-1)
  scheme = build(
    'sinusoidal',
    width=case.params['dim'],
    layout='tensor2tensor',
    base=case.params.get('base', 10_000.0),
  )
  case.compare('out', scheme.table(jnp.asarray(pos, jnp.int32)), where=real[..., None])


def learned(case: Case):
  if case.params.get('l2norm_embed'):
    pytest.skip('needs learned positions of unit norm; the registered table has no norm')
  rows, width = case.inputs['weight'].shape
  scheme = build('learned', width=width, max_length=rows)
  # Theirs reads weight / sqrt(D), ours table * sqrt(D).
  scheme.table[...] = jnp.asarray(case.inputs['weight'] / width)
  tokens = case.outputs['out'].shape[0]
  x = jnp.zeros((1, tokens, width))
  case.compare('out', scheme.embed(x, run(tokens, case.params['offset']))[0])


# ---- (family, scheme) -> check; one scheme name means different arrays in different families

CHECKS: dict[tuple[str, str], Callable[[Case], None]] = {
  ('rotate', 'rope/rotate_half_split'): rotate('half'),
  ('rotate', 'rope/rotate_half_split_partial'): rotate('half'),
  ('rotate', 'rope/rotate_interleaved'): rotate('interleaved'),
  ('rotate', 'rope/rotate_interleaved_partial'): rotate_one,
  ('rotate', 'rope/mla_decoupled'): mla_decoupled,
  ('t5_bias', 't5_relative_bucket'): t5_bucket,
  ('t5_bias', 't5_relative_bias'): t5_bias,
  ('xtransformers', 't5_relative_bias'): t5_bias_scaled,
  ('alibi', 'alibi/slopes'): alibi_slopes,
  ('alibi', 'alibi/bias_bloom'): alibi_by_key,
  ('alibi', 'alibi/bias_falcon'): alibi_bfloat16,
  ('alibi', 'alibi/bias_mpt'): alibi_last_row,
  ('alibi', 'alibi/bias_full'): alibi_full,
  ('alibi', 'alibi/bias_partial_heads'): alibi_partial,
  ('alibi', 'alibi/bias_custom_positions'): alibi_positions,
  ('sinusoidal', 'sinusoidal/interleaved'): sinusoidal('paper'),
  ('sinusoidal', 'sinusoidal/concat_paper'): sinusoidal('concatenated'),
  ('sinusoidal', 'sinusoidal/concat_paper_scaled'): sinusoidal('concatenated'),
  ('sinusoidal', 'sinusoidal/concat_t2t'): sinusoidal('tensor2tensor'),
  ('sinusoidal', 'sinusoidal/concat_t2t_padding'): sinusoidal('tensor2tensor'),
  ('sinusoidal', 'sinusoidal/fairseq_lookup'): fairseq_lookup,
  ('sinusoidal', 'learned_absolute'): learned,
  **{('rope_inv_freq', f'rope/{kind}'): inv_freq(kind) for kind in NAMES},
  ('rope_inv_freq', 'rope/ntk_aware_fixed'): ntk_aware,
  ('rope_inv_freq', 'rope/longrope_dynamic'): absent('factors that grow with the length'),
  ('rope_inv_freq', 'rope/ntk_by_parts_v1'): absent('NTK-by-parts before the paper'),
  ('rotate', 'xpos'): xpos,
  ('fire_kerple', 'fire'): fire,
  ('fire_kerple', 'kerple/log'): kerple,
  ('fire_kerple', 'kerple/power'): kerple,
  ('xtransformers', 'dynamic_position_bias'): absent('dynamic_position_bias'),
  ('xtransformers', 'cope'): absent('cope'),
  ('xtransformers', 'forgetting_bias'): absent('forgetting_bias'),
  ('xtransformers', 'forgetting_bias_per_row'): absent('forgetting_bias_per_row'),
  ('xtransformers', 'relative_projection_bias'): absent('relative_projection_bias'),
  ('xtransformers', 'pope'): absent('pope'),
}
