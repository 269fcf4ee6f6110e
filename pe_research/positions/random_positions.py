"""Positions drawn at random for each training sequence, so that short texts cover long ranges.

Evaluation and generation count positions from 0, as with any scheme.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pe_research.common import checks, keys
from pe_research.positions import base, interpolation, rotary

SPAN = 2048  # positions; the published value of randomized positions
TEXTS = ('parted', 'whole')


def subset(key: jax.Array, rows: int, length: int, span: int) -> jax.Array:
  """A uniformly drawn subset of 0 .. span - 1, ascending: int32 [rows, length].

  The indices of the `length` largest of `span` random numbers: without replacement.
  """
  order = jax.random.uniform(key, (rows, span))
  return jnp.sort(jax.lax.top_k(order, length)[1].astype(jnp.int32), axis=-1)


def chunk_of(key: jax.Array, rows: int, length: int, chunks: int) -> jax.Array:
  """Index of the chunk of each token, for `chunks` cut at random places: int32 [rows, length]."""
  cuts = 1 + subset(key, rows, chunks - 1, length - 1)
  return (jnp.arange(length)[None, :, None] >= cuts[:, None]).sum(-1)


def offsets(key: jax.Array, rows: int, most: int | jax.Array, chunks: int) -> jax.Array:
  """0 for the first chunk, then uniform in {the one before, ..., most}: int32 [rows, chunks].

  Source: arXiv:2309.10400, sec. 3.2, for u_i and v_i. `most` is a number, or int32 [rows].
  """
  share = jax.random.uniform(key, (rows, chunks - 1))

  def widen(before, share):
    offset = before + jnp.floor(share * (most - before + 1)).astype(jnp.int32)
    return offset, offset

  _, others = jax.lax.scan(widen, jnp.zeros(rows, jnp.int32), share.T)
  return jnp.concatenate([jnp.zeros((rows, 1), jnp.int32), others.T], axis=1)


def skips(key: jax.Array, rows: int, length: int, span: int, chunks: int) -> jax.Array:
  """Added to positions 0 .. length - 1 so that they reach into `span`: int32 [rows, length].

  A sequence is cut into `chunks`, which skip at most span - length (arXiv:2309.10400, eq. 4).
  """
  cut, widths = jax.random.split(key)
  skipped = offsets(widths, rows, span - length, chunks)
  return jnp.take_along_axis(skipped, chunk_of(cut, rows, length, chunks), axis=1)


def skip_text(key: jax.Array, tokens: jax.Array, beyond: jax.Array, chunks: int) -> jax.Array:
  """The chunks that `skips` cuts with the same key, with text left out between: [rows, L + 1].

  Each chunk begins where the one before it ended or later, within the available text
  (arXiv:2309.10400, eq. 5). The target of a chunk's last token is the first token of the next
  chunk; in the last chunk it is the next token of the text. Arguments as for `draw_text`.
  """
  rows, length = tokens.shape[0], tokens.shape[1] - 1
  chunk = chunk_of(jax.random.split(key)[0], rows, length, chunks)
  chunk = jnp.concatenate([chunk, chunk[:, -1:]], axis=1)
  left = offsets(keys.key(key, 'text'), rows, (beyond >= 0).sum(-1), chunks)
  place = jnp.arange(length + 1)[None] + jnp.take_along_axis(left, chunk, axis=1)
  return jnp.take_along_axis(jnp.concatenate([tokens, beyond], axis=1), place, axis=1)


class Randomized(rotary.RoPE):
  """RoPE at positions drawn without replacement from a range longer than any text, in order.

  One draw for each sequence and step, the same in all layers.

  Paper and code: the authors' code draws in every layer, one set for a batch, and also in tests;
  their models are encoders.
  """

  label = 'Randomized RoPE'
  paper = 'arXiv:2305.16843, sec. 3.1'
  formula = 'RoPE, trained at positions drawn from 0 … span − 1, in order'
  draws_positions = True

  def __init__(self, dims: base.Dims, *, span: int = SPAN, **rope):
    """Chooses the range.

    Args:
      dims: sizes of the model.
      span: positions to draw from.
      **rope: as in RoPE.
    """
    super().__init__(dims, **rope)
    if span < dims.length:
      raise ValueError(
        f'position.span is {span} positions; it must be at least the {dims.length} tokens of a '
        'sequence.'
      )
    self.check_length(span)
    self.span = span

  def trained_distances(self, length: int) -> int:
    """The whole span, at every length."""
    return self.span

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """RoPE's base for the published span, the range of training."""
    return super().matched(SPAN)

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return subset(key, rows, pos.shape[1], self.span)


class RandPos(interpolation.PI):
  """PI fine-tuned on short texts at positions drawn from the whole target length.

  Paper and code: no known difference.
  """

  label = 'RandPos'
  paper = 'arXiv:2309.10400, sec. 4.1'
  formula = 'θᵢ / s, trained at positions drawn from 0 … s L − 1, in order'
  draws_positions = True

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return subset(key, rows, pos.shape[1], self.target_length)


class PoSE(interpolation.PI):
  """PI fine-tuned on short texts whose chunks skip positions, up to the target length.

  The text skips too: the chunks are from a longer text, as long as the target length. Text and
  positions are cut at the same places; how much each skips is drawn separately.

  Paper and code: the authors' code has two chunks, of which the first has at most half of the
  tokens; here a cut is anywhere, as in the paper. The paper does not say how long a text is: in the
  code it is the first 5 L tokens of a document, here the target length from anywhere in one, or
  what is left of it. The code draws once for an example, here every step draws. Text 'whole' is
  the v_i = 0 of table 4, with a perplexity of 4.68 instead of 4.60 at 16k.
  """

  label = 'PoSE'
  paper = 'arXiv:2309.10400, sec. 3.2'
  formula = 'θᵢ / s, trained at positions m + u on tokens m + v, u and v a skip for each chunk'
  draws_positions = True

  def __init__(self, dims: base.Dims, *, chunks: int = 2, text: str = 'parted', **stretched):
    """Chooses the number of chunks, and their text.

    Args:
      dims: sizes of the model.
      chunks: of a sequence; 2 is the published value.
      text: 'parted': text is left out between chunks; 'whole': only positions skip.
      **stretched: as in Stretched.
    """
    super().__init__(dims, **stretched)
    if not 2 <= chunks <= dims.length:
      raise ValueError(
        f'position.chunks is {chunks}; it must be 2 to {dims.length}, the tokens of a sequence.'
      )
    checks.choose('position.text', text, TEXTS)
    self.chunks, self.text = chunks, text
    self.reads_beyond = self.target_length - dims.length if text == 'parted' else 0

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return pos + skips(key, rows, pos.shape[1], self.target_length, self.chunks)

  def draw_text(self, tokens: jax.Array, beyond: jax.Array, key: jax.Array) -> jax.Array:
    """int32 [rows, L + 1]."""
    return skip_text(key, tokens, beyond, self.chunks)
