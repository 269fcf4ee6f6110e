"""Positions that are drawn anew for every training sequence, so that short texts show long ranges.

Evaluation and generation count on from 0, as with any scheme.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pe_research.positions import base, extend, rotary

SPAN = 2048  # positions; the published value of randomized positions


def subset(key: jax.Array, rows: int, length: int, span: int) -> jax.Array:
  """`length` of the positions 0 .. span - 1, each set as likely, ascending: int32 [rows, length].

  Without replacement, as the `length` largest of `span` random numbers.
  """
  order = jax.random.uniform(key, (rows, span))
  return jnp.sort(jax.lax.top_k(order, length)[1].astype(jnp.int32), axis=-1)


def skips(key: jax.Array, rows: int, length: int, span: int, chunks: int) -> jax.Array:
  """What to add to positions 0 .. length - 1 that they reach into `span`: int32 [rows, length].

  A sequence is cut at random places into `chunks`; the first skips nothing, and each other at
  least what the one before it does, at most span - length (arXiv:2309.10400, eqs. 3 and 4).
  """
  cut, widths = jax.random.split(key)
  cuts = 1 + subset(cut, rows, chunks - 1, length - 1)
  chunk = (jnp.arange(length)[None, :, None] >= cuts[:, None]).sum(-1)
  share = jax.random.uniform(widths, (rows, chunks - 1))

  def widen(before, share):
    skip = before + jnp.floor(share * (span - length - before + 1)).astype(jnp.int32)
    return skip, skip

  _, skipped = jax.lax.scan(widen, jnp.zeros(rows, jnp.int32), share.T)
  skipped = jnp.concatenate([jnp.zeros((rows, 1), jnp.int32), skipped.T], axis=1)
  return jnp.take_along_axis(skipped, chunk, axis=1)


class Randomized(rotary.RoPE):
  """RoPE at positions drawn without replacement from a range longer than any text, in order.

  One draw a sequence and step, the same in all layers.

  Paper and code: the authors' code draws in every layer, one set a batch, and also when it tests;
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
        f'position.span is {span} positions, and a sequence has {dims.length} tokens; raise it to '
        'at least as many.'
      )
    self.check_length(span)
    self.span = span

  def shown(self, length: int) -> int:
    """All of the span, whatever the length."""
    del length
    return self.span

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """RoPE's base for the published span, since that is what training shows."""
    del length
    return super().matched(SPAN)

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return subset(key, rows, pos.shape[1], self.span)


class RandPos(extend.PI):
  """PI fine-tuned on short texts at positions drawn from the whole target length.

  Paper and code: none known.
  """

  label = 'RandPos'
  paper = 'arXiv:2309.10400, sec. 4.1'
  formula = 'θᵢ / s, trained at positions drawn from 0 … s L − 1, in order'
  draws_positions = True

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return subset(key, rows, pos.shape[1], self.target_length)


class PoSE(extend.PI):
  """PI fine-tuned on short texts whose chunks skip positions, up to the target length.

  The text of a sequence stays whole: no text is left out between chunks.

  Paper and code: the paper leaves text out between the chunks (v_i drawn as u_i is, eq. 5); what is
  here, v_i = 0, is an ablation of its table 4 (perplexity 4.68 for 4.60 at 16k). The authors' code
  has two chunks, of which the first has at most half of the tokens; here a cut is anywhere.
  """

  label = 'PoSE'
  paper = 'arXiv:2309.10400, sec. 3.2'
  formula = 'θᵢ / s, trained at positions m + u, u a skip for each chunk of the text'
  draws_positions = True

  def __init__(self, dims: base.Dims, *, chunks: int = 2, **stretched):
    """Chooses the number of chunks.

    Args:
      dims: sizes of the model.
      chunks: of a sequence; the published value.
      **stretched: as in Stretched.
    """
    super().__init__(dims, **stretched)
    if not 2 <= chunks <= dims.length:
      raise ValueError(
        f'position.chunks is {chunks}; choose 2 to {dims.length}, the tokens of a sequence.'
      )
    self.chunks = chunks

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """int32 [rows, L]."""
    return pos + skips(key, rows, pos.shape[1], self.target_length, self.chunks)
