"""Laws that every positional scheme obeys inside the decoder, whichever way it attends."""

import functools
import itertools

import decoder_fixtures as fixtures
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import strategies as st

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import functional, transformer

pytestmark = pytest.mark.usefixtures('extra_schemes')
each_scheme = pytest.mark.parametrize('name', fixtures.NAMES)
each_kind = pytest.mark.parametrize('kind', fixtures.KINDS)
each_case = pytest.mark.parametrize('kind, spec', fixtures.CASES)
each_spec = pytest.mark.parametrize('spec', ['dense', 'tiled'])
RELATIVE = [n for n in fixtures.NAMES if fixtures.scheme(n).relative]
ABSOLUTE = [n for n in fixtures.NAMES if n not in RELATIVE]


@functools.partial(jax.jit, static_argnames='spec')
def pull_back(decoder, tokens, at, cotangent, spec):
  """Gradient of cotangent . features with respect to every parameter."""
  return jax.vjp(lambda d: d.features(tokens, at, fixtures.SPECS[spec])[0], decoder)[1](cotangent)[
    0
  ]


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@each_case
def test_later_tokens_change_nothing(name, kind, spec):
  decoder = fixtures.decoder(name, kind)
  whole = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  for t in (0, 4, 5, 11):
    other = fixtures.TOKENS.copy()
    other[:, t + 1 :] = (other[:, t + 1 :] + 7) % fixtures.VOCAB
    changed = fixtures.forward(decoder, other, fixtures.at(), spec)
    np.testing.assert_array_equal(changed[:, : t + 1], whole[:, : t + 1])
    assert not np.allclose(changed[:, t + 1], whole[:, t + 1])


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@each_spec
def test_gradient_reaches_no_later_token(name, spec):
  decoder = fixtures.decoder(name)
  for t in (0, 4, 5, 12):
    cotangent = np.zeros((fixtures.BATCH, fixtures.LENGTH, fixtures.WIDTH), np.float32)
    cotangent[:, t] = np.random.default_rng(t).normal(size=(fixtures.BATCH, fixtures.WIDTH))
    grad = pull_back(decoder, fixtures.TOKENS, fixtures.at(), cotangent, spec).embedding[...]
    by_place = np.abs(grad[fixtures.TOKENS]).max(-1)  # [B, L]
    assert (by_place[:, t + 1 :] == 0).all()
    assert (by_place[:, : t + 1] > 0).all()


@pytest.mark.kinds
@each_scheme
def test_tiles_give_the_gradients_of_dense(name):
  decoder = fixtures.decoder(name)
  shape = fixtures.BATCH, fixtures.LENGTH, fixtures.WIDTH
  cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  dense, tiled = (
    pull_back(decoder, fixtures.TOKENS, fixtures.at(), cotangent, spec)
    for spec in ('dense', 'tiled')
  )
  jax.tree.map(functools.partial(fixtures.close, tolerance=2e-4), tiled, dense)
  for path, grad in nnx.to_flat_state(nnx.state(dense.position, nnx.Param)):
    # Softmax drops a number that all logits of a head share, so it learns nothing.
    assert np.abs(grad[...]).max() > 1e-3 or path[-1] == 'outer_bias', path


@pytest.mark.kinds
@each_scheme
def test_tiles_give_the_logits_of_dense(name):
  decoder = fixtures.decoder(name)
  dense, tiled = (
    fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec) for spec in ('dense', 'tiled')
  )
  fixtures.close(tiled, dense)


@pytest.mark.spread
@pytest.mark.parametrize('name', RELATIVE)
@each_case
def test_relative_schemes_do_not_see_a_shift(name, kind, spec):
  decoder = fixtures.decoder(name, kind)
  here = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  shifted = fixtures.forward(
    decoder, fixtures.TOKENS, fixtures.at(np.arange(fixtures.LENGTH) + 1000), spec
  )
  fixtures.close(shifted, here)


@pytest.mark.spread
@pytest.mark.parametrize('name', RELATIVE)
@each_spec
@hypothesis.given(data=st.data())
def test_relative_schemes_do_not_see_any_shift(name, spec, data):
  decoder = fixtures.decoder(name)
  reach = decoder.position[0].max_length or 2**24
  shift = data.draw(st.integers(0, reach - 1 - fixtures.LENGTH))
  here = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  shifted = fixtures.forward(
    decoder, fixtures.TOKENS, fixtures.at(np.arange(fixtures.LENGTH) + shift), spec
  )
  fixtures.close(shifted, here, 1e-4)


@pytest.mark.spread
@pytest.mark.parametrize('name', ABSOLUTE)
@each_kind
def test_absolute_schemes_see_a_shift_or_refuse_it(name, kind):
  decoder = fixtures.decoder(name, kind)
  at = fixtures.at(np.arange(fixtures.LENGTH) + 1000)
  if (decoder.position[0].max_length or 1013) < 1013:
    with pytest.raises(ValueError, match='1013'):
      decoder(fixtures.TOKENS, at, Spec())
    return
  here = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), 'dense')
  shifted = fixtures.forward(decoder, fixtures.TOKENS, at, 'dense')
  assert np.abs(shifted - here).max(-1)[:, 1:].min() > 1e-3


@pytest.mark.spread
@pytest.mark.parametrize('name', [n for n in fixtures.NAMES if n not in ('nope', 'drope')])
@each_spec
def test_distances_matter(name, spec):
  decoder = fixtures.decoder(name)
  here = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(), spec)
  stretched = fixtures.forward(
    decoder, fixtures.TOKENS, fixtures.at(2 * np.arange(fixtures.LENGTH)), spec
  )
  assert np.abs(stretched - here).max(-1)[:, 1:].min() > 1e-3


@jax.jit
def bias_of(scheme, q_pos, k_pos):
  return scheme.bias(q_pos, k_pos)


@each_scheme
@pytest.mark.parametrize('tile', [(3, 4), (1, 7)])
@hypothesis.given(data=st.data())
def test_bias_tiles_assemble_to_the_whole(name, tile, data):
  row = st.lists(st.integers(0, 3000), min_size=7, max_size=7)
  q_pos, k_pos = (np.array([data.draw(row) for _ in range(2)], np.int32) for _ in range(2))
  for scheme in fixtures.decoder(name).position:
    whole = bias_of(scheme, q_pos, k_pos)
    tiles = [
      [
        bias_of(scheme, q_pos[:, i : i + tile[0]], k_pos[:, j : j + tile[1]])
        for j in range(0, 7, tile[1])
      ]
      for i in range(0, 7, tile[0])
    ]
    if whole is None:
      assert all(part is None for row in tiles for part in row)
      continue
    assert whole.dtype == jnp.float32 and whole.shape == (2, fixtures.HEADS, 7, 7)
    fixtures.close(np.block(tiles), whole, 1e-6)


def documents(cuts):
  """(start, end) of each document, and positions and document numbers of the row."""
  edges = [0, *sorted(cuts), fixtures.LENGTH]
  spans = list(itertools.pairwise(edges))
  pos = np.concatenate([np.arange(end - start) for start, end in spans])
  return spans, pos, np.repeat(np.arange(len(spans)) + 1, np.diff(edges))


def first(size):
  """A document of `size` tokens, and after it one that fills the row."""
  pos = np.arange(fixtures.LENGTH)
  return fixtures.at(np.where(pos < size, pos, pos - size), 1 + (pos >= size))


@pytest.mark.spread
@each_scheme
@each_case
@hypothesis.given(cuts=st.tuples(*[st.sets(st.integers(1, fixtures.LENGTH - 1), max_size=4)] * 2))
@hypothesis.settings(max_examples=5)
def test_packed_documents_are_the_documents_alone(name, kind, spec, cuts):
  decoder = fixtures.decoder(name, kind)
  spans, pos, segments = zip(*map(documents, cuts), strict=True)
  packed = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(pos, segments), spec)
  for row in range(fixtures.BATCH):
    for start, end in spans[row]:
      # The document first and another that cannot reach it: alone, but in the same shape.
      rolled = np.roll(fixtures.TOKENS, -start, axis=1)
      alone = fixtures.forward(decoder, rolled, first(end - start), spec)
      fixtures.close(packed[row, start:end], alone[row, : end - start])


@pytest.mark.spread
@each_scheme
@each_case
@hypothesis.given(pads=st.tuples(*[st.integers(0, fixtures.LENGTH - 1)] * 2))
@hypothesis.settings(max_examples=5)
def test_left_padding_changes_nothing(name, kind, spec, pads):
  decoder = fixtures.decoder(name, kind)
  ahead = np.arange(fixtures.LENGTH) - np.array(pads)[:, None]
  rolled = np.stack([np.roll(t, pad) for t, pad in zip(fixtures.TOKENS, pads, strict=True)])
  padded = fixtures.forward(decoder, rolled, fixtures.at(np.maximum(ahead, 0), ahead >= 0), spec)
  for row, pad in enumerate(pads):
    alone = fixtures.forward(decoder, fixtures.TOKENS, first(fixtures.LENGTH - pad), spec)
    fixtures.close(padded[row, pad:], alone[row, : fixtures.LENGTH - pad])


@pytest.mark.kinds
@each_scheme
def test_a_packed_document_is_the_unpadded_call(name):
  decoder = fixtures.decoder(name)
  spans, pos, segments = documents({6})
  packed = fixtures.forward(decoder, fixtures.TOKENS, fixtures.at(pos, segments), 'dense')
  start, end = spans[1]
  tokens = fixtures.TOKENS[:, start:end]
  alone = fixtures.forward(decoder, tokens, Tokens.contiguous(end - start), 'dense')
  fixtures.close(packed[:, start:end], alone)


def initial(name, kind, seed=0):
  made = transformer.Decoder(
    fixtures.config(**fixtures.KINDS[kind], tied=False, qk_norm='mla' not in kind, mlp='swiglu'),
    fixtures.position(name),
    fixtures.TRAINED,
    key=jax.random.key(seed),
  )
  flat = nnx.to_flat_state(nnx.state(made, nnx.Param))
  return {'/'.join(map(str, path)): np.asarray(value[...]) for path, value in flat}


@pytest.mark.spread
@each_scheme
@each_kind
def test_other_parameters_start_with_the_same_bits(name, kind):
  mine, bare = initial(name, kind), initial('nope', kind)
  others = {path for path in mine if not functional.is_position_parameter(path)}
  assert others == set(bare)
  for path in others:
    np.testing.assert_array_equal(mine[path], bare[path], err_msg=path)


@each_scheme
def test_seeds_give_other_parameters(name):
  first, second = initial(name, 'gqa', 0), initial(name, 'gqa', 1)
  for path, value in first.items():
    if value.std():  # scales of norms start at 1
      assert not np.allclose(value, second[path]), path


def test_parameters_of_one_decoder_differ():
  drawn = [v.ravel()[:32] for v in initial('owned', 'mha').values() if v.std()]
  for i, one in enumerate(drawn):
    for other in drawn[i + 1 :]:
      size = min(one.size, other.size)
      assert not np.allclose(one[:size], other[:size])


def test_a_layer_owns_its_parameters():
  decoder = fixtures.decoder('owned')
  assert len(decoder.position) == fixtures.LAYERS
  whole = pull_back(decoder, fixtures.TOKENS, fixtures.at(), jnp.ones((2, 13, 32)), 'dense')
  grads = [np.asarray(p.slope[...]) for p in whole.position]
  assert all(np.abs(g).min() > 1e-4 for g in grads) and not np.allclose(*grads, rtol=0.1)
  assert len(fixtures.decoder('t5').position) == 1
