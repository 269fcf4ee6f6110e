"""What a trained run is seen to do is what it does: weights of attention, losses, parameters."""

import functools
import itertools
import json
import shutil

import decoder_fixtures as fixtures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_fixtures
from flax import nnx

from pe_research import positions
from pe_research.attention import attend
from pe_research.attention.spec import IMPLEMENTATIONS, Spec
from pe_research.attention.tokens import Tokens
from pe_research.data import texts
from pe_research.evaluation import measures
from pe_research.model import attention, transformer
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions.base import Dims
from pe_research.runs import lineage, run_folder
from pe_research.settings import configs
from pe_research.show.explorer import trained
from pe_research.storage import files
from pe_research.training import loop, train_state

LENGTH, TRAINED, PAIRS, WINDOW = 13, 16, fixtures.HEAD_DIM // 2, 4
SPEC = Spec()
SEGMENTS = np.array([[1] * 5 + [2] * 8, [1] * 13], np.int32)
DIMS = Dims(fixtures.WIDTH, fixtures.HEADS, fixtures.HEAD_DIM, TRAINED)
# The text that the tiny runs are evaluated on by position.
BY_POSITION = {
  'reach': 64, 'tokens': 256, 'protocols': ['by_position'], 'windows': 1, 'targets': 1, 'stride': 1,
}  # fmt: skip
every_scheme = pytest.mark.parametrize('name', positions.SCHEMES)


def moved(module, seed=0):
  """The module with its parameters far from any gentle initial value."""
  draw = np.random.default_rng(seed)
  noise = lambda x: x + jnp.asarray(0.3 * draw.normal(size=x.shape), x.dtype)
  nnx.update(module, jax.tree.map(noise, nnx.state(module, nnx.Param)))
  return module


def visible(length, offset=0, windows=(), segments=None):
  """bool [B or 1, 1, Lq, Lk], one pair at a time; the queries are the last ones."""
  rows = np.ones((1, length), int) if segments is None else segments
  seen = np.zeros((len(rows), 1, length - offset, length), bool)
  for b, _, i, j in np.ndindex(*seen.shape):
    ahead = i + offset - j
    near = all(ahead < window for window in windows if window)
    seen[b, 0, i, j] = ahead >= 0 and near and rows[b, i + offset] == rows[b, j]
  return seen


def check_rows(weights, seen):
  """Rows sum to 1, and lie where a query sees the key."""
  weights = np.asarray(weights)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
  assert not weights[~np.broadcast_to(seen, weights.shape)].any()
  assert (weights >= 0).all()


@pytest.mark.kinds
@every_scheme
@pytest.mark.parametrize('groups', [4, 2], ids=['mha', 'gqa'])
def test_the_weights_times_the_values_are_attention(name, groups):
  scheme = moved(positions.build(positions.example(name, PAIRS), DIMS, nnx.Rngs(0)))
  draw = np.random.default_rng(1)
  normal = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
  q = normal(2, LENGTH, fixtures.HEADS, fixtures.HEAD_DIM)
  k, v = normal(2, LENGTH, groups, fixtures.HEAD_DIM), normal(2, LENGTH, groups, 5)
  pos = np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1))
  at, length = Tokens(pos), LENGTH if scheme.depends_on_length else None
  q = attention.scaled(scheme.query(q, pos, length), scheme, Spec(), at, length, 8)
  k = scheme.key(k, pos, length)
  for offset, window, segments in ((0, None, None), (0, WINDOW, SEGMENTS), (5, None, SEGMENTS)):
    keys = Tokens(pos, segments)
    queries, asking = keys.slice(offset, LENGTH - offset), q[:, offset:]
    how = {'scheme': scheme, 'spec': Spec(window=window), 'offset': offset}
    weights = attend.weights(asking, k, queries, keys, **how)
    check_rows(weights, visible(LENGTH, offset, (window, scheme.sees), segments))
    of_heads = np.repeat(v, fixtures.HEADS // groups, axis=2)
    out = attend.attend(asking, k, v, queries, keys, **how)
    fixtures.close(np.einsum('bhqk,bkhv->bqhv', weights, of_heads), out)


@pytest.mark.kinds
@every_scheme
def test_what_is_watched_in_latent_attention_is_what_it_computes(name, monkeypatch):
  given, maps, outs = positions.example(name, PAIRS), [], []
  config = fixtures.config(**fixtures.KINDS['mla'])
  decoder = transformer.Decoder(config, given, TRAINED, key=jax.random.key(0))
  moved(decoder.position)
  plain = attend.attend

  def spy(q, k, v, *at, **how):
    out = plain(q, k, v, *at, **how)
    outs.append((v, out))
    return out

  monkeypatch.setattr(attend, 'attend', spy)
  at = Tokens.contiguous(LENGTH)
  watched = decoder(fixtures.TOKENS, at, Spec(watch=maps.append))
  assert len(maps) == len(outs) == fixtures.LAYERS
  for i, (weights, (v, out)) in enumerate(zip(maps, outs, strict=True)):
    sees = decoder.position[i % len(decoder.position)].sees
    check_rows(weights, visible(LENGTH, windows=(sees,)))
    fixtures.close(np.einsum('bhqk,bkhv->bqhv', weights, v), out)
  np.testing.assert_array_equal(watched, decoder(fixtures.TOKENS, at, Spec()))


def test_a_watched_spec_is_hashable_and_like_itself_alone():
  see = lambda weights: None
  assert hash(Spec(watch=see)) == hash(Spec(watch=see))
  assert Spec(watch=see) != Spec() == Spec(watch=None)


@pytest.mark.parametrize('implementation', [n for n in IMPLEMENTATIONS if n != 'dense'])
def test_what_holds_no_weights_cannot_be_watched(implementation):
  with pytest.raises(ValueError, match=f"'{implementation}' holds no weights.*'dense'"):
    Spec(implementation, watch=print)


@pytest.mark.parametrize('remat', ['none', 'block'])
def test_what_is_compiled_cannot_be_watched(remat):
  decoder = fixtures.decoder('nope', remat=remat)
  run = lambda: decoder(fixtures.TOKENS, Tokens.contiguous(LENGTH), Spec(watch=print))
  with pytest.raises(ValueError, match='leave out jax'):
    (run if remat == 'block' else jax.jit(run))()


def test_pooled_maps_are_sums_over_keys_and_means_over_queries():
  draw, edges = np.random.default_rng(0), np.array([0, 2, 3, 7, 13])
  weights = draw.random((2, 13, 13)).astype(np.float32) * np.tri(13)
  weights /= weights.sum(-1, keepdims=True)
  got = trained.pooled(weights.astype(np.float32), edges)
  cells = [range(a, b) for a, b in itertools.pairwise(edges)]
  for h, i, j in np.ndindex(*got.shape):
    mass = [sum(weights[h, m, n] for n in cells[j]) for m in cells[i]]
    assert got[h, i, j] == pytest.approx(np.mean(mass), rel=1e-5, abs=1e-7)
  check_rows(got, np.tri(4, dtype=bool))


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.fixture(scope='module')
def rope(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('rope')
  settings = {'model__heads': 4, 'model__kv_heads': 2, 'model__remat': 'block'}
  loop.train(run_fixtures.config(corpus, optimizer__learning_rate=0.01, **settings), workdir)
  return workdir


@pytest.fixture(scope='module')
def fire(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('fire')
  loop.train(run_fixtures.config(corpus, 'fire', optimizer__learning_rate=0.01), workdir)
  return workdir


@functools.cache
def opened(workdir, position=''):
  """The decoder, and the validation documents, each opened as evaluation does."""
  config = configs.anywhere(run_folder.load_config(workdir))
  if position:
    config['position'] = lineage.parse_position(position, config)
  params, _ = train_state.load_params(config, workdir)
  return FunctionalDecoder(config).bind(params), texts.load(config).validation


def losses(decoder, windows):
  """float32 nats of every target of windows [W, N + 1]."""
  run = jax.jit(lambda tokens: decoder(tokens, Tokens.contiguous(tokens.shape[1]), SPEC))
  windows = jnp.asarray(windows, jnp.int32)
  return np.asarray(transformer.loss(run(windows[:, :-1]), windows[:, 1:]))


@pytest.mark.parametrize('layer', [0, 1])
def test_maps_are_the_softmax_of_queries_and_keys(rope, layer):
  seen, (decoder, documents) = trained.Run(rope).look(24), opened(rope)
  assert seen.maps.shape == (2, 4, 24, 24) and seen.edges.tolist() == list(range(25))
  window = documents[int(documents.lengths.argmax())][-25:]
  below = nnx.clone(decoder)
  below.blocks, below.norm = below.blocks[:layer], lambda x: x
  at = Tokens.contiguous(24)
  x = below.features(jnp.asarray(window[None, :-1], jnp.int32), at, SPEC)[0]
  x = decoder.blocks[layer].attention_norm(x)
  own, scheme = decoder.blocks[layer].attention, decoder.position[0]
  q, k = own.query(x).reshape(1, 24, 4, 4), own.key(x).reshape(1, 24, 2, 4)
  q, k = (
    np.asarray(f(y, at.pos, None), np.float64)[0] for f, y in ((scheme.query, q), (scheme.key, k))
  )
  for h in range(4):
    for m in range(24):
      logits = k[: m + 1, h // 2] @ q[m, h] / 2  # sqrt of a head's 4 channels
      weights = np.exp(logits - logits.max())
      fixtures.close(seen.maps[layer, h, m, : m + 1], weights / weights.sum())
      assert not seen.maps[layer, h, m, m + 1 :].any()


def test_losses_are_those_of_the_decoder_on_the_same_text(rope):
  seen, (decoder, documents) = trained.Run(rope).look(24), opened(rope)
  window = documents[int(documents.lengths.argmax())][-25:]
  assert ''.join(seen.tokens) == bytes(window.tolist()).decode() and len(seen.tokens) == 25
  assert seen.loss.dtype == np.float32 and seen.length == 24 and seen.label == 'RoPE'
  fixtures.close(seen.loss, losses(decoder, window[None])[0])


def test_texts_end_alike_whatever_the_length_and_the_run(rope, fire):
  short, long, other = (
    trained.Run(rope).look(7),
    trained.Run(rope).look(70),
    trained.Run(fire).look(70),
  )
  assert short.tokens == long.tokens[-8:]
  assert other.tokens == long.tokens and other.label == 'FIRE'


def test_long_maps_are_pooled(rope, monkeypatch):
  few = trained.Run(rope).look(150)
  assert few.maps.shape == (2, 4, 64, 64) and few.edges[0] == 0 and few.edges[-1] == 150
  assert set(np.diff(few.edges)) == {2, 3}
  check_rows(few.maps, np.tri(64, dtype=bool))
  monkeypatch.setattr(trained, 'CELLS', 150)
  every = trained.Run(rope).look(150)
  assert every.maps.shape == (2, 4, 150, 150)
  check_rows(every.maps, np.tri(150, dtype=bool))
  fixtures.close(trained.pooled(every.maps, few.edges), few.maps)
  np.testing.assert_array_equal(every.loss, few.loss)


def test_a_stretch_by_1_changes_nothing_and_one_by_4_does(rope):
  plain = trained.Run(rope).look(24)
  for position in ('rope', 'pi:factor=1', 'ntk:factor=1', 'yarn:factor=1'):
    same = trained.Run(rope).look(24, position)
    fixtures.close(same.maps, plain.maps, 1e-6)
    fixtures.close(same.loss, plain.loss)
  stretched = trained.Run(rope).look(24, 'pi:factor=4')
  assert stretched.label == 'PI, factor=4' and stretched.tokens == plain.tokens
  assert np.abs(stretched.maps - plain.maps).max() > 1e-2
  documents = opened(rope)[1]
  window = documents[int(documents.lengths.argmax())][-25:]
  fixtures.close(stretched.loss, losses(opened(rope, 'pi:factor=4')[0], window[None])[0])


@pytest.mark.parametrize('position', [None, 'pi:factor=4'])
def test_losses_by_position_are_means_over_windows(rope, position):
  curve, (decoder, documents) = (
    trained.Run(rope).loss_by_position(32, position),
    opened(rope, position),
  )
  plan = measures.plan(
    texts.Corpus(None, None, documents, None, {}),
    run_folder.load_config(rope) | {'eval': BY_POSITION},
  )
  windows = [part[i : i + 33] for _, part in plan.parts for i in range(0, len(part) - 32, 32)]
  nats = losses(decoder, np.stack(windows)).astype(np.float64)
  assert curve.windows == len(windows) > 3 and curve.length == 32
  fixtures.close(curve.mean, nats.mean(0))
  spread = np.sqrt(((nats - nats.mean(0, keepdims=True)) ** 2).sum(0) / (len(nats) - 1))
  fixtures.close(curve.error, spread / len(nats) ** 0.5)


@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_one_window_has_no_standard_error(corpus, rope, tmp_path):
  workdir = shutil.copytree(rope, tmp_path / 'run')
  config = run_folder.load_config(rope)
  config['eval'] |= {'tokens': 64}
  (workdir / 'config.json').write_text(json.dumps(config))
  curve = trained.Run(workdir).loss_by_position(64)
  assert curve.windows == 1 and np.isnan(curve.error).all() and np.isfinite(curve.mean).all()


def test_what_a_scheme_learned_is_what_the_checkpoint_has(fire):
  made, (decoder, _) = trained.Run(fire).scheme(), opened(fire)
  begun = FunctionalDecoder(run_folder.load_config(fire)).init()
  for i, name in itertools.product((0, 1), ('inner', 'inner_bias', 'outer', 'outer_bias', 'rate')):
    got = np.asarray(getattr(made[i][0], name)[...])
    np.testing.assert_array_equal(got, getattr(decoder.position[i], name)[...])
    assert np.abs(got - begun[f'position/{i}/{name}']).max() > 1e-5


def test_a_scheme_comes_with_its_values_and_sizes(fire, rope):
  both, (decoder, _) = trained.Run(fire).scheme(), opened(fire)
  assert [dims for _, dims in both] == [Dims(16, 2, 8, 16, layer=i) for i in (0, 1)]
  pos = jnp.arange(20)[None]
  biases = [one.bias(pos, pos) for one, _ in both]
  for i, bias in enumerate(biases):
    np.testing.assert_array_equal(bias, decoder.position[i].bias(pos, pos))
  assert np.abs(biases[0] - biases[1]).max() > 1e-3
  ((stretched, dims),) = trained.Run(rope).scheme('yarn:factor=4')
  assert stretched.label == 'YaRN' and stretched.factor == 4 and dims == Dims(16, 4, 4, 16)
  x = jnp.ones((1, 20, 4, 4))
  want = opened(rope, 'yarn:factor=4')[0].position[0].query(x, pos, None)
  np.testing.assert_array_equal(stretched.query(x, pos, None), want)


def unread(corpus, folder, name='rope', record=None, **changes):
  """The workdir of a run that has no weights, for what is refused before they are read."""
  config = run_fixtures.config(corpus, name)
  config['data'] |= changes
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'run.json').write_text(json.dumps({'batches': ''} if record is None else record))
  return folder


QUESTIONS = (
  lambda workdir: trained.Run(workdir).look(8),
  lambda workdir: trained.Run(workdir).loss_by_position(8),
  lambda workdir: trained.Run(workdir).scheme(),
)


@pytest.mark.parametrize('ask', QUESTIONS)
def test_a_folder_that_has_no_weights_is_named(corpus, tmp_path, ask):
  with pytest.raises(files.WorkdirError, match='has no config'):
    ask(tmp_path)
  with pytest.raises(files.WorkdirError, match='holds no finished run'):
    ask(unread(corpus, tmp_path / 'begun', record={'steps': 12}))
  derived = {'batches': '', 'weights_of': {'run': 'first'}}
  with pytest.raises(files.WorkdirError, match=r"weights of first .* 'pi' as its position"):
    ask(unread(corpus, tmp_path / 'derived', 'pi', record=derived))


@pytest.mark.parametrize('method', ['look', 'loss_by_position'])
def test_lengths_that_cannot_be_are_named(corpus, rope, tmp_path, method):
  def ask(workdir, *arguments):
    return getattr(trained.Run(workdir), method)(*arguments)

  held = unread(corpus, tmp_path / 'learned', 'learned')
  with pytest.raises(ValueError, match='holds 16 positions; asked for 17'):
    ask(held, 17)
  with pytest.raises(ValueError, match='length is 0 tokens; it must be at least 1'):
    ask(rope, 0)
  longest = int(opened(rope)[1].lengths.max())
  with pytest.raises(ValueError, match=rf'{longest}.* the longest (has|validation)'):
    ask(rope, longest)
  with pytest.raises(ValueError, match="'alibi' cannot take over"):
    ask(rope, 8, 'alibi')
  with pytest.raises(ValueError, match="the task 'copy'"):
    ask(unread(corpus, tmp_path / 'task', task='copy'), 8)


def test_the_longest_text_that_there_is_can_be_read(rope):
  documents = opened(rope)[1]
  longest = documents[int(documents.lengths.argmax())]
  seen = trained.Run(rope).look(longest.size - 1)
  assert ''.join(seen.tokens) == bytes(longest.tolist()).decode()
  check_rows(seen.maps, np.tri(64, dtype=bool))
