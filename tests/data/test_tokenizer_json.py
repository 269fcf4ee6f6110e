"""tokenizer.json: ids, bytes of ids, and files whose bytes are not known."""

import json
import pathlib

import numpy as np
import pytest
import run_fixtures
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from pe_research.data import tokenizer_json

TEXT = 'naïve 🙂 citizens, fellow  citizens\n\tand so on — ▁ \x00'


def saved(made: tokenizers.Tokenizer, path) -> str:
  made.save(str(path))
  return str(path)


@pytest.fixture(scope='module')
def byte_level(tmp_path_factory) -> str:
  """As GPT-2 has it: merges over bytes, and a special token."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=['<end>'])
  made.train_from_iterator(['fellow citizens and fellow citizens so on'] * 9, trainer)
  made.post_processor = processors.TemplateProcessing(
    single='<end> $A', special_tokens=[('<end>', made.token_to_id('<end>'))]
  )
  made.enable_truncation(4)
  return saved(made, tmp_path_factory.mktemp('byte_level') / 'tokenizer.json')


@pytest.fixture(scope='module')
def sentencepiece_like(tmp_path_factory) -> str:
  """As Llama 2 has it: marks for spaces, bytes for what is not in the vocabulary."""
  pieces = ['<unk>', '<s>', *(f'<0x{b:02X}>' for b in range(256)), *'▁citzensflowad', '▁c', 'it']
  vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
  merges = [('▁', 'c'), ('i', 't')]
  made = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token='<unk>', byte_fallback=True))
  made.normalizer = normalizers.Sequence([normalizers.Replace(' ', '▁')])
  steps = [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()]
  made.decoder = decoders.Sequence(steps)
  made.add_special_tokens(['<s>'])
  return saved(made, tmp_path_factory.mktemp('pieces') / 'tokenizer.json')


def test_byte_level(byte_level):
  ours, theirs = tokenizer_json.Json(byte_level, 320), tokenizers.Tokenizer.from_file(byte_level)
  theirs.no_truncation()
  ids = ours.encode(TEXT.encode())
  assert ids.tolist() == theirs.encode(TEXT, add_special_tokens=False).ids
  assert theirs.token_to_id('<end>') not in ids
  assert ours.decode(ids) == TEXT.encode()
  assert ours.token_bytes[ids].sum() == len(TEXT.encode())
  assert ours.vocab == len(ours.token_bytes) == 320
  assert ours.token_bytes[theirs.token_to_id('<end>')] == 5
  assert ours.token_bytes[300:].sum() == 0


def test_pieces(sentencepiece_like):
  ours = tokenizer_json.Json(sentencepiece_like, 300)
  text = 'fellow citizens 🙂\n'
  ids = ours.encode(text.encode())
  theirs = tokenizers.Tokenizer.from_file(sentencepiece_like)
  assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids
  assert ours.decode(ids) == text.encode() == theirs.decode(ids.tolist()).encode()
  assert ours.token_bytes[ids].sum() == len(text.encode())


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_bytes_are_their_own_ids(text):
  made = tokenizers.Tokenizer.from_str(tokenizer_json.of_bytes())
  ids = made.encode(text, add_special_tokens=False).ids
  assert bytes(ids) == text.encode()
  assert made.decode(ids) == text


def test_byte_characters_are_those_of_gpt2():
  assert sorted(tokenizer_json.byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
  assert tokenizer_json.byte_characters()[32] == 'Ġ'
  assert tokenizer_json.byte_characters()[10] == 'Ċ'


def changed(path, tmp_path, change, vocab=300):
  """The tokenizer of a file after `change` of its JSON."""
  made = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  change(made)
  (tmp_path / 'changed.json').write_text(json.dumps(made), encoding='utf-8')
  return tokenizer_json.Json(str(tmp_path / 'changed.json'), vocab)


def test_a_text_that_tokens_do_not_give_back_is_refused(byte_level, tmp_path):
  character = tokenizer_json.byte_characters()[13]
  lacking = changed(byte_level, tmp_path, lambda made: made['model']['vocab'].pop(character))
  assert lacking.decode(lacking.encode(b'a\nb')) == b'a\nb'
  with pytest.raises(ValueError, match=r"give book back: from byte 1 on, b'.r.n.r.nb'"):
    lacking.encode(b'a\r\n\r\nb', 'book')
  lower = changed(byte_level, tmp_path, lambda made: made.update(normalizer={'type': 'Lowercase'}))
  assert lower.decode(lower.encode(b'And')) == b'and'  # as the file says


def test_an_added_token_that_the_model_has_no_row_for_is_refused_in_a_text_alone(
  byte_level, tmp_path
):
  rows = 278  # of the model; the token's id is the next
  own = {'id': rows, 'content': '<pad>', 'single_word': False, 'lstrip': False, 'rstrip': False,
         'normalized': False, 'special': True}  # fmt: skip
  padded = changed(byte_level, tmp_path, lambda made: made['added_tokens'].append(own), rows)
  assert padded.decode(padded.encode(b'and <pa')) == b'and <pa'
  with pytest.raises(ValueError, match="book has '<pad>', an added token with id 278"):
    padded.encode(b'and <pad>', 'book')


def test_the_file_is_utf_8_in_every_locale(byte_level):
  code = 'import sys; from pe_research.data import tokenizer_json as t; '
  code += r'print(t.Json(sys.argv[1], 300).encode(b"\xc3\xa9 and").tolist())'
  wanted = tokenizer_json.Json(byte_level, 300).encode('é and'.encode()).tolist()
  ascii_locale = {'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0', 'LC_ALL': 'C'}
  done = run_fixtures.run('-c', code, byte_level, **ascii_locale)
  assert done.stdout.strip() == str(wanted), done.stderr


def test_a_vocabulary_that_fits_no_memory_is_refused_at_once(byte_level):
  with pytest.raises(ValueError, match='vocabulary of the model is 2147483648 tokens'):
    tokenizer_json.Json(byte_level, 2**31)


def test_bad_files(byte_level, tmp_path):
  with pytest.raises(ValueError, match=r'not a tokenizer\.json'):
    tokenizer_json.Json(str(tmp_path / 'absent.json'), 300)
  (tmp_path / 'bad.json').write_text('{"model": ')
  with pytest.raises(ValueError, match=r'not a tokenizer\.json'):
    tokenizer_json.Json(str(tmp_path / 'bad.json'), 300)
  with pytest.raises(ValueError, match="'Ġand' with id 277, and the model has 200"):
    tokenizer_json.Json(byte_level, 200)
  file = json.loads(pathlib.Path(byte_level).read_text(encoding='utf-8'))
  words = file | {'pre_tokenizer': {'type': 'Whitespace'}, 'decoder': None}
  (tmp_path / 'words.json').write_text(json.dumps(words))
  with pytest.raises(ValueError, match='neither spells bytes'):
    tokenizer_json.Json(str(tmp_path / 'words.json'), 300)
  odd = json.loads(json.dumps(file))
  odd['model']['vocab']['中'] = 290
  (tmp_path / 'odd.json').write_text(json.dumps(odd))
  with pytest.raises(ValueError, match="'中' is not a byte"):
    tokenizer_json.Json(str(tmp_path / 'odd.json'), 300)
  ours = tokenizer_json.Json(byte_level, 300)
  with pytest.raises(ValueError, match='book is not UTF-8'):
    ours.encode(b'\xff', 'book')
  with pytest.raises(ValueError, match='token 300'):
    ours.decode(np.array([300]))
  assert ours.fingerprint != tokenizer_json.Json(byte_level, 301).fingerprint
