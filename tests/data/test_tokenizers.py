"""Tokenizers give every byte back, and say how many each token stands for."""

import hashlib
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pe_research.data import tokenizers

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [
  b'the cat sat on the mat\nand the dog sat on the cat\n' * 20,
  'naïve café — the café is naïve\n    indented    twice\n'.encode() * 20,
]
VOCAB = 320


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tokenizer') / 'bpe.model')


@pytest.fixture(scope='module')
def pieces(path):
  return tokenizers.SentencePiece(path, vocab=VOCAB, documents=DOCUMENTS)


def check(tokenizer, data, dtype):
  ids = tokenizer.encode(data)
  assert ids.dtype == dtype
  assert tokenizer.decode(ids) == data
  assert tokenizer.token_bytes[ids].sum() == len(data)


def check_interface(tokenizer):
  assert tokenizer.token_bytes.shape == (tokenizer.vocab,)
  assert tokenizer.token_bytes.dtype == np.int32
  every = np.arange(tokenizer.vocab)
  assert [len(tokenizer.decode([i])) for i in every] == tokenizer.token_bytes.tolist()
  assert pickle.loads(pickle.dumps(tokenizer)).decode(every) == tokenizer.decode(every)


@given(st.binary())
def test_bytes_round_trip(data):
  check(tokenizers.Bytes(), data, np.uint8)


awkward = st.sampled_from(['▁', '▁▁ ', '<unk>', '<0x41>', '\0', '\r\n\t', '  ', '\ufeff', '⁇', 'é́'])
texts = st.lists(st.text(st.characters(codec='utf-8')) | awkward | st.just('the cat')).map(''.join)


@settings(deadline=None, max_examples=200)
@given(text=texts)
@example(text='▁ ▁a▁')
@example(text=DOCUMENTS[1].decode())
def test_pieces_round_trip(pieces, text):
  check(pieces, text.encode(), np.int32)


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, VOCAB - 1)))
def test_every_sequence_of_ids_stands_for_the_bytes_it_counts(pieces, ids):
  ids = np.array(ids, int)
  assert len(pieces.decode(ids)) == pieces.token_bytes[ids].sum()


def test_interface(pieces):
  check_interface(tokenizers.Bytes())
  check_interface(pieces)
  assert (tokenizers.Bytes().vocab, pieces.vocab) == (256, VOCAB)


def test_pieces_are_longer_than_bytes(pieces):
  assert len(pieces.encode(DOCUMENTS[0])) < len(DOCUMENTS[0]) / 3


def test_model_file_is_kept_and_named_by_its_hash(pieces, path):
  assert pieces.fingerprint == hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
  again = tokenizers.SentencePiece(path)
  assert (again.vocab, again.fingerprint) == (VOCAB, pieces.fingerprint)
  tokenizers.SentencePiece(path, vocab=VOCAB, documents=DOCUMENTS)
  assert {p.name for p in pathlib.Path(path).parent.iterdir()} == {
    'bpe.model',
    'bpe.model.json',
    'bpe.model.lock',
  }


def test_training_is_deterministic_in_another_process_and_place(pieces, tmp_path):
  code = (
    'import sys; from pe_research.data import tokenizers; '
    'from tests.data.test_tokenizers import *; '
    'print(tokenizers.SentencePiece(sys.argv[1], vocab=VOCAB, documents=DOCUMENTS).fingerprint)'
  )
  env = os.environ | {'PYTHONPATH': str(ROOT)}
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', code, str(tmp_path / name)], env=env, stdout=subprocess.PIPE, text=True
    )
    for name in ('same', 'same', 'other')
  ]
  prints = [process.communicate(timeout=60)[0].strip() for process in processes]
  assert prints == [pieces.fingerprint] * 3


def test_long_documents_without_newlines_are_trained_on(tmp_path):
  documents = [b'abracadabra ' * 2000]
  model = tokenizers.SentencePiece(str(tmp_path / 'm'), vocab=275, documents=documents)
  assert model.token_bytes.max() >= len('abracadabra')


def test_bad_ids(pieces):
  for tokenizer in (tokenizers.Bytes(), pieces):
    last = tokenizer.vocab - 1
    for bad in (-1, tokenizer.vocab):
      with pytest.raises(ValueError, match=rf'token {bad} is not .*: ids go from 0 to {last}\.'):
        tokenizer.decode([0, bad])
    assert tokenizer.decode([]) == b''


def test_documents_that_are_not_text(pieces, tmp_path):
  with pytest.raises(ValueError, match=r'1901-Nobody-1 is not UTF-8: byte 2 is 0xe9.*Convert the'):
    pieces.encode(b'ab\xe9', '1901-Nobody-1')
  with pytest.raises(ValueError, match=r'document 1 is not UTF-8'):
    tokenizers.SentencePiece(str(tmp_path / 'm'), vocab=300, documents=[b'a', b'\xff'])
  assert not (tmp_path / 'm').exists()


@pytest.mark.parametrize(
  'vocab, message',
  [
    (100, r'vocabulary of 100 tokens is too small.*need 258\. Raise data\.vocab'),
    (260, r'2 documents do not give a vocabulary of 260 tokens: .*260 vs 2\d\d\. Increase'),
    (
      5000,
      r'2 documents do not give a vocabulary of 5000 tokens: .*a value <= \d+\. Set data\.vocab',
    ),
  ],
)
def test_vocabularies_that_cannot_be_trained(tmp_path, vocab, message):
  with pytest.raises(ValueError, match=message):
    tokenizers.SentencePiece(str(tmp_path / 'm'), vocab=vocab, documents=DOCUMENTS)


def test_model_files_that_do_not_fit(pieces, path, tmp_path):
  with pytest.raises(ValueError, match=r"no tokenizer model '/no/m': give vocab and documents"):
    tokenizers.SentencePiece('/no/m')
  with pytest.raises(ValueError, match=r'has 320 tokens; asked for 400\. Give another path'):
    tokenizers.SentencePiece(path, vocab=400)
  with pytest.raises(ValueError, match=r'was trained on documents with sha256 \w+; these have \w+'):
    tokenizers.SentencePiece(path, vocab=VOCAB, documents=DOCUMENTS[::-1])
  (tmp_path / 'm').write_bytes(b'not a model')
  with pytest.raises(ValueError, match=r"/m' is not a sentencepiece model: .*Give another path"):
    tokenizers.SentencePiece(str(tmp_path / 'm'))
  with pytest.raises(ValueError, match=r'no text in 0 documents.*at least 1 line'):
    tokenizers.SentencePiece(str(tmp_path / 'n'), vocab=300, documents=[])
