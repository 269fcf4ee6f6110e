"""Laws that every positional scheme obeys inside the decoder, whichever way it attends."""

import functools
import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from hypothesis import strategies as st

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import functional, transformer

pytestmark = pytest.mark.usefixtures('extra_schemes')
each_scheme = pytest.mark.parametrize('name', tiny.NAMES)
each_kind = pytest.mark.parametrize('kind', tiny.KINDS)
each_case = pytest.mark.parametrize('kind, spec', tiny.CASES)
each_spec = pytest.mark.parametrize('spec', ['dense', 'tiled'])
RELATIVE = [n for n in tiny.NAMES if tiny.scheme(n).relative]
ABSOLUTE = [n for n in tiny.NAMES if n not in RELATIVE]


@functools.partial(jax.jit, static_argnames='spec')
def pull_back(decoder, tokens, at, cotangent, spec):
  """Gradient of cotangent . features with respect to every parameter."""
  return jax.vjp(lambda d: d.features(tokens, at, tiny.SPECS[spec])[0], decoder)[1](cotangent)[0]


@pytest.mark.spread
@each_scheme
@each_case
def test_later_tokens_change_nothing(name, kind, spec):
  decoder = tiny.decoder(name, kind)
  whole = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  for t in (0, 4, 5, 11):
    other = tiny.TOKENS.copy()
    other[:, t + 1 :] = (other[:, t + 1 :] + 7) % tiny.VOCAB
    changed = tiny.forward(decoder, other, tiny.at(), spec)
    np.testing.assert_array_equal(changed[:, : t + 1], whole[:, : t + 1])
    assert not np.allclose(changed[:, t + 1], whole[:, t + 1])


@pytest.mark.kinds
@pytest.mark.spread
@each_scheme
@each_spec
def test_gradient_reaches_no_later_token(name, spec):
  decoder = tiny.decoder(name)
  for t in (0, 4, 5, 12):
    cotangent = np.zeros((tiny.BATCH, tiny.LENGTH, tiny.WIDTH), np.float32)
    cotangent[:, t] = np.random.default_rng(t).normal(size=(tiny.BATCH, tiny.WIDTH))
    grad = pull_back(decoder, tiny.TOKENS, tiny.at(), cotangent, spec).embedding[...]
    by_place = np.abs(grad[tiny.TOKENS]).max(-1)  # [B, L]
    assert (by_place[:, t + 1 :] == 0).all()
    assert (by_place[:, : t + 1] > 0).all()


@pytest.mark.kinds
@each_scheme
def test_tiles_give_the_gradients_of_dense(name):
  decoder = tiny.decoder(name)
  shape = tiny.BATCH, tiny.LENGTH, tiny.WIDTH
  cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)
  dense, tiled = (
    pull_back(decoder, tiny.TOKENS, tiny.at(), cotangent, spec) for spec in ('dense', 'tiled')
  )
  jax.tree.map(functools.partial(tiny.close, tolerance=2e-4), tiled, dense)
  for path, grad in nnx.to_flat_state(nnx.state(dense.position, nnx.Param)):
    # Softmax drops a number that all logits of a head share, so it learns nothing.
    assert np.abs(grad[...]).max() > 1e-3 or path[-1] == 'outer_bias', path


@pytest.mark.kinds
@each_scheme
def test_tiles_give_the_logits_of_dense(name):
  decoder = tiny.decoder(name)
  dense, tiled = (
    tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec) for spec in ('dense', 'tiled')
  )
  tiny.close(tiled, dense)


@pytest.mark.spread
@pytest.mark.parametrize('name', RELATIVE)
@each_case
def test_relative_schemes_do_not_see_a_shift(name, kind, spec):
  decoder = tiny.decoder(name, kind)
  here = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  shifted = tiny.forward(decoder, tiny.TOKENS, tiny.at(np.arange(tiny.LENGTH) + 1000), spec)
  tiny.close(shifted, here)


@pytest.mark.spread
@pytest.mark.parametrize('name', RELATIVE)
@each_spec
@hypothesis.given(data=st.data())
def test_relative_schemes_do_not_see_any_shift(name, spec, data):
  decoder = tiny.decoder(name)
  reach = decoder.position[0].max_length or 2**24
  shift = data.draw(st.integers(0, reach - 1 - tiny.LENGTH))
  here = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  shifted = tiny.forward(decoder, tiny.TOKENS, tiny.at(np.arange(tiny.LENGTH) + shift), spec)
  tiny.close(shifted, here, 1e-4)


@pytest.mark.spread
@pytest.mark.parametrize('name', ABSOLUTE)
@each_kind
def test_absolute_schemes_see_a_shift_or_refuse_it(name, kind):
  decoder = tiny.decoder(name, kind)
  at = tiny.at(np.arange(tiny.LENGTH) + 1000)
  if (decoder.position[0].max_length or 1013) < 1013:
    with pytest.raises(ValueError, match='1013'):
      decoder(tiny.TOKENS, at, Spec())
    return
  here = tiny.forward(decoder, tiny.TOKENS, tiny.at(), 'dense')
  shifted = tiny.forward(decoder, tiny.TOKENS, at, 'dense')
  assert np.abs(shifted - here).max(-1)[:, 1:].min() > 1e-3


@pytest.mark.spread
@pytest.mark.parametrize('name', [n for n in tiny.NAMES if n not in ('nope', 'drope')])
@each_spec
def test_distances_matter(name, spec):
  decoder = tiny.decoder(name)
  here = tiny.forward(decoder, tiny.TOKENS, tiny.at(), spec)
  stretched = tiny.forward(decoder, tiny.TOKENS, tiny.at(2 * np.arange(tiny.LENGTH)), spec)
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
  for scheme in tiny.decoder(name).position:
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
    assert whole.dtype == jnp.float32 and whole.shape == (2, tiny.HEADS, 7, 7)
    tiny.close(np.block(tiles), whole, 1e-6)


def documents(cuts):
  """(start, end) of each document, and positions and document numbers of the row."""
  edges = [0, *sorted(cuts), tiny.LENGTH]
  spans = list(itertools.pairwise(edges))
  pos = np.concatenate([np.arange(end - start) for start, end in spans])
  return spans, pos, np.repeat(np.arange(len(spans)) + 1, np.diff(edges))


def first(size):
  """A document of `size` tokens, and after it one that fills the row."""
  pos = np.arange(tiny.LENGTH)
  return tiny.at(np.where(pos < size, pos, pos - size), 1 + (pos >= size))


@pytest.mark.spread
@each_scheme
@each_case
@hypothesis.given(cuts=st.tuples(*[st.sets(st.integers(1, tiny.LENGTH - 1), max_size=4)] * 2))
@hypothesis.settings(max_examples=5)
def test_packed_documents_are_the_documents_alone(name, kind, spec, cuts):
  decoder = tiny.decoder(name, kind)
  spans, pos, segments = zip(*map(documents, cuts), strict=True)
  packed = tiny.forward(decoder, tiny.TOKENS, tiny.at(pos, segments), spec)
  for row in range(tiny.BATCH):
    for start, end in spans[row]:
      # The document first and another that cannot reach it: alone, but in the same shape.
      rolled = np.roll(tiny.TOKENS, -start, axis=1)
      alone = tiny.forward(decoder, rolled, first(end - start), spec)
      tiny.close(packed[row, start:end], alone[row, : end - start])


@pytest.mark.spread
@each_scheme
@each_case
@hypothesis.given(pads=st.tuples(*[st.integers(0, tiny.LENGTH - 1)] * 2))
@hypothesis.settings(max_examples=5)
def test_left_padding_changes_nothing(name, kind, spec, pads):
  decoder = tiny.decoder(name, kind)
  ahead = np.arange(tiny.LENGTH) - np.array(pads)[:, None]
  rolled = np.stack([np.roll(t, pad) for t, pad in zip(tiny.TOKENS, pads, strict=True)])
  padded = tiny.forward(decoder, rolled, tiny.at(np.maximum(ahead, 0), ahead >= 0), spec)
  for row, pad in enumerate(pads):
    alone = tiny.forward(decoder, tiny.TOKENS, first(tiny.LENGTH - pad), spec)
    tiny.close(padded[row, pad:], alone[row, : tiny.LENGTH - pad])


@each_scheme
def test_a_packed_document_is_the_unpadded_call(name):
  decoder = tiny.decoder(name)
  spans, pos, segments = documents({6})
  packed = tiny.forward(decoder, tiny.TOKENS, tiny.at(pos, segments), 'dense')
  start, end = spans[1]
  tokens = tiny.TOKENS[:, start:end]
  alone = tiny.forward(decoder, tokens, Tokens.contiguous(end - start), 'dense')
  tiny.close(packed[:, start:end], alone)


def initial(name, kind, seed=0):
  made = transformer.Decoder(
    tiny.config(**tiny.KINDS[kind], tied=False, qk_norm='mla' not in kind, mlp='swiglu'),
    tiny.position(name),
    tiny.TRAINED,
    key=jax.random.key(seed),
  )
  flat = nnx.to_flat_state(nnx.state(made, nnx.Param))
  return {'/'.join(map(str, path)): np.asarray(value[...]) for path, value in flat}


@pytest.mark.spread
@each_scheme
@each_kind
def test_other_parameters_start_with_the_same_bits(name, kind):
  mine, bare = initial(name, kind), initial('nope', kind)
  others = {path for path in mine if not functional.of_position(path)}
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
  decoder = tiny.decoder('owned')
  assert len(decoder.position) == tiny.LAYERS
  whole = pull_back(decoder, tiny.TOKENS, tiny.at(), jnp.ones((2, 13, 32)), 'dense')
  grads = [np.asarray(p.slope[...]) for p in whole.position]
  assert all(np.abs(g).min() > 1e-4 for g in grads) and not np.allclose(*grads, rtol=0.1)
  assert len(tiny.decoder('t5').position) == 1
