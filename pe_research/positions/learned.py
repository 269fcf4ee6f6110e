"""Learned absolute positions: one trained vector for each position."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from pe_research.common import checks
from pe_research.positions import base, facts


class Learned(base.PositionScheme):
  """A table of positions, treated like the table of tokens.

  Entries start at N(0, 1/D) and are multiplied by sqrt(D), as the decoder's token embeddings are,
  so that both begin with unit variance. There is nothing past the last row: `check_length` raises,
  and under jit such a position reads NaN, never a neighbour's row.

  Paper and code: GPT-2 draws both tables from N(0, 0.02^2) and scales neither: the ratio is the
  same. Its weights need scaled=False.
  """

  label = 'Learned'
  paper = 'arXiv:1705.03122, sec. 3.1; GPT-2'
  formula = 'x_m + √D P[m]'
  relative = False
  remedy = 'Use a shorter length, or train with a larger position.max_length.'

  def __init__(
    self,
    dims: base.Dims,
    *,
    max_length: int | None = None,
    scaled: bool = True,
    rngs: nnx.Rngs | None = None,
  ):
    """Builds the table.

    Args:
      dims: sizes of the model.
      max_length: tokens, rows of the table; None means the training length.
      scaled: whether rows are multiplied by sqrt(D).
      rngs: source of the initial values.
    """
    self.max_length = base.resolved('max_length', max_length)
    checks.at_least('position.max_length', self.max_length, 1, 'tokens')
    self.scaled, self.scale = scaled, dims.width**0.5 if scaled else 1.0
    init = nnx.initializers.normal(dims.width**-0.5)
    self.table = nnx.Param(init(rngs.params(), (self.max_length, dims.width), jnp.float32))

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: base.Dims) -> dict[str, Any]:
    """Fills in max_length."""
    return base.fill(super().resolve(given, dims), max_length=dims.length)

  def embed(self, x: jax.Array, pos: jax.Array) -> jax.Array:
    """x + sqrt(D) table[pos], or table[pos] unscaled. x [B, L, D], pos [B or 1, L]."""
    self.check_positions(pos)
    rows = self.table[...].at[pos].get(mode='fill', fill_value=jnp.nan, wrap_negative_indices=False)
    return x + (self.scale * rows).astype(x.dtype)

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the rows of the table, and the positions without a row."""
    card, rows = super().card(length, longest), self.max_length
    return card.more(
      facts.Fact('rows of the table', rows),
      facts.Fact('rows never trained', max(0, rows - length), f'of {rows:,}'),
      facts.Fact(f'positions without a row at {longest:,} tokens', max(0, longest - rows)),
    )
