"""Latent attention: against NumPy, its two ways of decoding, its temperature and its slice."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import latent_attention, layers
from pe_research.positions import base, rotary

H, K, R, V, C, D, L = 3, 8, 4, 6, 12, 20, 7
AT = Tokens.contiguous(L)


def made(query_latent=0, slice_=R, seed=0, bias=False):
  return latent_attention.LatentAttention(
    D, H, K, latent=C, query_latent=query_latent, rotary=slice_, value_dim=V, out_std=1.0,
    bias=bias, norm=layers.Norm('rms', 1e-6, False), dtype=jnp.float32, key=jax.random.key(seed),
  )  # fmt: skip


def dims(sliced=True):
  return base.Dims(D, H, R, 64, sliced)


def text(seed=1):
  return np.random.default_rng(seed).normal(size=(2, L, D)).astype(np.float32)


def turned(x, theta):
  """[..., L, R] by L positions, pairs (i, i + R / 2), as a product of complex numbers."""
  z = x[..., : R // 2] + 1j * x[..., R // 2 :]
  z = z * np.exp(1j * np.arange(L)[:, None] * theta)
  return np.concatenate([z.real, z.imag], axis=-1)


def reference(module, x, theta, scale=1.0, slice_scale=1.0):
  """Eqs. 9-19 of arXiv:2405.04434 for one row [L, D], float64."""
  wide = lambda x: np.asarray(x[...], np.float64)
  weight = lambda layer: wide(layer.kernel)
  linear = lambda y, layer: y @ weight(layer) + (0 if layer.bias is None else wide(layer.bias))
  norm = lambda y, layer: y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * wide(layer.scale)
  x = x.astype(np.float64)
  source = x
  if module.query_down is not None:
    source = norm(linear(x, module.query_down), module.query_norm)
  c = norm(linear(x, module.latent), module.latent_norm)
  heads = lambda y: y.reshape(L, H, -1).swapaxes(0, 1)
  q, k = heads(linear(source, module.query)), heads(linear(c, module.key))
  v = heads(linear(c, module.value))
  logits = q @ k.swapaxes(1, 2)
  width = K
  if theta is not None:
    q_slice = turned(heads(linear(source, module.position_query)), theta)
    k_slice = turned(linear(x, module.position_key), theta)
    logits = logits + slice_scale * q_slice @ k_slice.T
    width = K + R
  logits = logits * scale / np.sqrt(width)
  weights = np.where(np.tri(L, dtype=bool), np.exp(logits - logits.max(-1, keepdims=True)), 0)
  out = weights / weights.sum(-1, keepdims=True) @ v
  return linear(out.swapaxes(0, 1).reshape(L, -1), module.out)


def theta_of(scheme):
  return np.asarray(scheme.frequencies(None))


def test_latents_have_a_norm_of_their_own():
  model = tiny.config(norm_eps=0.1, **tiny.KINDS['mla'])
  attention = tiny.transformer.Decoder(
    model, tiny.position('rope'), 32, key=jax.random.key(0)
  ).blocks[0]
  assert attention.attention_norm.epsilon == 0.1
  inner = attention.attention
  assert inner.query_norm.epsilon == inner.latent_norm.epsilon == latent_attention.EPS


@pytest.mark.parametrize('query_latent, bias', [(0, False), (10, False), (10, True)])
def test_equations(query_latent, bias):
  module, scheme = made(query_latent, bias=bias), rotary.RoPE(dims(), base=100.0)
  # Scales of norms are not 1, nor biases 0.
  move = lambda x: x * jnp.linspace(0.5, 2, x.size).reshape(x.shape) + 0.1 * (not x.any())
  nnx.update(module, jax.tree.map(move, nnx.state(module)))
  got, slots = module(text(), AT, scheme, Spec())
  assert slots is None
  for row in range(2):
    tiny.close(got[row], reference(module, text()[row], theta_of(scheme)))


def test_without_a_rotation_there_is_no_slice():
  module = made(slice_=0)
  names = {'/'.join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(module))}
  assert not any('position' in name for name in names)
  got, _ = module(text(), AT, base.NoPE(dims()), Spec())
  tiny.close(got[0], reference(module, text()[0], None))


@pytest.mark.parametrize('name', ['nope', 'alibi', 't5', 'learned', 'sinusoidal'])
def test_schemes_that_leave_queries_alone_have_none(name):
  decoder = tiny.decoder(name, 'mla')
  assert decoder.blocks[0].attention.rotary == 0
  assert decoder.blocks[0].attention.slots() == ((1, 12),)
  assert tiny.decoder('rope', 'mla').blocks[0].attention.slots() == ((1, 12 + 8),)


def stretched(**given):
  position = {'name': 'yarn', 'factor': 40.0, 'train_length': 64} | given
  return positions.build(position, dims(), nnx.Rngs(0))


@pytest.mark.parametrize(
  'given, whole, slice_',
  [
    ({}, 0.1 * np.log(40) + 1, 1),
    ({'mscale': 1.0, 'mscale_all_dim': 1.0}, 0.1 * np.log(40) + 1, 1),
    ({'mscale': 0.707, 'mscale_all_dim': 0.707}, 0.0707 * np.log(40) + 1, 1),
    (
      {'mscale': 1.0, 'mscale_all_dim': 0.4},
      0.04 * np.log(40) + 1,
      (0.1 * np.log(40) + 1) / (0.04 * np.log(40) + 1),
    ),
    ({'attention_factor': 1.3}, 1.3, 1),
    ({'attention_factor': 1.0, 'slice_factor': 1.2}, 1, 1.2),
  ],
)
def test_the_temperature_is_on_the_whole_logit(given, whole, slice_):
  module, scheme = made(), stretched(**given)
  x = 3 * text()
  got, _ = module(x, AT, scheme, Spec())
  want = lambda *scales: reference(module, x[0], theta_of(scheme), *scales)
  tiny.close(got[0], want(whole**2, slice_**2))
  # What others have shipped: the slice alone, the factor once, and both at once.
  for wrong in [(1, whole**2), (whole, slice_**2), (whole**2, whole**2), (whole**4, slice_**2)]:
    if wrong != (whole**2, slice_**2):
      assert np.abs(np.asarray(got[0]) - want(*wrong)).max() > 1e-3, wrong


@pytest.mark.parametrize('name', ['mscale', 'mscale_all_dim'])
def test_one_mscale_alone_is_refused_where_each_has_its_own_use(name):
  with pytest.raises(ValueError, match='give both, or position') as error:
    stretched(**{name: 0.7})
  assert re.search(f'position.{name} (is )?0.7', str(error.value))
  stretched(**{name: 0.7}, attention_factor=1.0)


def test_the_scale_is_that_of_keys_and_not_of_latents():
  decoder = tiny.decoder('rope', 'mla')
  whole = tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  spec = {True: 'dense', False: 'dense expanded'}
  for absorbed, name in spec.items():
    filled = decoder.new_cache(tiny.BATCH, tiny.LENGTH)
    logits = []
    for i in range(tiny.LENGTH):
      out, filled = tiny.step(
        decoder, tiny.TOKENS[:, i : i + 1], tiny.at().slice(i, 1), name, filled
      )
      logits.append(out)
    assert tiny.SPECS[name].absorbed == absorbed
    tiny.close(jnp.concatenate(logits, axis=1), whole)


def test_decoding_reads_latents_and_makes_no_keys():
  """Nothing in an absorbed step has as many numbers as the keys of all heads."""
  decoder, capacity = tiny.decoder('rope', 'mla'), 64
  filled = decoder.new_cache(1, capacity)
  token, at = jnp.zeros((1, 1), jnp.int32), Tokens(jnp.zeros((1, 1), jnp.int32))
  sizes = {}
  for absorbed in (True, False):
    step = lambda f, a=absorbed: decoder.features(token, at, Spec(absorbed=a), f)
    jaxpr = jax.make_jaxpr(step)(filled)
    sizes[absorbed] = max(v.aval.size for e in jaxpr.eqns for v in e.outvars)
  keys = capacity * 4 * (8 + 8)
  assert sizes[True] < keys <= sizes[False]


@pytest.mark.parametrize('name', ['rope', 'alibi'])
def test_gradients_reach_every_matrix(name):
  decoder = tiny.decoder(name, 'mla')
  loss = lambda d: jnp.square(d(tiny.TOKENS, tiny.at(), Spec())).mean()
  grads = nnx.to_flat_state(nnx.grad(loss)(decoder))
  for path, grad in grads:
    assert float(jnp.abs(grad[...]).max()) > 0, path
