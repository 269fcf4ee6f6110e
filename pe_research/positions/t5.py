"""T5's relative bias: one learned number for each head and bucket of distances."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.positions import base, facts


def bucket_of(distance: np.ndarray, buckets: int, max_distance: int) -> np.ndarray:
  """Bucket of each causal distance q_pos - k_pos >= 0 (ints of any shape).

  Half of the buckets hold one distance each; the others are spaced logarithmically up to
  `max_distance` and the last holds everything beyond. Float32, as in T5's code: rounding decides
  the bucket where the logarithm meets a boundary.
  """
  exact = buckets // 2
  ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
  share = np.log(ratio) / np.float32(np.log(max_distance / exact))
  far = exact + (share * np.float32(buckets - exact)).astype(np.int64)
  return np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)


class T5(base.PositionScheme):
  """A learned bias by bucket of distance, the same table in every layer.

  A causal decoder needs only T5's causal rule, in which all buckets are for distances into the
  past; in the rule of its encoder, half of the buckets are for keys ahead, which a decoder masks.
  Distances beyond the training length fall into buckets that training never reached; those keep
  their initial values (`notes` counts them).

  Paper and code: the buckets are those of code, in float32 as there, which decides at exact powers.
  So the last of 32 buckets begins at distance 113 and not at max_distance, 128. T5 does not divide
  logits by sqrt(d); here they are divided, unless scale_logits is False.
  """

  label = 'T5 bias'
  paper = 'arXiv:1910.10683, sec. 2.1'
  formula = 'ℓ + b_h[bucket(m − n)]'

  def __init__(
    self,
    dims: base.Dims,
    *,
    buckets: int = 32,
    max_distance: int = 128,
    init_std: float = 0.02,
    scale_logits: bool = True,
    bidirectional: bool = False,
    rngs: nnx.Rngs | None = None,
  ):
    """Builds the table.

    Args:
      dims: sizes of the model.
      buckets: rows of the table.
      max_distance: tokens; all distances from here on share the last bucket.
      init_std: standard deviation of the initial biases (logits); 0 starts from NoPE.
      scale_logits: True divides q.k by sqrt(d) as in all other schemes; False does not, as in T5.
      bidirectional: True is the rule of T5's encoder: half of the rows are for keys ahead.
      rngs: source of the initial values.
    """
    past = buckets // 2 if bidirectional else buckets
    if past < 2 or max_distance <= past // 2:
      raise ValueError(
        f'position.buckets is {buckets} and position.max_distance {max_distance}; there must be '
        'at least 2 buckets into the past, and max_distance above half of those.'
      )
    self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
    self.past = past
    self.unscaling = 1.0 if scale_logits else dims.rotary**0.5
    init = nnx.initializers.normal(init_std)
    self.table = nnx.Param(init(rngs.params(), (buckets, dims.heads), jnp.float32))

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array:
    """table[bucket(q_pos - k_pos)]: float32 [B or 1, H, Lq, Lk].

    Keys ahead count as distance 0; if `bidirectional`, they have buckets of their own.
    """
    reach, nearest = bucket_of(np.arange(self.max_distance + 1), self.past, self.max_distance), 0
    if self.bidirectional:
      reach, nearest = np.concatenate([self.past + reach[:0:-1], reach]), -self.max_distance
    by_distance = self.table[...].T[:, reach]  # [H, max_distance + 1], from `nearest` on
    distance = jnp.clip(q_pos[:, :, None] - k_pos[:, None, :], nearest, self.max_distance)
    return jnp.moveaxis(by_distance[:, distance - nearest], 0, 1)

  def distance_bias(self) -> base.DistanceBias:
    """A jump at the nearest distance of each bucket into the past."""
    reach = bucket_of(np.arange(self.max_distance + 1), self.past, self.max_distance)
    used, nearest = np.unique(reach, return_index=True)
    values = self.table[...].T[:, used]  # [H, S]
    jumps = jnp.diff(values, axis=1, prepend=0.0)
    return base.DistanceBias(jnp.zeros(values.shape[0]), jumps, tuple(nearest.tolist()))

  def logit_scale(self, q_pos: jax.Array, length) -> float:
    """1, or sqrt(d) to undo the division of the logits, as in T5."""
    return self.unscaling

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """A `max_distance` at which training reaches the last of 32 buckets.

    Below 24 tokens no value does, since 16 of the buckets hold one distance each.
    """
    return {'max_distance': max(17, 3 * length // 4)}

  def notes(self, length: int) -> list[str]:
    """Says how many buckets the training length reaches."""
    notes = []
    if self.bidirectional:
      notes.append(
        f'{self.buckets - self.past} of {self.buckets} buckets are for keys ahead: unused.'
      )
    trained = int(bucket_of(np.arange(length), self.past, self.max_distance)[-1]) + 1
    if trained == self.past:
      return notes
    fits = self.matched(length)['max_distance']
    reached = bucket_of(np.arange(length), self.past, fits)[-1] if fits > self.past // 2 else 0
    better = reached == self.past - 1
    return [
      *notes,
      f'distances below the training length {length} reach {trained} of {self.past} '
      f'buckets (max_distance {self.max_distance}); the others keep their initial values. '
      + (f'max_distance {fits} fits that length.' if better else 'Fewer buckets would be reached.'),
    ]

  def card(self, length: int, longest: int) -> facts.Card:
    """Adds the buckets: their distances, and how many of these occur in training."""
    rule = self.past, self.max_distance
    every, buckets = bucket_of(np.arange(self.max_distance + 1), *rule), np.arange(self.past)
    nearest = np.searchsorted(every, buckets).astype(float)
    farthest = np.searchsorted(every, buckets, side='right') - 1.0
    empty = farthest < nearest
    nearest[empty] = farthest[empty] = np.nan
    farthest[-1] = np.inf
    count = np.bincount(bucket_of(np.arange(length), *rule), minlength=self.past)
    never, of = nearest[(count == 0) & ~empty], f'of {self.past}'
    added = [
      facts.Fact('buckets that training reaches', int((count > 0).sum()), of),
      facts.Fact('buckets never trained', never.size, of),
      facts.Fact('last bucket begins at distance', int(nearest[-1]), 'tokens'),
    ]
    if never.size:
      added.insert(2, facts.Fact('never trained from distance', int(never[0]), 'tokens'))
    if empty.any():
      added.append(facts.Fact('buckets without a distance', int(empty.sum()), of))
    columns = (
      facts.Column('nearest distance', 'tokens', tuple(nearest.tolist())),
      facts.Column('farthest distance', 'tokens', tuple(farthest.tolist()), drawn=False),
      facts.Column('distances in training', '', tuple(count.tolist()), drawn=False),
    )
    return super().card(length, longest).more(*added, part='bucket', columns=columns)
