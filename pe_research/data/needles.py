"""Needles: keys with values hidden in a text, one of which is asked for at its end.

'<A=7391>' hides a value, and '<A=' at the end asks for '7391>'.
"""

import itertools
import string
from collections.abc import Mapping

import numpy as np

from pe_research.data import tokenizers

DIGITS = 4
KEYS = string.ascii_uppercase.encode()
CHANCE = 10.0**-DIGITS
_SIZES: dict[str, tuple[int, int]] = {}  # tokens of a needle and of its question, by tokenizer


class Needles:
  """Plants needles in windows of tokens."""

  def __init__(self, tokenizer: tokenizers.Tokenizer):
    """Measures a needle; ValueError if the tokenizer encodes needles at different lengths."""
    self.tokenizer = tokenizer
    if tokenizer.fingerprint not in _SIZES:  # 0.1 s for bytes
      _SIZES[tokenizer.fingerprint] = self._sizes()
    self.size, question = _SIZES[tokenizer.fingerprint]
    self.answer = self.size - question  # tokens

  def _sizes(self) -> tuple[int, int]:
    # Every value of one key, and every key: a vocabulary may join some digits and not others.
    values = [(KEYS[0], b'%04d' % number) for number in range(10**DIGITS)]
    values += [(key, b'7391') for key in KEYS]
    lengths = {
      (len(needle), len(question)) if (needle[: len(question)] == question).all() else None
      for needle, question in itertools.starmap(self._encode, values)
    }
    if len(lengths) != 1 or None in lengths:
      raise ValueError(
        "needles need a tokenizer that spells '<A=7391>' digit by digit; set data.tokenizer='bytes'"
      )
    return lengths.pop()

  def _encode(self, key: int, value: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a needle and of the question for it."""
    question = b'<%c=' % key
    return self.tokenizer.encode(question + value + b'>'), self.tokenizer.encode(question)

  def plant(
    self,
    window: np.ndarray,
    rng: np.random.Generator,
    keys: int = 1,
    depth: float | None = None,
    again: int = 0,
  ) -> None:
    """Overwrites parts of a window [N + 1] by needles, and its end by a question with its answer.

    Args:
      window: tokens, changed in place; the last `answer` of them become the answer.
      rng: draws keys, values and places.
      keys: number of needles; one of them is asked for.
      depth: of that one: 0 at the beginning of the window, 1 right before the question; None
        draws it.
      again: number of further needles, copies of these; not with a depth.

    Raises:
      ValueError: they do not fit.
    """
    room = len(window) - self.size
    if not 1 <= keys <= len(KEYS) or room < keys * self.size:
      raise ValueError(
        f'{keys} needles of {self.size} tokens and a question do not fit in {len(window)} tokens; '
        f'use longer texts, or fewer needles (1 to {len(KEYS)}).'
      )
    names = rng.permutation(np.frombuffer(KEYS, np.uint8))[:keys]
    values = [b'%04d' % v for v in rng.integers(0, 10**DIGITS, keys)]
    encoded = [self._encode(int(k), v)[0] for k, v in zip(names, values, strict=True)]
    asked = int(rng.integers(keys))
    drawn = [*range(keys), *rng.integers(0, keys, again)]
    if again:
      drawn = rng.permutation(drawn).tolist()
    # The tokens between the needles, cut at random places into one part more than needles.
    spare = room - len(drawn) * self.size
    cuts = np.sort(rng.integers(0, spare + 1, len(drawn)))
    places = cuts + np.arange(len(drawn)) * self.size
    if depth is not None:
      places = self._around(round(depth * (room - self.size)), room, keys, rng)
      asked = 0
    for place, which in zip(places, drawn, strict=True):
      window[place : place + self.size] = encoded[which]
    window[room:] = encoded[asked]

  def _around(self, fixed: int, room: int, keys: int, rng) -> list[int]:
    """Places of needles that do not overlap, the first of them at `fixed`."""
    before, after = fixed // self.size, (room - fixed) // self.size - 1
    slots = [fixed - (i + 1) * self.size for i in range(before)]
    slots += [fixed + (i + 1) * self.size for i in range(after)]
    return [fixed, *rng.permutation(slots)[: keys - 1].tolist()] if keys > 1 else [fixed]

  def sow(self, batch: Mapping[str, np.ndarray], share: float, keys: int, seed: list[int]) -> None:
    """Plants up to `keys` needles in a share of the rows of a training batch, as `seed` says.

    Some are there more than once: a small model learns to look back from such rows, and hardly from
    single questions.
    """
    rng = np.random.default_rng(seed)
    for row in batch['tokens']:
      if rng.random() < share:
        own = int(rng.integers(1, keys + 1))
        most = len(row) // self.size - 1 - own
        self.plant(row, rng, own, again=int(rng.integers(0, max(most, 0) + 1)))
