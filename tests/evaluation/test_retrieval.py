"""Exact answers against greedy decoding, and probes against positions that can be read off."""

import dataclasses

import jax
import numpy as np
import pytest
import run_fixtures

from pe_research.common import sharding
from pe_research.data import needles, tasks, texts, tokenizers
from pe_research.evaluation import measures, scoring
from pe_research.evaluation.measures import retrieval
from pe_research.model import generation
from pe_research.model.functional import FunctionalDecoder


@pytest.fixture(scope='module')
def subject(tmp_path_factory):
  """A model that has learned a little, so that some of its answers are its own likeliest ones."""
  config = run_fixtures.config(
    run_fixtures.write_corpus(tmp_path_factory.mktemp('text') / 'c'), 'alibi'
  )
  functional = FunctionalDecoder(config)
  mesh = sharding.mesh(config['run']['mesh'])
  params = jax.jit(functional.init)()
  return scoring.Subject(scoring.Scorer(functional, config, mesh), params)


def test_an_answer_is_exact_where_greedy_decoding_gives_it(subject):
  rng = np.random.default_rng(0)
  prompts, answer = rng.integers(0, 256, (12, 20)).astype(np.int32), 5
  decoder = subject.scorer.functional.bind(subject.params)
  greedy = generation.generate(decoder, prompts, answer, key=jax.random.key(0), temperature=0)
  wanted = np.array(greedy)
  for row in range(1, 12, 2):  # wrong somewhere, the first token or a later one
    wanted[row, rng.integers(answer)] += 1
  windows = np.concatenate([prompts, wanted % 256], axis=1)
  exact = subject.hits(windows, answer).all(-1)
  np.testing.assert_array_equal(exact, (wanted == np.array(greedy)).all(-1))
  assert exact.sum() == 6


def test_hits_and_losses_are_of_the_same_targets(subject):
  windows = np.random.default_rng(0).integers(0, 256, (6, 30))
  right, nll = subject.hits(windows, 29), subject(windows)
  logits = np.log(256.0)
  assert right.shape == nll.shape == (6, 29)
  assert (nll[right] < logits).all()  # the likeliest of 256 has at least its share


def test_a_logit_scale_is_the_scheme_times_it(subject):
  windows = np.random.default_rng(0).integers(0, 256, (4, 30))
  plain = subject(windows)
  np.testing.assert_array_equal(subject(windows, scale=1.0), plain)
  params = dict(subject.params)
  for name, value in params.items():
    if name.endswith('attention/query/kernel'):
      params[name] = value * 1.5
  scaled = scoring.Subject(subject.scorer, params)(windows)
  np.testing.assert_allclose(subject(windows, scale=1.5), scaled, atol=2e-5)
  assert np.abs(scaled - plain).max() > 1e-3


@dataclasses.dataclass
class Reader:
  """Knows the answer where the text shows it within its view."""

  view: int
  seen: np.ndarray | None = None
  scale: float | None = None

  def hits(self, windows, last, scale):
    self.seen, self.scale = windows, scale
    found = [
      (row := bytes(w.astype(np.uint8)))[-needles.DIGITS - 4 :] in row[-self.view : -8]
      for w in windows
    ]
    return np.repeat(np.array(found)[:, None], last, axis=1)


SIZES = (400, 300)
DOCUMENTS = texts.Documents(
  ['a', 'b'], np.full(sum(SIZES), ord('.'), np.uint8), np.cumsum([0, *SIZES])
)
CORPUS = texts.Corpus(None, None, DOCUMENTS, tokenizers.Bytes(), {})


def plan(protocol, task=''):
  wanted = {'reach': 128, 'protocols': [protocol], 'windows': 20, 'targets': 16, 'tokens': 256}
  wanted['stride'] = 16
  return measures.plan(CORPUS, {'eval': wanted, 'length': 32, 'data': {'task': task}})


@pytest.mark.parametrize('depth, view, found', [(0, 128, 0), (0, 200, 1), (1, 40, 1), (0.5, 60, 0)])
def test_a_value_is_found_where_it_can_be_seen(depth, view, found):
  row = retrieval.passkey(Reader(view), plan('passkey'), 128, f'depth:{depth}+keys:3')
  assert row['value'] == found and row['tokens'] == 20 and row['hits'] == 20 * found
  assert {name: n for name, (_, n) in row['documents'].items()}.keys() == {'a', 'b'}


def test_the_same_values_are_asked_of_every_model_and_at_every_depth():
  seen = []
  for control in ('depth:0', 'depth:0', 'depth:0.5'):
    reader = Reader(200)
    retrieval.passkey(reader, plan('passkey'), 128, control)
    seen.append(reader.seen)
  np.testing.assert_array_equal(seen[0], seen[1])
  np.testing.assert_array_equal(seen[0][:, -8:], seen[2][:, -8:])
  cropped = Reader(200)
  row = retrieval.passkey(cropped, plan('passkey'), 128, 'depth:0+cropped')
  np.testing.assert_array_equal(cropped.seen, seen[0][:, -33:])
  assert row['value'] == 0


@pytest.mark.parametrize('control, scale', [('depth:0', 1.0), ('depth:0.5+keys:4+scale:1.4', 1.4)])
def test_values_are_looked_for_at_a_scale_of_the_logits(control, scale):
  reader = Reader(200)
  retrieval.passkey(reader, plan('passkey'), 128, control)
  assert reader.scale == scale


class Half:
  """Right in all but the last token of every other example."""

  def hits(self, windows, last, scale=1.0):
    right = np.ones((len(windows), last), bool)
    right[::2, -1] = False
    return right


def test_exact_and_teacher_forced_answers_are_kept_apart():
  chosen = plan('task', 'copy')
  exact = retrieval.task(Half(), chosen, 9, 'exact')
  teacher = retrieval.task(Half(), chosen, 9, 'teacher')
  assert exact['value'] == 0.5 and exact['unit'] == 'exact match' and exact['hits'] == 10
  assert teacher['value'] == 1 - 0.5 / 10 and teacher['unit'] == 'right tokens'
  assert exact['answer_tokens'] == 10 and exact['chance'] == 50.0**-9
  rows, _ = tasks.prompts('copy', 9, 20)
  assert len(exact['documents']) == len(rows) == 20


class Tells:
  """States that name the position up to `limit`, and nothing past it."""

  def __init__(self, limit):
    self.limit = limit

  def hidden(self, windows, layer, initial):
    pos = np.arange(windows.shape[1] - 1)
    told = (pos[:, None] == np.arange(self.limit)[None]).astype(np.float32)
    return np.repeat(told[None], len(windows), 0)


def test_a_probe_reads_positions_that_are_there_and_no_others():
  row = measures.MEASURES['probe'](Tells(32), plan('probe'), 32, 'layer:2')
  assert row['value'] < 0.05 and row['unit'] == 'tokens'
  assert set(row['documents']) == {'b'}  # it has learned on the other
  half = measures.MEASURES['probe'](Tells(16), plan('probe'), 32, 'layer:2')
  assert max(half['by_position'][:16]) < 0.5 and np.mean(half['by_position'][16:]) > 3
  blind = measures.MEASURES['probe'](Tells(1), plan('probe'), 32, 'layer:2')
  assert blind['value'] > 0.7 * blind['chance'] > 5


def test_hidden_states_are_those_of_a_shorter_model(subject):
  windows = np.random.default_rng(0).integers(0, 256, (3, 20))
  embedded, first, second = (subject.hidden(windows, layer, False) for layer in (0, 1, 2))
  assert embedded.shape == first.shape == second.shape == (3, 19, 16)
  logits = second @ np.asarray(subject.params['embedding']).T
  np.testing.assert_array_equal(logits.argmax(-1) == windows[:, 1:], subject.hits(windows, 19))
  same = embedded[windows[:, :-1] == windows[0, 0]]
  assert np.ptp(same, axis=0).max() < 1e-6 and np.abs(first - embedded).max() > 1e-2
  with pytest.raises(ValueError, match='no layer 3; the model has 2'):
    subject.hidden(windows, 3, False)
