"""A model that compiles in a blink, a scheme that only the tests know, and ways to look inside.

That scheme stands for what the interface has to carry beyond the registered ones: parameters of a
layer's own, with a logit scale that follows the position.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import transformer
from pe_research.positions import base

VOCAB, WIDTH, LAYERS, HEADS, HEAD_DIM, TRAINED = 31, 32, 2, 4, 8, 32
BATCH, LENGTH = 2, 13
LATENT = {'latent': 12, 'query_latent': 10, 'rotary_dim': 8, 'value_dim': 6}
KINDS = {
  'mha': {'projection': 'mha', 'kv_heads': 4},
  'gqa': {'projection': 'gqa', 'kv_heads': 2},
  'mqa': {'projection': 'mqa', 'kv_heads': 1},
  'mla': {'projection': 'mla', 'kv_heads': 4} | LATENT,
  'mla, whole queries': {'projection': 'mla', 'kv_heads': 4} | LATENT | {'query_latent': 0},
}
WINDOW = 4
SPECS = {
  'dense': Spec(),
  'tiled': Spec('tiled', tile=5),
  'dense window': Spec(window=WINDOW),
  'tiled window': Spec('tiled', window=WINDOW, tile=3),
  'dense expanded': Spec(absorbed=False),
}
# How the heads are grouped and how attention is computed meet in test_attend; here, one of each.
CASES = [
  *itertools.product(('mha', 'gqa', 'mqa', 'mla', 'mla, whole queries'), ['dense']),
  ('gqa', 'tiled'),
  ('mla', 'tiled'),
  ('mla', 'dense expanded'),
]
# No token occurs twice, so a row of the embedding table stands for one place in the input.
TOKENS = np.random.default_rng(0).permutation(VOCAB)[: BATCH * LENGTH].reshape(BATCH, LENGTH)


class Owned(base.PositionScheme):
  """A learned slope a head in every layer, and logits that sharpen with the query's position."""

  label = 'test: owned'
  paper = 'arXiv:0000.00001'
  relative = False
  per_layer = True

  def __init__(self, dims: base.Dims, *, init_std: float = 0.3, rngs: nnx.Rngs | None = None):
    """Draws the slopes.

    Args:
      dims: sizes of the model.
      init_std: standard deviation of the slopes.
      rngs: source of the initial values.
    """
    self.slope = nnx.Param(nnx.initializers.normal(init_std)(rngs.params(), (dims.heads,)))

  def bias(self, q_pos, k_pos):
    distance = jnp.abs(q_pos[:, None, :, None] - k_pos[:, None, None, :])
    return self.slope[...][None, :, None, None] * jnp.log1p(distance.astype(jnp.float32))

  def logit_scale(self, q_pos, length):
    return 1 + 0.3 * jnp.log1p(q_pos.astype(jnp.float32))


EXTRA = {'owned': Owned}
STRETCH = {'factor': 16.0, 'train_length': 5}  # in the tiny texts, short and long both occur
# Where a scheme has no defaults, or none that show it at these sizes.
ARGUMENTS = {
  'owned': {'init_std': 0.3},
  'fire': {'c': 1.0, 'threshold': 4.0},
  'rnope': {'period': 2, 'window': 4},  # the first layer turns, the second sees all
  'p_rope': {'fraction': 0.5},
  'log_n': {'train_length': 5},
  **dict.fromkeys(['pi', 'ntk', 'ntk_by_parts', 'llama3', 'pose', 'rand_pos', 'drope'], STRETCH),
  'yarn': STRETCH | {'beta_fast': 4.0},
  'dynamic_ntk': {'factor': 1.5, 'train_length': 5},
  'dynamic_yarn': {'train_length': 5, 'beta_fast': 4.0},
  'longrope': STRETCH | {'temperature': 'su'},
  'longrope, first tokens': STRETCH | {'name': 'longrope', 'start_tokens': 3},
}
NAMES = (*positions.SCHEMES, *EXTRA, 'longrope, first tokens')


def position(name: str, rotary: int = HEAD_DIM) -> dict:
  """The config of a scheme as the tests build it; `name` may be that of a variant."""
  given = {'name': name} | ARGUMENTS.get(name, {})
  if given['name'] == 'longrope':
    grow = lambda last: [float(x) for x in np.geomspace(1, last, rotary // 2).round(3)]
    given |= {'long_factor': grow(8), 'short_factor': grow(1.5)}
  return (positions.defaults(given['name']) if given['name'] not in EXTRA else {}) | given


def config(**changes) -> transformer.DecoderConfig:
  """The tiny decoder's sizes, GQA unless changed."""
  sizes = dict(
    vocab=VOCAB,
    width=WIDTH,
    layers=LAYERS,
    heads=HEADS,
    projection='gqa',
    kv_heads=2,
    head_dim=HEAD_DIM,
    latent=None,
    query_latent=None,
    rotary_dim=None,
    value_dim=None,
    attention_bias=False,
    mlp='gelu',
    mlp_width=48,
    mlp_bias=False,
    norm='rms',
    norm_eps=1e-6,
    norm_bias=False,
    parallel=False,
    tied=True,
    embedding_scale=True,
    embedding_norm=False,
    qk_norm=False,
    remat='none',
    dtype='float32',
  )
  return transformer.DecoderConfig(**sizes | changes)


def slow_but(first, values):
  """The values as parameters of a test, all but the first ones in the second tier."""
  return [pytest.param(v, marks=[] if v in first else pytest.mark.slow) for v in values]


def scheme(name: str) -> base.PositionScheme:
  """The scheme alone, for the tiny decoder."""
  dims, given = base.Dims(WIDTH, HEADS, HEAD_DIM, TRAINED), position(name)
  if given['name'] in positions.SCHEMES:
    return positions.build(given, dims, nnx.Rngs(0))
  return EXTRA[given.pop('name')](dims, **given, rngs=nnx.Rngs(0))


@functools.cache
def decoder(name: str, kind: str = 'gqa', seed: int = 0, **changes) -> transformer.Decoder:
  """A tiny decoder whose positional parameters are moved far from any gentle initial value."""
  changes = KINDS[kind] | changes
  made = transformer.Decoder(config(**changes), position(name), TRAINED, key=jax.random.key(seed))
  draw = np.random.default_rng(seed)
  noise = lambda x: x + jnp.asarray(0.3 * draw.normal(size=x.shape), x.dtype)
  nnx.update(made.position, jax.tree.map(noise, nnx.state(made.position, nnx.Param)))
  return made


def at(pos=None, segments=None) -> Tokens:
  """Positions and documents as [BATCH, LENGTH] arrays whatever is given: one compiled program."""
  wide = lambda x: jnp.asarray(np.broadcast_to(np.asarray(x, np.int32), (BATCH, LENGTH)))
  pos = np.arange(LENGTH) if pos is None else pos
  return Tokens(wide(pos), wide(1 if segments is None else segments))


@functools.partial(jax.jit, static_argnames='spec')
def forward(decoder, tokens, at, spec):
  """Logits of a whole sequence."""
  return decoder(tokens, at, SPECS[spec])


@functools.partial(jax.jit, static_argnames='spec')
def step(decoder, tokens, at, spec, filled):
  """Logits of tokens appended to a cache, and the cache."""
  features, filled = decoder.features(tokens, at, SPECS[spec], filled)
  return decoder.logits(features), filled


def equations(jaxpr):
  """Every equation of a jaxpr, those of loops, branches and calls inside it included."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, 'eqns')):
      if hasattr(value, 'eqns'):
        yield from equations(value)


def close(got, want, tolerance=1e-5):
  """Asserts agreement to an absolute and relative tolerance; shapes must agree too."""
  got, want = np.asarray(got), np.asarray(want)
  assert got.shape == want.shape
  np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
