"""Batches: every window once an epoch, in an order that nothing but the seed decides."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pe_research.common import digest
from pe_research.data import batches, texts, tokenizers

# Each token names its place, so a window shows where it came from.
SIZES = (9, 3, 14, 6)
STARTS = np.cumsum([0, *SIZES])
DOCUMENTS = texts.Documents(list('abcd'), np.arange(sum(SIZES), dtype=np.uint8), STARTS)


def memory(length=5, batch=3, seed=0, packing=False, beyond=0):
  return batches.Memory(DOCUMENTS, length, batch, seed, packing, beyond)


@pytest.mark.parametrize('packing', [False, True])
def test_an_epoch_visits_every_window_once(packing):
  length = 5
  if packing:
    expected = set(range(sum(SIZES) - length))
  else:
    expected = {
      start
      for begin, size in zip(STARTS[:-1], SIZES, strict=True)
      for start in range(begin, begin + size - length)
    }
  stream = memory(length, batch=1, packing=packing)
  firsts = [int(next(stream)['tokens'][0, 0]) for _ in range(2 * len(expected))]
  epochs = firsts[: len(expected)], firsts[len(expected) :]
  assert all(set(epoch) == expected for epoch in epochs)
  assert epochs[0] != epochs[1]


def test_a_window_is_consecutive_text_of_one_document():
  for batch in itertools.islice(memory(batch=4), 20):
    for window in batch['tokens']:
      assert (np.diff(window) == 1).all()
      assert len(set(np.searchsorted(STARTS, window, side='right'))) == 1


def test_packed_tokens_know_their_document_and_place():
  for batch in itertools.islice(memory(length=8, batch=4, packing=True), 20):
    for tokens, segments, pos in zip(
      *(batch[k] for k in ('tokens', 'segments', 'pos')), strict=True
    ):
      document = np.searchsorted(STARTS, tokens, side='right') - 1
      assert (segments == document - document[0] + 1).all()
      for place, (d, p) in enumerate(zip(document, pos, strict=True)):
        assert p == place - np.flatnonzero(document == d)[0]


@hypothesis.given(batch=st.integers(1, 7), steps=st.integers(1, 6), seed=st.integers(0, 5))
def test_the_order_of_windows_does_not_depend_on_the_batch_size(batch, steps, seed):
  flat = lambda stream, n: np.concatenate([next(stream)['tokens'] for _ in range(n)])
  joint = flat(memory(batch=batch, seed=seed), steps)
  single = flat(memory(batch=1, seed=seed), steps * batch)
  np.testing.assert_array_equal(joint, single)


def test_the_order_is_pinned():
  """A library that shuffles otherwise would silently change every experiment."""
  stream = memory(batch=1)
  assert [int(next(stream)['tokens'][0, 0]) for _ in range(8)] == [20, 16, 19, 15, 12, 26, 1, 0]


def test_seeds_give_different_orders():
  chains = {_chain(memory(seed=seed), 4) for seed in range(5)}
  assert len(chains) == 5


def _chain(stream, steps):
  for _ in range(steps):
    next(stream)
  return stream.chain


def test_the_chain_sees_every_bit_and_the_order():
  one, two = ({'tokens': np.array([[1, 2, i]], np.int32)} for i in (3, 4))
  chains = [
    digest.chain(digest.chain('', a), b) for a, b in itertools.product((one, two), repeat=2)
  ]
  assert len(set(chains)) == 4


SOURCE = [bytes([97 + i]) * size for i, size in enumerate(SIZES)]


def streamed(packing, seed=0, beyond=0, source=SOURCE):
  return batches.Streamed(source, tokenizers.Bytes(), 5, 3, seed, packing, beyond)


BUILDERS = {
  'memory': memory,
  'memory packed': lambda: memory(packing=True),
  'grain': lambda: streamed(False),
  'grain packed': lambda: streamed(True),
  'memory, beyond': lambda: memory(beyond=7),
  'grain, beyond': lambda: streamed(False, beyond=7),
}


@pytest.mark.spread
@pytest.mark.parametrize('kind', BUILDERS)
@pytest.mark.parametrize('stop', [0, 1, 5])
def test_restoring_the_state_goes_on_exactly(kind, stop):
  whole, cut = BUILDERS[kind](), BUILDERS[kind]()
  for _ in range(stop):
    next(whole), next(cut)
  state, resumed = cut.state(), BUILDERS[kind]()
  next(cut)  # what was drawn after saving is drawn again
  resumed.restore(state)
  for _ in range(6):
    expected, got = next(whole), next(resumed)
    assert expected.keys() == got.keys()
    for name in expected:
      np.testing.assert_array_equal(expected[name], got[name])
  assert whole.chain == resumed.chain


PLACED = [DOCUMENTS[i].tobytes() for i in range(len(SIZES))]  # the same places, as bytes
BEYOND = {
  'memory': lambda beyond: memory(beyond=beyond),
  'grain': lambda beyond: streamed(False, beyond=beyond, source=PLACED),
}


@pytest.mark.parametrize('kind', BEYOND)
def test_what_follows_a_window_is_given_as_far_as_its_document_goes(kind):
  rests = set()
  for batch in itertools.islice(BEYOND[kind](7), 20):
    assert batch['beyond'].shape == (3, 7) and batch['beyond'].dtype == np.int32
    for window, beyond in zip(batch['tokens'], batch['beyond'], strict=True):
      last = window[-1]
      end = STARTS[np.searchsorted(STARTS, last, side='right')]  # of the document
      rest = [*range(last + 1, min(last + 8, end))]
      assert beyond.tolist() == rest + [-1] * (7 - len(rest))
      rests.add(len(rest))
  assert rests == {*range(8)}


@pytest.mark.parametrize('kind', BEYOND)
def test_reading_on_changes_neither_windows_nor_their_chain(kind):
  plain, more = BEYOND[kind](0), BEYOND[kind](7)
  for _ in range(12):
    one, other = next(plain), next(more)
    assert one.keys() == {'tokens'} and other.keys() == {'tokens', 'beyond'}
    np.testing.assert_array_equal(one['tokens'], other['tokens'])
  assert plain.chain == more.chain


def test_streamed_windows_lie_in_one_document():
  for batch in itertools.islice(streamed(False), 10):
    assert batch['tokens'].shape == (3, 6)
    assert all(len(set(window)) == 1 for window in batch['tokens'])
    assert 'b' not in {chr(t) for t in batch['tokens'].ravel()}  # document of 3 bytes


def test_streamed_packing_keeps_documents_apart():
  for batch in itertools.islice(streamed(True), 10):
    for tokens, segments in zip(batch['tokens'], batch['segments'], strict=True):
      changes = np.diff(tokens) != 0
      assert (changes <= (np.diff(segments) != 0)).all()


def test_a_corpus_shorter_than_a_window_is_refused():
  with pytest.raises(ValueError, match=r'no training document has 15 tokens.*longest has 14'):
    memory(length=14)
  assert memory(length=13).windows == 1
  with pytest.raises(ValueError, match=r'no training document has 15 tokens'):
    batches.Streamed(SOURCE, tokenizers.Bytes(), 14, 3, 0, False)
  with pytest.raises(ValueError, match=r'no training document has 1 tokens'):
    batches.Streamed([b''], tokenizers.Bytes(), 5, 3, 0, True)
