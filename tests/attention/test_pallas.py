"""The Pallas kernel, interpreted, against dense attention: values and all gradients."""

import contextlib
import dataclasses
import functools
import types

import decoder_fixtures as fixtures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_attend import CASES, HEADS, VALUES, WIDTH, inputs

from pe_research import positions
from pe_research.attention import attend
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.positions.base import Dims, DistanceBias

SCHEMES = {
  'rope': {},
  'alibi': {'biased_heads': 3},
  't5': {'buckets': 8, 'max_distance': 20, 'init_std': 1.0},
}


def build(name, **arguments):
  dims = Dims(WIDTH * HEADS, HEADS, WIDTH, 16)
  return positions.build({'name': name} | arguments, dims, nnx.Rngs(0))


@functools.partial(jax.jit, static_argnames=('graph', 'spec'))
def pull_back(cotangent, graph, parameters, given, offset, spec):
  """Output, and gradients with respect to the scheme's parameters, q, k and v."""
  q, k, v, *at = given

  def run(parameters, *qkv):
    scheme = nnx.merge(graph, parameters)
    return attend.attend(*qkv, *at, scheme=scheme, spec=spec, offset=offset)

  out, pull = jax.vjp(run, parameters, q, k, v)
  return out, pull(cotangent)


@pytest.mark.spread(2)
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('name', SCHEMES)
def test_kernel_equals_dense_attention(name, case):
  rows, columns, offset, groups, tile, window, documents = case
  given = inputs(rows, columns, offset, groups, documents)
  graph, parameters = nnx.split(build(name, **SCHEMES[name]))
  cotangent = np.random.default_rng(1).normal(size=(2, rows, HEADS, VALUES)).astype(np.float32)
  found = [
    pull_back(cotangent, graph, parameters, given, offset, Spec(how, window, tile))
    for how in ('dense', 'interpreted')
  ]
  assert len(jax.tree.leaves(found[0])) == (5 if name == 't5' else 4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-5), *found)


def device(backend: str):
  """What tells the compiler of GPUs which one it is for, where JAX asks (from 0.12 on)."""
  fields = {field.name for field in dataclasses.fields(jax.sharding.AbstractDevice)}
  if backend != 'gpu' or 'platform' not in fields:
    return contextlib.nullcontext()
  h100 = jax.sharding.AbstractDevice('NVIDIA H100 80GB HBM3', num_cores=132, platform='gpu')
  return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=h100))


@pytest.mark.parametrize('backend', ['tpu', 'gpu'])
@pytest.mark.parametrize('name', SCHEMES)
def test_kernel_is_lowered_for_accelerators(name, backend, monkeypatch):
  """What can be shown without one: the front of its compiler takes the passes both ways."""
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  scheme, at = build(name, **SCHEMES[name]), Tokens.contiguous(256)

  def run(q, k, v):
    spec = Spec('pallas', window=200, tile=128)
    return attend.attend(q, k, v, at, at, scheme=scheme, spec=spec).astype(jnp.float32).sum()

  heads = lambda n: jax.ShapeDtypeStruct((2, 256, n, 128), jnp.bfloat16)
  platform, target = {
    'tpu': ('tpu', 'tpu_custom_call'),
    'gpu': ('cuda', '__gpu$xla.gpu.triton'),
  }[backend]
  export = jax.export.export(
    jax.jit(jax.grad(run, argnums=(0, 1, 2))),
    platforms=[platform],
    disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(target)],
  )
  with device(backend):
    lowered = export(heads(HEADS), heads(2), heads(2))
  assert lowered.mlir_module().count(f'custom_call @{target}') == 3


def test_a_cpu_never_interprets_the_kernel_unasked():
  q, k, v, queries, keys = inputs(7, 7, 0, 4, False)
  scheme = build('rope')
  with pytest.raises(ValueError, match=r"'pallas' runs on TPUs and GPUs, and .*'interpreted'"):
    attend.attend(q, k, v, queries, keys, scheme=scheme, spec=Spec('pallas'))


def test_several_devices_without_a_mesh_are_refused(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  monkeypatch.setattr(jax, 'device_count', lambda: 4)
  q, k, v, queries, keys = inputs(7, 7, 0, 4, False)
  with pytest.raises(ValueError, match='needs a mesh to be split over the 4 devices here'):
    attend.attend(q, k, v, queries, keys, scheme=build('rope'), spec=Spec('pallas'))


def test_slopes_and_jumps_get_their_gradients():
  """A bias of both kinds, as no registered scheme has, against its formula in dense attention."""
  q, k, v, queries, keys = inputs(16, 16, 0, 2, False)
  starts = 1, 3, 7
  draw = np.random.default_rng(3)
  slopes, jumps = draw.normal(size=HEADS) / 8, draw.normal(size=(HEADS, len(starts)))

  def bias(slopes, jumps, q_pos, k_pos):
    distance = q_pos[:, None, :, None] - k_pos[:, None, None, :]
    reached = distance[..., None] >= jnp.asarray(starts)[None, None, None, None]
    steps = jnp.einsum('hs,bxqks->bhqk', jumps, reached.astype(jnp.float32))
    return slopes[None, :, None, None] * distance.astype(jnp.float32) + steps

  @functools.partial(jax.jit, static_argnums=2)
  def total(slopes, jumps, how):
    out = attend.attend(
      q, k, v, queries, keys,
      scheme=types.SimpleNamespace(
        bias=functools.partial(bias, slopes, jumps),
        distance_bias=lambda: DistanceBias(slopes, jumps, starts),
        sees=None,
      ),
      spec=Spec(how, tile=4),
    )  # fmt: skip
    return (out**2).sum()

  given = slopes.astype(np.float32), jumps.astype(np.float32)
  dense, found = (jax.grad(total, argnums=(0, 1))(*given, how) for how in ('dense', 'interpreted'))
  assert all(np.abs(np.asarray(g)).min() > 1e-3 for g in dense)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4), dense, found)


@pytest.mark.parametrize('name', positions.SCHEMES)
def test_bias_as_data_is_the_bias(name):
  """For every scheme, up to distances past its last bucket: a kernel computes nothing else."""
  dims = Dims(fixtures.WIDTH, fixtures.HEADS, fixtures.HEAD_DIM, fixtures.TRAINED)
  scheme = positions.build(fixtures.position(name), dims, nnx.Rngs(0))
  distance = np.arange(400)
  bias = scheme.bias(distance[None, :], np.zeros((1, 1), np.int32))
  if bias is None:
    assert scheme.distance_bias() is None
    return
  if type(scheme).distance_bias is positions.PositionScheme.distance_bias:
    with pytest.raises(ValueError, match='has a bias that no kernel computes'):
      scheme.distance_bias()
    return
  data = scheme.distance_bias()
  reached = distance[None] >= np.asarray(data.starts, int)[:, None]
  want = np.asarray(data.slopes)[:, None] * distance + np.asarray(data.jumps) @ reached
  np.testing.assert_allclose(np.asarray(bias)[0, :, :, 0], want, rtol=1e-5, atol=1e-6)


def test_a_bias_of_another_form_is_refused_by_name():
  with pytest.raises(ValueError, match=r"'test: owned' has a bias that no kernel computes"):
    nnx.eval_shape(lambda: fixtures.Owned(Dims(8, 2, 4, 16), rngs=nnx.Rngs(0))).distance_bias()
