"""Tasks of a size, generated on the fly: trained on small sizes, tested on larger ones.

An example is a prompt and its answer, both bytes; its size n counts symbols, digits or pairs. No
training prompt is a test prompt: a hash of task and prompt decides which of the two it is.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

END = b'.'  # ends every answer
TEST_SHARE = 10  # one prompt in so many is for testing
TRIES = 1_000
SYMBOLS = bytes(range(48, 98))  # 50, in the order of `sort`
KEYS = SYMBOLS[10:]  # those that are not digits
Draw = Callable[[np.random.Generator, int], tuple[bytes, bytes]]


@dataclasses.dataclass(frozen=True)
class Task:
  """One task.

  Attributes:
    unit: what n counts.
    draw: (rng, n) -> prompt and answer, uniform over the strings of size n.
    chance: n -> share of exact matches when guessing.
    most: largest n; None for no bound.
  """

  unit: str
  draw: Draw
  chance: Callable[[int], float]
  most: int | None = None


def _symbols(rng: np.random.Generator, n: int) -> bytes:
  return bytes(rng.choice(np.frombuffer(SYMBOLS, np.uint8), n))


def _of_symbols(answer: Callable[[bytes], bytes]) -> Task:
  """A task that maps n symbols to n symbols."""

  def draw(rng, n):
    text = _symbols(rng, n)
    return text + b'>', answer(text)

  return Task('symbols', draw, lambda n: 50.0**-n)


def _digits(number: int, n: int) -> bytes:
  return str(number).zfill(n).encode()


def _numbers(rng, n) -> tuple[int, int]:
  return tuple(int(''.join(map(str, rng.integers(0, 10, n)))) for _ in range(2))


def _addition(rng, n):
  a, b = _numbers(rng, n)
  return _digits(a, n) + b'+' + _digits(b, n) + b'=', _digits(a + b, n + 1)


def _addition_reversed(rng, n):
  a, b = _numbers(rng, n)
  prompt = _digits(a, n)[::-1] + b'+' + _digits(b, n)[::-1] + b'='
  return prompt, _digits(a + b, n + 1)[::-1]


def _modular_sum(rng, n):
  digits = rng.integers(0, 10, n)
  return bytes(48 + digits.astype(np.uint8)) + b'=', b'%d' % (digits.sum() % 10)


def _parity(rng, n):
  bits = rng.integers(0, 2, n)
  return bytes(48 + bits.astype(np.uint8)) + b'=', b'%d' % (bits.sum() % 2)


def _recall(rng, n):
  """N pairs of a key and a value, all keys different; one key's value is asked for."""
  keys = rng.permutation(np.frombuffer(KEYS, np.uint8))[:n]
  values = rng.integers(48, 58, n).astype(np.uint8)
  asked = rng.integers(n)
  prompt = np.stack([keys, values], 1).tobytes() + b'>' + bytes(keys[asked : asked + 1])
  return prompt, bytes(values[asked : asked + 1])


def _flip_flop(rng, n):
  """N instructions, a letter (write or ignore) and a bit each; asks for the last written bit."""
  kinds = np.where(rng.random(n) < 0.2, ord('w'), ord('i')).astype(np.uint8)
  kinds[0] = ord('w')
  bits = rng.integers(48, 50, n).astype(np.uint8)
  written = bits[np.flatnonzero(kinds == ord('w'))[-1]]
  return np.stack([kinds, bits], 1).tobytes() + b'r', bytes([written])


def _same(share: float) -> Callable[[int], float]:
  return lambda n: share


TASKS = {
  'copy': _of_symbols(lambda text: text),
  'reverse': _of_symbols(lambda text: text[::-1]),
  'sort': _of_symbols(lambda text: bytes(sorted(text))),
  'addition': Task('digits', _addition, lambda n: 0.5 * 10.0**-n),
  'addition_reversed': Task('digits', _addition_reversed, lambda n: 0.5 * 10.0**-n),
  'modular_sum': Task('digits', _modular_sum, _same(0.1)),
  'parity': Task('bits', _parity, _same(0.5)),
  'recall': Task('pairs', _recall, _same(0.1), most=len(KEYS)),
  'flip_flop': Task('instructions', _flip_flop, _same(0.5)),
}


def is_test(name: str, prompt: bytes) -> bool:
  """Whether a prompt is for testing, by its hash."""
  digest = hashlib.blake2b(name.encode() + b':' + prompt, digest_size=8).digest()
  return int.from_bytes(digest, 'big') % TEST_SHARE == 0


def example(name: str, n: int, test: bool, rng: np.random.Generator) -> tuple[bytes, bytes]:
  """Prompt and answer of size n, END included, of the test or the training side.

  Raises:
    ValueError: that side has hardly a string of this size.
  """
  for _ in range(TRIES):
    prompt, answer = TASKS[name].draw(rng, n)
    if is_test(name, prompt) == test:
      return prompt, answer + END
  side = 'test' if test else 'training'
  raise ValueError(
    f'task {name!r} has hardly a {side} string of size {n}: {TRIES} draws found none. Choose a '
    'larger size.'
  )


def tokens(name: str, n: int) -> int:
  """Tokens of an example of size n, the same for all: prompt, answer and END.

  Raises:
    ValueError: the task has no examples so large.
  """
  most = TASKS[name].most
  if most is not None and n > most:
    raise ValueError(
      f'task {name!r} has examples of {most} {TASKS[name].unit} at most, and {n} are asked for; '
      'choose a smaller data.task_size, or eval.lengths that end there.'
    )
  prompt, answer = TASKS[name].draw(np.random.default_rng(0), n)
  return len(prompt) + len(answer) + 1


def prompts(name: str, n: int, count: int) -> tuple[np.ndarray, int]:
  """`count` test examples of size n, always the same: int32 [count, tokens], and answer tokens."""
  rng = np.random.default_rng([n, 1])
  drawn = [example(name, n, True, rng) for _ in range(count)]
  rows = np.stack([np.frombuffer(p + a, np.uint8) for p, a in drawn]).astype(np.int32)
  return rows, len(drawn[0][1])


def fill(name: str, longest: int, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
  """Training examples of sizes drawn uniformly from 1 .. `longest`, padded on the right.

  Returns:
    'tokens' int32 [rows, L + 1] and 'weights' float32 [rows, L + 1], 1 where an answer is scored.
  """
  width = tokens(name, longest)
  batch = {
    'tokens': np.zeros((rows, width), np.int32),
    'weights': np.zeros((rows, width), np.float32),
  }
  for row in range(rows):
    size = int(rng.integers(1, longest + 1))
    prompt, answer = example(name, size, False, rng)
    text = np.frombuffer(prompt + answer, np.uint8)
    batch['tokens'][row, : text.size] = text
    batch['weights'][row, len(prompt) : text.size] = 1
  return batch
