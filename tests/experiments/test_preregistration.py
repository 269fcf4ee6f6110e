"""What a claim asks, and since when: words may change, thresholds may not."""

import json
import subprocess

import claim_fixtures
import pytest

from experiments.studies import preregistration

FILE = '''"""A claim."""

from experiments.studies.terms import Claim, Expect

PAPER = {4: '+1'}


def effect(at):
  """Of a length."""
  return at - 1


CLAIM = Claim(
  id='T01',
  title='A toy.',
  tests=(Expect('a', effect(4), above=0.5, paper=PAPER[4]),),
  traps=('None.',),
)
'''


@pytest.mark.parametrize('before, after, same', [
  ('A toy.', 'Another.', True),
  ("traps=('None.',)", "traps=('One.',)", True),
  ("Expect('a'", "Expect('b'", True),
  ("{4: '+1'}", "{4: '+2'}", True),
  ('above=0.5, paper=PAPER[4]', 'paper=PAPER[4], above=0.5', True),
  ('"""Of a length."""', '"""Another."""', True),
  ('above=0.5', 'above=0.4', False),
  ('above=0.5', 'below=0.5', False),
  ('at - 1', 'at - 2', False),
  ('effect(4)', 'effect(8)', False),
])  # fmt: skip
def test_words_are_aside_and_numbers_are_asked(before, after, same):
  assert before in FILE
  other = FILE.replace(before, after)
  assert (preregistration.question(other) == preregistration.question(FILE)) == same


COMMON = """
WORD, LIMIT = 'a word', 0.5
BASE = {'rope': Model('rope', label='RoPE'), 'else': 1}
LEFT = 3


def nll(model):
  return Quantity(model, BASE)


def effect(model):
  return nll(model)


def left(model):
  return Quantity(model, LEFT)
"""
USES = "CLAIM = Claim(tests=(Expect('a', effect('rope'), above=LIMIT, unit=WORD),))"


@pytest.mark.parametrize('before, after, same', [
  ('LIMIT = ', 'BOUND = ', False),
  ('0.5', '0.4', False),
  ("Model('rope', label='RoPE')", "Model('alibi', label='RoPE')", False),
  ('Quantity(model, BASE)', 'Quantity(model, BASE, 2)', False),
  ("label='RoPE'", "label='Rotary'", True),
  ('LEFT = 3', 'LEFT = 4', True),
  ('Quantity(model, LEFT)', 'Quantity(LEFT)', True),
  ("WORD, LIMIT = 'a word', 0.5", "LIMIT = 0.5\nWORD = 'a word'", True),
])  # fmt: skip
def test_what_a_claim_takes_from_the_common_words_is_asked_too(before, after, same):
  assert before in COMMON
  other = preregistration.question(USES, COMMON.replace(before, after))
  assert (other == preregistration.question(USES, COMMON)) == same
  plain = USES.replace('LIMIT', '0.5').replace('WORD', "'a word'")
  assert preregistration.question(plain, COMMON) == preregistration.question(USES, COMMON)


@pytest.fixture
def repository(tmp_path, monkeypatch):
  """Of one claim's file; commits what it is given, and says by which commit."""
  monkeypatch.setattr(preregistration, 'EXPERIMENTS', tmp_path)
  for folder in ('claims', 'studies'):
    (tmp_path / folder).mkdir()
  verdict = tmp_path / 'results' / 'toy' / 'T01.verdict.json'
  verdict.parent.mkdir(parents=True)
  git = lambda *words: subprocess.run(
    ['git', '-C', tmp_path, '-c', 'user.name=x', '-c', 'user.email=x@x', *words],
    check=True, capture_output=True, text=True,
  ).stdout.strip()  # fmt: skip
  git('init', '-q')

  def commit(text, came_to=None):
    (tmp_path / 'claims' / 'toy_t01.py').write_text(text)
    if came_to:
      verdict.write_text(json.dumps({'verdict': came_to}))
    git('add', '-A')
    git('commit', '-q', '-m', 'x')
    return git('rev-parse', 'HEAD')

  return commit


def test_a_threshold_that_is_moved_after_the_runs_is_said_to_be(repository, tmp_path):
  claim = claim_fixtures.claim()
  old = repository(FILE.replace('0.5', '0.4'))
  first = repository(FILE)
  words = repository(FILE.replace('A toy.', 'Another.'))
  found = preregistration.since(claim, [first, words])
  assert found == {'commit': first, 'clean': True, 'changed_after': [], 'otherwise': {}}
  assert preregistration.since(claim, [old, words])['changed_after'] == [old]
  assert preregistration.since(claim, [None, 'f' * 40])['changed_after'] == ['None', 'f' * 40]
  common = tmp_path / 'studies' / 'terms.py'
  common.write_text('def Expect(*said, above):\n  return above\n')
  assert preregistration.since(claim, [words]) == {
    'commit': None, 'clean': False, 'changed_after': [words], 'otherwise': {},
  }  # fmt: skip
  common.unlink()
  (tmp_path / 'claims' / 'toy_t01.py').write_text(FILE.replace('0.5', '0.6'))
  assert preregistration.since(claim) == {
    'commit': None, 'clean': False, 'changed_after': [], 'otherwise': {},
  }  # fmt: skip


def test_common_words_that_move_and_rename_a_module_are_the_same_words(repository, tmp_path):
  claim, words = (
    claim_fixtures.claim(),
    'from a import old\n\n\ndef Expect(*said):\n  return old.rule(said)\n',
  )
  before, after = (tmp_path / folder / 'terms.py' for folder in ('claims', 'studies'))
  before.write_text(words)
  first = repository(FILE)
  before.unlink()
  after.write_text(words.replace('old', 'fresh'))
  moved = repository(FILE)
  found = preregistration.since(claim, [first, moved])
  assert found['commit'] == first and found['clean'] and not found['changed_after']
  after.write_text(words.replace('rule', 'other'))
  assert preregistration.since(claim, [moved])['changed_after'] == [moved]


def test_verdicts_on_another_question_stay_told(repository):
  claim = claim_fixtures.claim()
  asked = FILE.replace('0.5', '0.4')
  repository(asked)
  first, second = repository(asked, 'refuted'), repository(asked, 'not run')
  since = repository(FILE)
  repository(FILE, 'reproduced')
  found = preregistration.since(claim, scale='toy')
  assert found['commit'] == since and found['otherwise'] == {first: 'refuted'}
  assert second not in found['otherwise'] and not preregistration.since(claim)['otherwise']


DERIVED = """BAR = 0.01


def reach(rows):
  return rows + BAR


def other(rows):
  return rows
"""


@pytest.mark.parametrize('before, after, same', [
  ('0.01', '0.02', False),
  ('rows + BAR', 'rows - BAR', False),
  ('  return rows\n', '  return 2 * rows\n', True),
])  # fmt: skip
def test_what_makes_a_number_of_measurements_is_asked_too(before, after, same):
  uses = "CLAIM = Claim(tests=(Expect('a', Quantity('rope', of='reach'), above=0),))"
  assert before in DERIVED
  other = preregistration.question(uses, '', DERIVED.replace(before, after))
  assert (other == preregistration.question(uses, '', DERIVED)) == same


def test_a_claims_own_word_is_the_one_that_it_means():
  own = f'LIMIT = 3\n{USES}'
  assert preregistration.question(own, COMMON) == preregistration.question(
    own, COMMON.replace('0.5', '0.4')
  )


def test_without_git_nothing_is_known(tmp_path, monkeypatch):
  monkeypatch.setattr(preregistration, 'EXPERIMENTS', tmp_path)
  (tmp_path / 'claims').mkdir()
  (tmp_path / 'claims' / 'toy_t01.py').write_text(FILE)
  assert preregistration.since(claim_fixtures.claim()) == {
    'commit': None, 'clean': False, 'changed_after': [], 'otherwise': {},
  }  # fmt: skip
