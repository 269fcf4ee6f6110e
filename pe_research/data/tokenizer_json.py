"""The tokenizer.json of a published model, read through Hugging Face's `tokenizers`."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from pe_research.common import checks, digest
from pe_research.data.tokenizers import SPACE_MARK, checked, text_of

LARGEST = 2**24  # ids; published vocabularies have up to 2^18


class Json:
  """The file's ids, without the special tokens that it would add around a text.

  Bytes are counted as tokens decode: if the file normalises (NFC, a leading space), they are those
  of the normalised text. A text whose tokens do not give that back is refused: its bytes would be
  counted wrong. vocab is the model's, which may have rows for no token.
  """

  def __init__(self, path: str, vocab: int):
    """Opens the file.

    Args:
      path: of a tokenizer.json.
      vocab: ids of the model, at least as many as the file has.

    Raises:
      ValueError: no such file, more ids than the model has, or a kind without known bytes.
    """
    import tokenizers  # bytes need no such library

    checks.at_most('the vocabulary of the model', vocab, LARGEST, 'tokens')
    try:
      text = pathlib.Path(path).read_text(encoding='utf-8')
      self._tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # its Rust side raises bare exceptions
      raise ValueError(f'{path} is not a tokenizer.json: {error}.') from error
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    pieces = self._tokenizer.get_vocab(with_added_tokens=True)
    added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
    if beyond := {piece: i for piece, i in pieces.items() if i >= vocab and piece not in added}:
      piece = max(beyond, key=beyond.get)
      raise ValueError(
        f'{path} has the token {piece!r} with id {beyond[piece]}, and the model has {vocab} rows: '
        'they are not of one model. Put the tokenizer.json of the model there.'
      )
    spell = _speller(path, json.loads(text))
    self._bytes = [b''] * vocab
    for piece, i in pieces.items():
      if i < vocab:
        self._bytes[i] = piece.encode() if piece in added else spell(piece)
    self.vocab, self.path = vocab, path
    self.token_bytes = np.array([len(token) for token in self._bytes], np.int32)
    self.fingerprint = digest.of_bytes(f'{vocab} {text}'.encode())

  def encode(self, data: bytes, name: str = 'the document') -> np.ndarray:
    """Ids int32 [L]; ValueError with `name` if data is not UTF-8."""
    text = text_of(data, name)
    encoding = self._tokenizer.encode(text, add_special_tokens=False)
    ids = np.array(encoding.ids, np.int32)
    if ids.size and ids.max() >= self.vocab:
      token = encoding.tokens[int(ids.argmax())]
      raise ValueError(
        f'{name} has {token!r}, an added token with id {ids.max()}, and the model has {self.vocab} '
        'rows: take it out of the text.'
      )
    self._check_whole(text, self.decode(ids), name)
    return ids

  def _check_whole(self, text: str, spelled: bytes, name: str) -> None:
    """Raises ValueError unless the tokens spell the text, as the file normalises it."""
    if spelled == text.encode():
      return
    normalizer = self._tokenizer.normalizer
    wanted = (normalizer.normalize_str(text) if normalizer else text).replace(SPACE_MARK, ' ')
    whole = wanted.encode()
    if spelled in (whole, b' ' + whole):  # some put a space before a text
      return
    start = int(spelled[:1] == b' ' != whole[:1])
    pairs = enumerate(zip(whole, spelled[start:], strict=False))
    at = next((i for i, (one, other) in pairs if one != other), len(spelled) - start)
    raise ValueError(
      f'{self.path} does not give {name} back: from byte {at} on, {whole[at : at + 12]!r} becomes '
      f'{spelled[start + at : start + at + 12]!r}. Bits per byte would be of another text; take '
      'that out of the text, or use another tokenizer.'
    )

  def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
    """The bytes of ids [L]."""
    return b''.join([self._bytes[i] for i in checked(ids, self.vocab).tolist()])


def _speller(path: str, file: dict[str, Any]):
  """A function from a token of the vocabulary to its bytes."""
  kinds = json.dumps([file.get('decoder'), file.get('pre_tokenizer')])
  if '"ByteLevel"' in kinds:
    bytes_of = {char: byte for byte, char in enumerate(byte_characters())}

    def spell(piece: str) -> bytes:
      if odd := [char for char in piece if char not in bytes_of]:
        raise ValueError(f'{path} has the token {piece!r}, in which {odd[0]!r} is not a byte.')
      return bytes(bytes_of[char] for char in piece)

    return spell
  if '"ByteFallback"' in kinds or '"Metaspace"' in kinds:
    return _spell_pieces
  raise ValueError(
    f'{path} neither spells bytes (ByteLevel, ByteFallback) nor marks spaces (Metaspace), so what '
    'its tokens stand for is not known; use a model with such a tokenizer.'
  )


def _spell_pieces(piece: str) -> bytes:
  """Bytes of a token as sentencepiece writes it: <0x0A>, or text with marks for spaces."""
  if len(piece) == 6 and piece.startswith('<0x') and piece.endswith('>'):
    return bytes([int(piece[3:5], 16)])
  return piece.replace(SPACE_MARK, ' ').encode()


def byte_characters() -> list[str]:
  """The 256 characters that stand for bytes in byte-level vocabularies (GPT-2).

  Printable bytes stand for themselves; the others, in order, are the characters from U+0100 on.
  """
  printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = [byte for byte in range(256) if byte not in printable]
  return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def of_bytes() -> str:
  """A tokenizer.json in which every byte is its own id."""
  import tokenizers

  vocab = {char: byte for byte, char in enumerate(byte_characters())}
  made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  return made.to_str(pretty=True)
