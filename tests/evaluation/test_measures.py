"""Evaluation protocols against brute force, with a model whose loss names the target it scored."""

import math

import numpy as np
import pytest

from pe_research.data import texts, tokenizers
from pe_research.evaluation import measures
from pe_research.evaluation.measures import losses

SIZES = (70, 33, 52, 9)
RNG = np.random.default_rng(0)
STARTS = np.cumsum([0, *SIZES])
DOCUMENTS = texts.Documents(
  ['w', 'x', 'y', 'z'], RNG.integers(0, 256, sum(SIZES)).astype(np.uint8), STARTS
)
CORPUS = texts.Corpus(None, None, DOCUMENTS, tokenizers.Bytes(), {})


def loss(context: np.ndarray, target: int) -> float:
  """Any function of all of the context, in order, and of the target."""
  weights = np.arange(1, len(context) + 1) ** 0.5
  return float(((context * weights).sum() * 0.37 + target) % 5.0)


def score(windows: np.ndarray, last: int | None = None) -> np.ndarray:
  length = windows.shape[1] - 1
  begin = length - (last or length)
  losses = [[loss(w[: i + 1].astype(int), int(w[i + 1])) for i in range(length)] for w in windows]
  return np.array(losses, np.float32)[:, begin:]


def plan(**changes) -> measures.Plan:
  wanted = {
    'reach': 32,
    'protocols': ['fixed_targets', 'non_overlapping', 'sliding', 'by_position'],
    'windows': 6,
    'targets': 4,
    'tokens': 128,
    'stride': 4,
  } | changes
  return measures.plan(CORPUS, {'eval': wanted, 'length': 8, 'data': {'task': ''}})


class Anywhere:
  """A scheme that is defined at every length."""

  def check_length(self, length):
    pass


def test_fixed_targets_score_the_same_targets_at_every_length():
  chosen = plan()
  seen = []
  for length in (4, 8, 16, 32):
    row = losses.fixed_targets(score, chosen, length)
    brute = []
    for d, end in chosen.ends:
      for t in range(end - 4, end):
        brute.append(loss(DOCUMENTS[d][end - 1 - length : t].astype(int), int(DOCUMENTS[d][t])))
    assert math.isclose(row['value'], np.mean(brute), rel_tol=1e-5)
    assert row['context'] == [length - 3, length] and row['tokens'] == 24
    seen.append(row['scored'].tolist())
  assert all(one == seen[0] for one in seen)


@pytest.mark.parametrize('protocol', ['fixed_targets', 'non_overlapping', 'sliding', 'by_position'])
def test_a_row_says_which_targets_it_is_of(protocol):
  """The same at every length, and others where the choice of windows is another."""
  of = lambda length, **how: measures.measure(
    score, Anywhere(), plan(**how), CORPUS, protocol, 'none', length
  )['targets']
  assert of(8) == of(16) == of(32) == of(8, batch_tokens=7)
  assert of(8, reach=48) != of(8)
  assert of(8, targets=2, tokens=64, windows=5) != of(8)


def test_fixed_targets_have_the_reach_and_none_is_scored_twice():
  chosen = plan(windows=16)
  places = [(d, t) for d, end in chosen.ends for t in range(end - 4, end)]
  assert len(set(places)) == len(places) == 16 * 4
  assert all(32 < end <= SIZES[d] for d, end in chosen.ends)


def test_the_cropped_control_is_the_training_length_itself():
  chosen = plan()
  trained = losses.fixed_targets(score, chosen, 8)
  for length in (8, 16, 32):
    assert losses.fixed_targets(score, chosen, length, 'cropped')['value'] == trained['value']


def test_the_shuffled_control_permutes_only_what_lies_before_the_training_length():
  chosen, windows = plan(), {}

  def spy(name):
    def record(w, last):
      windows[name] = w.copy()
      return np.zeros((len(w), last), np.float32)

    return record

  losses.fixed_targets(spy('plain'), chosen, 32)
  losses.fixed_targets(spy('shuffled'), chosen, 32, 'shuffled')
  plain, shuffled = windows['plain'], windows['shuffled']
  np.testing.assert_array_equal(plain[:, 24:], shuffled[:, 24:])
  np.testing.assert_array_equal(np.sort(plain[:, :24]), np.sort(shuffled[:, :24]))
  assert (plain[:, :24] != shuffled[:, :24]).any(axis=1).all()
  again = losses.fixed_targets(score, chosen, 32)['value']
  losses.fixed_targets(score, chosen, 32, 'shuffled')
  assert losses.fixed_targets(score, chosen, 32)['value'] == again  # documents are untouched


def test_non_overlapping_windows_score_each_target_once_with_their_own_context():
  chosen = plan()
  for length in (8, 16, 32):
    row = losses.non_overlapping(score, chosen, length)
    brute = [
      loss(tokens[t - 1 - (t - 1) % length : t].astype(int), int(tokens[t]))
      for _, tokens in chosen.parts
      for t in range(1, len(tokens))
    ]
    assert row['tokens'] == len(brute)
    assert math.isclose(row['value'], np.mean(brute), rel_tol=1e-5)


@pytest.mark.parametrize('stride', [1, 4, 8])
def test_sliding_gives_each_target_the_longest_context_that_the_stride_leaves(stride):
  chosen, length = plan(stride=stride), 8
  row = losses.sliding(score, chosen, length)
  brute = []
  for _, tokens in chosen.parts:
    for t in range(1, len(tokens)):
      last = length + stride * max(0, math.ceil((t - length) / stride))  # its window's last target
      brute.append(loss(tokens[last - length : t].astype(int), int(tokens[t])))
  assert row['tokens'] == len(brute)
  assert math.isclose(row['value'], np.mean(brute), rel_tol=1e-5)


def test_the_mean_is_over_tokens_and_not_over_windows_or_documents():
  row = losses.sliding(score, plan(stride=1), 8)
  sums = np.array(list(row['documents'].values()))
  assert math.isclose(row['value'], sums[:, 0].sum() / sums[:, 1].sum(), rel_tol=1e-9)
  assert sums[:, 1].sum() == row['tokens']


def test_losses_by_position_average_to_the_non_overlapping_loss():
  chosen = plan()
  row, whole = (f(score, chosen, 16) for f in (losses.by_position, losses.non_overlapping))
  assert len(row['by_position']) == 16
  assert math.isclose(np.mean(row['by_position']), whole['value'], rel_tol=1e-6)
  brute = [loss(t[i : i + 3].astype(int), int(t[i + 3])) for _, t in chosen.parts for i in (0, 16)]
  assert math.isclose(row['by_position'][2], np.mean(brute), rel_tol=1e-5)


def test_every_length_scores_the_same_tokens_of_equal_parts():
  chosen = plan(tokens=1000)
  assert [(d, len(tokens)) for d, tokens in chosen.parts] == [(0, 65), (1, 33), (2, 33)]
  counts = {losses.non_overlapping(score, chosen, n)['tokens'] for n in (8, 16, 32)}
  assert len(counts) == 1


def test_bits_per_byte_count_the_bytes_of_the_scored_tokens():
  class Pairs(tokenizers.Bytes):
    def __init__(self):
      super().__init__()
      self.token_bytes = np.full(256, 2)

  corpus = texts.Corpus(None, None, DOCUMENTS, Pairs(), {})
  row = measures.measure(score, Anywhere(), plan(), corpus, 'fixed_targets', 'none', 16)
  assert row['bytes'] == 2 * row['tokens']
  assert math.isclose(row['bits_per_byte'], row['value'] / math.log(2) / 2, rel_tol=1e-12)


def test_a_length_that_the_scheme_does_not_reach_has_a_reason_and_no_value():
  class Short:
    def check_length(self, length):
      if length > 16:
        raise ValueError(f'holds 16; asked for {length}')

  measure = lambda control, n: measures.measure(
    score, Short(), plan(), CORPUS, 'fixed_targets', control, n
  )
  assert measure('none', 16)['value'] is not None
  assert measure('none', 32)['value'] is None
  assert measure('none', 32)['undefined'] == 'holds 16; asked for 32'
  assert measure('cropped', 32)['value'] is not None


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'windows': 100}, r'100.*hold 16 windows of length 32.*3 of 4 documents.*longest has 70'),
    ({'reach': 70}, r'hold 0 windows of length 70'),
    ({'reach': 70, 'protocols': ['sliding']}, r'0 windows of that length.*longest has 70'),
  ],
)  # fmt: skip
def test_too_long_a_length_says_how_many_windows_there_are(changes, message):
  with pytest.raises(ValueError, match=message):
    plan(**changes)


def test_parts_are_spread_over_all_long_documents():
  many = texts.Documents([str(i) for i in range(9)], np.zeros(9 * 40, np.uint8), np.arange(10) * 40)
  corpus = texts.Corpus(None, None, many, tokenizers.Bytes(), {})
  wanted = {'reach': 32, 'protocols': ['sliding'], 'tokens': 96, 'stride': 4}
  wanted |= {'windows': 1, 'targets': 1}
  parts = measures.plan(corpus, {'eval': wanted, 'length': 8, 'data': {'task': ''}}).parts
  assert [d for d, _ in parts] == [0, 3, 6]


def test_a_stride_above_the_length_is_refused():
  with pytest.raises(ValueError, match=r'eval.stride \(9\) is above the length 8'):
    losses.sliding(score, plan(stride=9), 8)
