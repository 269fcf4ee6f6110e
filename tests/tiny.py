"""A model that compiles in a blink, two schemes that only the tests know, and ways to look inside.

The two schemes stand for what the interface has to carry beyond the registered ones: keys that
must be encoded anew as the context grows, and parameters of a layer's own with a logit scale that
follows the position.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research import attend, model, positions
from pe_research.positions import base, rotary

VOCAB, WIDTH, LAYERS, HEADS, HEAD_DIM, TRAINED = 31, 32, 2, 4, 8, 32
BATCH, LENGTH = 2, 13
KV_HEADS = {'mha': 4, 'gqa': 2, 'mqa': 1}
WINDOW = 4
SPECS = {
  'dense': attend.Spec(),
  'tiled': attend.Spec('tiled', tile=5),
  'dense window': attend.Spec(window=WINDOW),
  'tiled window': attend.Spec('tiled', window=WINDOW, tile=3),
}
# How the heads are grouped and how attention is computed meet in test_attend; here, one of each.
CASES = [('mha', 'dense'), ('gqa', 'dense'), ('mqa', 'dense'), ('gqa', 'tiled')]
# No token occurs twice, so a row of the embedding table stands for one place in the input.
TOKENS = np.random.default_rng(0).permutation(VOCAB)[: BATCH * LENGTH].reshape(BATCH, LENGTH)


class Stretched(rotary.RoPE):
  """Rotary frequencies that fall once the length passes `trained`, for old keys too."""

  label = 'test: stretched'
  paper = 'arXiv:0000.00000'
  key_depends_on_length = True

  def __init__(
    self, dims: base.Dims, *, base: float = 10_000.0, trained: int = 4, rngs: nnx.Rngs | None = None
  ):
    """Chooses where the stretching starts.

    Args:
      dims: sizes of the model.
      base: as in RoPE.
      trained: tokens up to which this is RoPE.
      rngs: unused.
    """
    super().__init__(dims, base=base, rngs=rngs)
    self.trained = trained

  def frequencies(self, length):
    xp = jnp if isinstance(length, jax.Array) else np
    stretch = xp.maximum(length / self.trained, 1.0)
    return (self.base * stretch) ** (-xp.arange(0, self.rotated, 2) / self.rotated)


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


EXTRA = {'stretched': Stretched, 'owned': Owned}
NAMES = (*positions.SCHEMES, *EXTRA)


def config(**changes) -> model.DecoderConfig:
  """The tiny decoder's sizes, GQA unless changed."""
  sizes = dict(
    vocab=VOCAB,
    width=WIDTH,
    layers=LAYERS,
    heads=HEADS,
    kv_heads=2,
    head_dim=HEAD_DIM,
    mlp='gelu',
    mlp_width=48,
    tied=True,
    qk_norm=False,
    remat='none',
    dtype='float32',
  )
  return model.DecoderConfig(**sizes | changes)


@functools.cache
def decoder(name: str, kind: str = 'gqa', seed: int = 0, **changes) -> model.Decoder:
  """A tiny decoder whose positional parameters are moved far from any gentle initial value."""
  changes = {'kv_heads': KV_HEADS[kind]} | changes
  made = model.Decoder(
    config(**changes), positions.defaults(name), TRAINED, key=jax.random.key(seed)
  )
  draw = np.random.default_rng(seed)
  noise = lambda x: x + jnp.asarray(0.3 * draw.normal(size=x.shape), x.dtype)
  nnx.update(made.position, jax.tree.map(noise, nnx.state(made.position, nnx.Param)))
  return made


def at(pos=None, segments=None) -> attend.Tokens:
  """Positions and documents as [BATCH, LENGTH] arrays whatever is given: one compiled program."""
  wide = lambda x: jnp.asarray(np.broadcast_to(np.asarray(x, np.int32), (BATCH, LENGTH)))
  pos = np.arange(LENGTH) if pos is None else pos
  return attend.Tokens(wide(pos), wide(1 if segments is None else segments))


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
