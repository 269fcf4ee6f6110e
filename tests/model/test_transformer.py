"""The decoder against NumPy float64, its sizes, and what recomputation and bfloat16 change."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.common import keys
from pe_research.model import decoder_config, layers, transformer

TARGETS = np.roll(tiny.TOKENS, -1, axis=1)


def weight(variable):
  return np.asarray(variable[...], np.float64)


def normed(x, norm):
  x = x - x.mean(-1, keepdims=True) if isinstance(norm, nnx.LayerNorm) else x
  x = x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.epsilon) * weight(norm.scale)
  return x + weight(norm.bias) if getattr(norm, 'bias', None) is not None else x


def linear(x, layer):
  y = x @ weight(layer.kernel)
  return y if layer.bias is None else y + weight(layer.bias)


ACTIVATIONS = {
  'gelu': lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
  'gelu_exact': lambda x: x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
  'relu': lambda x: np.maximum(x, 0),
  'squared_relu': lambda x: np.maximum(x, 0) ** 2,
}


def mlp(x, module):
  up = linear(x, module.up)
  if module.kind == 'swiglu':
    gate = linear(x, module.gate)
    hidden = gate / (1 + np.exp(-gate)) * up
  else:
    hidden = ACTIVATIONS[module.kind](up)
  return linear(hidden, module.down)


def attention(x, module, slopes):
  """One row [L, D]; slopes [H] of an ALiBi bias."""
  size = len(x)
  split = lambda layer, heads: linear(x, layer).reshape(size, heads, -1)
  q, k = split(module.query, module.heads), split(module.key, module.kv_heads)
  v = split(module.value, module.kv_heads)
  if module.query_norm is not None:
    q, k = normed(q, module.query_norm), normed(k, module.key_norm)
  out = np.zeros_like(q)
  for h in range(module.heads):
    g = h // (module.heads // module.kv_heads)
    distance = np.arange(size)[:, None] - np.arange(size)[None]
    logits = q[:, h] @ k[:, g].T / np.sqrt(q.shape[-1]) - slopes[h] * distance
    weights = np.where(distance >= 0, np.exp(logits), 0)
    out[:, h] = weights / weights.sum(-1, keepdims=True) @ v[:, g]
  return linear(out.reshape(size, -1), module.out)


def reference(decoder, tokens, slopes):
  """Logits of one row of tokens."""
  x = weight(decoder.embedding)[tokens]
  x = x * np.sqrt(decoder.model.width) if decoder.model.embedding_scale else x
  x = normed(x, decoder.embedding_norm) if decoder.model.embedding_norm else x
  for block in decoder.blocks:
    after = x + attention(normed(x, block.attention_norm), block.attention, slopes)
    x = after + mlp(normed(x if decoder.model.parallel else after, block.mlp_norm), block.mlp)
  table = decoder.embedding if decoder.output is None else decoder.output
  return normed(x, decoder.norm) @ weight(table).T


@pytest.mark.parametrize('mlp', layers.MLPS)
@pytest.mark.parametrize(
  'name, kind, options',
  [
    ('nope', 'gqa', {'qk_norm': True}),
    ('alibi', 'mqa', {'tied': False, 'norm_eps': 0.01}),
    ('alibi', 'gqa', {'attention_bias': True, 'norm': 'layer', 'embedding_norm': True}),
    ('nope', 'mha', {'mlp_bias': True, 'norm': 'layer', 'norm_bias': True, 'parallel': True}
                    | {'embedding_scale': False, 'qk_norm': True}),
  ],
)  # fmt: skip
def test_logits(mlp, name, kind, options):
  decoder = transformer.Decoder(
    tiny.config(mlp=mlp, head_dim=6, **options, **tiny.KINDS[kind]),
    tiny.position(name),
    tiny.TRAINED,
    key=jax.random.key(3),
  )
  # Scales of norms are not 1, nor biases 0.
  move = lambda x: x * jnp.linspace(0.5, 2, x.size).reshape(x.shape) + 0.1 * (not x.any())
  nnx.update(decoder, jax.tree.map(move, nnx.state(decoder, nnx.Param)))
  slopes = {'nope': np.zeros(4), 'alibi': [2**-2, 2**-4, 2**-6, 2**-8]}[name]
  got = tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  assert got.dtype == jnp.float32
  for row in range(tiny.BATCH):
    tiny.close(got[row], reference(decoder, tiny.TOKENS[row], slopes), 1e-4)


def test_loss():
  logits = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32) * 3
  targets = np.array([[0, 4, 2], [1, 1, 3]])
  wide = np.exp(logits.astype(np.float64))
  chance = np.take_along_axis(wide, targets[..., None], -1)[..., 0] / wide.sum(-1)
  tiny.close(transformer.loss(jnp.asarray(logits), jnp.asarray(targets)), -np.log(chance))


def test_number_of_parameters():
  # 31 tokens, width 32, 4 heads of 8 with 2 key heads, a gated MLP of 48, 2 layers, 2 tables.
  matrices = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48
  block = matrices + 2 * 32 + 2 * 8
  want = 2 * block + 32 + 2 * 31 * 32
  for name, own in (('rope', 0), ('alibi', 0), ('t5', 32 * 4), ('learned', 32 * 32)):
    decoder = tiny.decoder(name, tied=False, qk_norm=True, mlp='swiglu')
    parameters = jax.tree.leaves(nnx.state(decoder, nnx.Param))
    assert sum(p.size for p in parameters) == want + own
    assert all(p.dtype == jnp.float32 for p in parameters)
    # Nothing but parameters is an array: what a scheme computes from its sizes is no state.
    assert len(jax.tree.leaves(decoder)) == len(parameters)


def test_tied_decoders_have_no_output_matrix():
  for tied in (True, False):
    decoder = tiny.decoder('nope', tied=tied)
    assert (decoder.output is None) == tied
  assert not np.allclose(decoder.output[...], decoder.embedding[...])


def test_initial_scales():
  config = tiny.config(vocab=500, width=128, mlp_width=256, mlp='swiglu', tied=False, layers=8)
  decoder = transformer.Decoder(config, positions.defaults('nope'), 8, key=jax.random.key(0))
  std = lambda variable: float(variable[...].std())
  block = decoder.blocks[5]
  inner, mlp = block.attention, block.mlp
  for variable, want in (
    (decoder.embedding, 128**-0.5),
    (decoder.output, 128**-0.5),
    (inner.query.kernel, 128**-0.5),
    (inner.key.kernel, 128**-0.5),
    (inner.value.kernel, 128**-0.5),
    (inner.out.kernel, 32**-0.5 / 4),  # 4 heads of 8 in; 16 additions to the residual stream
    (mlp.up.kernel, 128**-0.5),
    (mlp.gate.kernel, 128**-0.5),
    (mlp.down.kernel, 256**-0.5 / 4),
  ):
    assert abs(std(variable) / want - 1) < 0.06


def test_keys_go_by_name():
  root = jax.random.key(0)
  draw = lambda name: np.asarray(jax.random.uniform(keys.key(root, name), (4,)))
  np.testing.assert_array_equal(draw('block3'), draw('block3'))
  assert not np.allclose(draw('block3'), draw('block4'))
  first = keys.rngs(root, 'a')
  one = jax.random.uniform(first.params(), (4,))
  keys.rngs(root, 'b').params()
  np.testing.assert_array_equal(one, jax.random.uniform(keys.rngs(root, 'a').params(), (4,)))


def test_a_block_is_causal():
  decoder = tiny.decoder('rope')
  x = np.random.default_rng(0).normal(size=(2, 13, 32)).astype(np.float32)
  spec = Spec()
  run = lambda x: decoder.blocks[0](x, tiny.at(), decoder.position[0], spec)[0]
  pull = jax.jit(lambda cotangent: jax.vjp(run, x)[1](cotangent)[0])
  for t in (0, 6, 12):
    grad = np.abs(pull(jnp.zeros_like(x).at[:, t].set(1.0))).max(-1)
    assert (grad[:, t + 1 :] == 0).all() and (grad[:, : t + 1] > 0).all()


def mean_loss(decoder, spec):
  """The training loss of the tiny tokens, in nats."""
  return transformer.loss(decoder(tiny.TOKENS, tiny.at(), tiny.SPECS[spec]), TARGETS).mean()


@functools.partial(jax.jit, static_argnames=('spec', 'last'))
def features(decoder, at, spec, last=None):
  return decoder.features(tiny.TOKENS, at, tiny.SPECS[spec], last=last)[0]


@pytest.mark.spread
@pytest.mark.parametrize('spec', ['dense', 'tiled'])
@pytest.mark.parametrize('kind', ['gqa', 'mla'])
@pytest.mark.parametrize('name', [name for name in tiny.NAMES if name not in tiny.EXTRA])
def test_the_last_tokens_are_the_same_where_the_last_block_computes_no_others(name, kind, spec):
  segments = np.where(np.arange(tiny.LENGTH) < 5, 1, 2)
  decoder, at = tiny.decoder(name, kind), tiny.at(segments=segments)
  tiny.close(features(decoder, at, spec, 4), features(decoder, at, spec)[:, -4:])


def test_the_last_block_computes_what_is_asked_for():
  decoder, rows = tiny.decoder('rope'), set()
  jaxpr = jax.make_jaxpr(lambda d: d.features(tiny.TOKENS, tiny.at(), Spec(), last=4))(decoder)
  for equation in tiny.equations(jaxpr):
    if equation.primitive.name == 'tanh':  # of GELU, once a block
      rows.add(equation.outvars[0].aval.shape[1])
  assert rows == {tiny.LENGTH, 4}


@pytest.mark.parametrize('name, spec', [('rope', 'dense'), ('t5', 'tiled')])
def test_recomputing_blocks_changes_nothing(name, spec):
  results = []
  for kind in decoder_config.REMAT:
    loss = functools.partial(mean_loss, spec=spec)
    results.append(jax.jit(jax.value_and_grad(loss))(tiny.decoder(name, remat=kind)))
  (plain, plain_grad), (again, again_grad) = results
  tiny.close(again, plain, 1e-6)
  leaves = lambda d: jax.tree.leaves(nnx.state(d, nnx.Param))
  for got, want in zip(leaves(again_grad), leaves(plain_grad), strict=True):
    tiny.close(got, want, 1e-6)
    assert np.abs(want).max() > 1e-6


@pytest.mark.parametrize('spec', ['dense', 'tiled'])
def test_blocks_are_recomputed(spec):
  counts = []
  for kind in decoder_config.REMAT:
    loss = functools.partial(mean_loss, spec=spec)
    jaxpr = jax.make_jaxpr(jax.grad(loss))(tiny.decoder('rope', remat=kind))
    found = [e.primitive.name for e in tiny.equations(jaxpr)]
    counts.append({n: found.count(n) for n in ('remat2', 'checkpoint', 'tanh')})
  plain, again = counts
  assert plain['remat2'] + plain['checkpoint'] == 0
  assert again['remat2'] + again['checkpoint'] == tiny.LAYERS
  # GELU's tanh stands once in a block's forward pass, and once more where it is recomputed.
  assert plain['tanh'] == tiny.LAYERS and again['tanh'] == 2 * tiny.LAYERS


@pytest.mark.spread
@pytest.mark.parametrize('name', positions.SCHEMES)
@pytest.mark.parametrize('spec', ['dense', 'tiled'])
def test_softmax_is_float32_under_bfloat16(name, spec):
  narrow = tiny.decoder(name, dtype='bfloat16')
  features, _ = jax.eval_shape(
    lambda d: d.features(tiny.TOKENS, tiny.at(), tiny.SPECS[spec]), narrow
  )
  assert features.dtype == jnp.bfloat16
  jaxpr = jax.make_jaxpr(functools.partial(mean_loss, spec=spec))(narrow)
  exps = [e for e in tiny.equations(jaxpr) if e.primitive.name in ('exp', 'exp2')]
  assert exps and all(e.invars[0].aval.dtype == jnp.float32 for e in exps)


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_bfloat16_is_close_to_float32(name):
  decoders = tiny.decoder(name), tiny.decoder(name, dtype='bfloat16')
  wide, got = (tiny.forward(d, tiny.TOKENS, tiny.at(), 'dense') for d in decoders)
  assert got.dtype == jnp.float32
  assert 1e-5 < np.abs(got - wide).max() < 0.1 * np.abs(wide).max()


@pytest.mark.parametrize(
  'field, value, words',
  [
    ('kv_heads', 3, ['model.heads (4)', 'model.kv_heads (3)']),
    ('mlp', 'tanh', ["'tanh'", 'model.mlp', 'gelu, gelu_exact, relu, squared_relu, swiglu']),
    ('norm', 'group', ["'group'", 'model.norm', 'rms, layer']),
    ('norm_eps', 0.0, ['model.norm_eps', '0.0', 'between 0 and 1']),
    ('norm_bias', True, ['model.norm_bias', 'rms', 'False']),
    ('remat', 'full', ["'full'", 'model.remat', 'none, block']),
    ('dtype', 'float16', ["'float16'", 'model.dtype', 'float32, bfloat16']),
    ('layers', 0, ['model.layers', '0', 'at least 1']),
    ('head_dim', -8, ['model.head_dim', '-8', 'at least 1']),
  ],
)
def test_a_bad_value_is_named_with_its_field(field, value, words):
  with pytest.raises(ValueError) as error:
    tiny.config(**{field: value})
  assert all(word in str(error.value) for word in words)
