"""Tasks and needles against brute force."""

import re

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pe_research.data import needles, tasks, tokenizers


def solve(name: str, prompt: str) -> str:
  """The answer, found in another way than it was made."""
  if name in ('copy', 'reverse', 'sort'):
    text = prompt.removesuffix('>')
    return {'copy': text, 'reverse': ''.join(reversed(text)), 'sort': ''.join(sorted(text))}[name]
  if name.startswith('addition'):
    turn = (lambda s: s[::-1]) if name.endswith('reversed') else (lambda s: s)
    a, b = (turn(part) for part in prompt.removesuffix('=').split('+'))
    return turn(f'{int(a) + int(b):0{len(a) + 1}d}')
  if name in ('modular_sum', 'parity'):
    return str(sum(map(int, prompt[:-1])) % (10 if name == 'modular_sum' else 2))
  if name == 'recall':
    pairs, asked = prompt[:-2], prompt[-1]
    keys = pairs[::2]
    assert len(set(keys)) == len(keys) and prompt[-2] == '>'
    return pairs[2 * keys.index(asked) + 1]
  written = re.findall(r'w(.)', prompt)
  assert prompt.endswith('r')
  return written[-1]


each = pytest.mark.parametrize('name', tasks.TASKS)


@each
@pytest.mark.parametrize('test', [False, True])
def test_answers_are_right_and_sizes_as_asked(name, test):
  rng = np.random.default_rng(0)
  for n in (4, 7, 12, 25):
    for _ in range(20):
      prompt, answer = tasks.example(name, n, test, rng)
      assert answer.decode() == solve(name, prompt.decode()) + '.'
      assert len(prompt) + len(answer) == tasks.tokens(name, n)
      assert tasks.is_test(name, prompt) == test


@each
def test_no_test_string_is_trained_on(name):
  trained = {
    bytes(row[: int(np.argmax(weights))])  # the prompt ends where the answer begins
    for step in range(40)
    for batch in [tasks.fill(name, 12, np.random.default_rng([0, step]), 16)]
    for row, weights in zip(batch['tokens'].astype(np.uint8), batch['weights'], strict=True)
  }
  rows, answer = tasks.prompts(name, 12, 100)
  tested = {bytes(row[:-answer].astype(np.uint8)) for row in rows}
  assert not trained & tested
  assert all(tasks.is_test(name, prompt) for prompt in tested)
  assert not any(tasks.is_test(name, prompt) for prompt in trained)


@each
def test_training_draws_every_size_and_scores_answers_alone(name):
  batch = tasks.fill(name, 6, np.random.default_rng(0), 200)
  sizes = set()
  for row, weights in zip(batch['tokens'].astype(np.uint8), batch['weights'], strict=True):
    begin, end = int(np.argmax(weights)), int(np.flatnonzero(weights)[-1]) + 1
    assert weights[begin:end].all() and weights.sum() == end - begin
    assert row[end - 1] == ord('.') and (row[end:] == 0).all()
    prompt, answer = bytes(row[:begin]).decode(), bytes(row[begin : end - 1]).decode()
    assert answer == solve(name, prompt)
    sizes.add(next(n for n in range(1, 7) if tasks.tokens(name, n) == end))
  assert sizes == {1, 2, 3, 4, 5, 6}


def test_strings_are_uniform():
  rng = np.random.default_rng(0)
  bits = [tasks.example('parity', 3, False, rng)[0][:3].decode() for _ in range(4000)]
  allowed = [f'{i:03b}' for i in range(8) if not tasks.is_test('parity', f'{i:03b}='.encode())]
  counts = np.array([bits.count(text) for text in allowed])
  assert counts.sum() == 4000
  assert np.abs(counts * len(allowed) / 4000 - 1).max() < 0.15


def test_a_size_without_strings_is_named(monkeypatch):
  monkeypatch.setattr(tasks, 'is_test', lambda name, prompt: False)
  with pytest.raises(ValueError, match=r"'parity' has hardly a test string of size 2"):
    tasks.example('parity', 2, True, np.random.default_rng(0))


PLANTER = needles.Needles(tokenizers.Bytes())


def planted(size, keys, depth, seed=0):
  window = np.full(size, ord(' '), np.uint8)
  PLANTER.plant(window, np.random.default_rng(seed), keys, depth)
  return bytes(window).decode()


@hypothesis.given(
  size=st.integers(60, 200), keys=st.integers(1, 5), seed=st.integers(0, 99),
  depth=st.none() | st.floats(0, 1),
)  # fmt: skip
@hypothesis.settings(max_examples=60)
def test_what_is_asked_for_was_hidden_once(size, keys, seed, depth):
  text = planted(size, keys, depth, seed)
  assert len(text) == size
  body, asked = text[: -PLANTER.size], text[-PLANTER.size :]
  found = re.findall(r'<([A-Z])=(\d{4})>', body)
  assert len(found) == keys and len({key for key, _ in found}) == keys
  assert asked == f'<{asked[1]}={dict(found)[asked[1]]}>'
  assert len(re.sub(r'<[A-Z]=\d{4}>', '', body).strip()) == 0  # none over another
  if depth is not None:
    assert body.index(asked) == round(depth * (len(body) - PLANTER.size))


def test_copies_are_of_needles_that_are_there():
  for seed in range(30):
    window = np.full(100, ord(' '), np.uint8)
    PLANTER.plant(window, np.random.default_rng(seed), 2, again=5)
    found = re.findall(r'<([A-Z])=(\d{4})>', bytes(window).decode())
    assert len(found) == 8 and len(set(found)) == 2 and found[-1] in found[:-1]


def test_a_vocabulary_that_joins_some_digits_is_refused(tmp_path):
  years = [b' '.join(b'in the year %d of our nation' % year for year in range(1900, 2000))] * 3
  tokenizer = tokenizers.SentencePiece(f'{tmp_path}/m.model', vocab=300, documents=years)
  lengths = {len(tokenizer.encode(b'<A=%04d>' % value)) for value in (0, 7391, 1234, 9999)}
  assert len(lengths) == 1 and len(tokenizer.encode(b'<A=1950>')) not in lengths
  with pytest.raises(ValueError, match='digit by digit'):
    needles.Needles(tokenizer)


def test_needles_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='3 needles of 8 tokens and a question do not fit in 31'):
    planted(31, 3, None)
  assert planted(32, 3, None)


def test_a_share_of_the_rows_is_planted_by_seed_and_step():
  fresh = lambda: {'tokens': np.full((400, 80), ord(' '), np.int32)}
  one, again, other = fresh(), fresh(), fresh()
  PLANTER.sow(one, 0.25, 3, [0, 7])
  PLANTER.sow(again, 0.25, 3, [0, 7])
  PLANTER.sow(other, 0.25, 3, [0, 8])
  np.testing.assert_array_equal(one['tokens'], again['tokens'])
  assert (one['tokens'] != other['tokens']).any()
  share = (one['tokens'] != ord(' ')).any(1).mean()
  assert 0.18 < share < 0.32
