"""The effect of a scheme at given positions, independent of the tokens, computed by its hooks."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from pe_research.attention.spec import Spec, last_seen
from pe_research.positions.base import Dims, PositionScheme


@dataclasses.dataclass(frozen=True)
class Effect:
  """Of one scheme at L positions; H heads, D model width, P pairs of channels that may rotate.

  Attributes:
    added: float64 [L, D], added to the embeddings, or None.
    angles: float64 [L, P] radians in (-pi, pi], rotation of the pairs of a query, or None.
    fades: float64 [L, P] nats, logarithm of the factor of these pairs, or None; keys have the
      inverse.
    bias: float64 [H, L, L] logits, NaN for keys that a query does not see, or None.
    seen: bool [L, L], the keys that a query sees.
    modifier: float64 [H, L, L] logits, NaN for keys that a query does not see; see `modifier`.
  """

  added: np.ndarray | None
  angles: np.ndarray | None
  fades: np.ndarray | None
  bias: np.ndarray | None
  seen: np.ndarray
  modifier: np.ndarray

  def kind(self) -> str:
    """What to draw of the scheme, the first of these that it has.

    'added', 'angles', 'penalty' (a bias that is proportional to the distance in each head), any
    other 'bias', or 'modifier'.
    """
    for name in ('added', 'angles'):
      if getattr(self, name) is not None:
        return name
    if self.bias is not None:
      distance = np.subtract.outer(np.arange(len(self.seen)), np.arange(len(self.seen)))
      slopes = self.bias[:, 1, 0][:, None, None]
      deviation = np.abs(self.bias - slopes * distance)[:, self.seen]
      return 'penalty' if (deviation <= 1e-5).all() else 'bias'
    return 'modifier'


def of(scheme: PositionScheme, dims: Dims, length: int) -> Effect:
  """The effect of `scheme`, built for `dims`, on a text of `length` tokens.

  Raises:
    ValueError: the scheme is not defined at that length.
  """
  scheme.check_length(length)
  pos = jnp.arange(length, dtype=jnp.int32)[None]
  queries, keys = (
    _of_basis(hook, dims, pos, length if scheme.depends_on_length else None)
    for hook in (scheme.query, scheme.key)
  )
  added = np.asarray(scheme.embed(jnp.zeros((1, length, dims.width)), pos)[0], np.float64)
  bias = scheme.bias(pos, pos)
  last = last_seen(pos, Spec(), scheme)
  scale = jnp.asarray(scheme.logit_scale(last, length if scheme.depends_on_length else None))
  scale = scale.reshape(*scale.shape, *(1,) * (3 - scale.ndim)) if scale.ndim else scale
  scale = np.broadcast_to(np.asarray(scale, np.float64), (1, length, dims.heads))[0].T
  seen = np.tri(length, dtype=bool)
  if scheme.sees is not None:
    seen &= ~np.tri(length, k=-scheme.sees, dtype=bool)
  full = np.zeros((dims.heads, length, length))
  if bias is not None:
    full = full + np.asarray(bias[0], np.float64)
  angles, fades = _turns(queries)
  return Effect(
    added if added.any() else None,
    angles,
    fades,
    None if bias is None else np.where(seen, full, np.nan),
    seen,
    np.where(seen, modifier(queries, keys, added, scale, dims) + full, np.nan),
  )


def modifier(
  queries: np.ndarray, keys: np.ndarray, added: np.ndarray, scale: np.ndarray, dims: Dims
) -> np.ndarray:
  """What a scheme adds, on average, to the logit of a token that looks at a copy of itself.

  Query and key are the same K channels, independent, of mean 0 and variance 1, and so is the
  embedding that they are read from by one projection that keeps lengths on average. Then
  E[q.k] is the trace of (query encoding)^T (key encoding), plus (K / D) p_m.p_n for vectors p
  added to the embedding; without positions it is K. A bias is not included.

  Args:
    queries: [R, L, R], every basis vector encoded as a query at every position.
    keys: [R, L, R], the same as keys.
    added: [L, D].
    scale: [H, L].
    dims: K is `dims.rotary`.

  Returns:
    float64 [H, L, L] logits of query m and key n, divided by sqrt(K) as logits are.
  """
  width = dims.rotary
  content = np.einsum('cmr,cnr->mn', queries, keys) + width / dims.width * added @ added.T
  return (scale[..., None] * content - width) / width**0.5


def _of_basis(hook, dims: Dims, pos, length) -> np.ndarray:
  """float64 [R, L, R]: each basis vector of a head, encoded at each position."""
  basis = jnp.eye(dims.rotary)[:, None, None]
  every = jnp.broadcast_to(basis, (dims.rotary, pos.shape[1], 1, dims.rotary))
  return np.asarray(hook(every, pos, length)[:, :, 0], np.float64)


def _turns(encoded: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
  """Angles and log lengths [L, P] of the pairs that rotate, from an encoded basis [R, L, R].

  Channels that are unchanged at all these positions belong to no pair.
  """
  reach = np.abs(encoded).max(axis=1)  # [R, R]
  np.fill_diagonal(reach, 0)
  firsts = [c for c in range(len(reach)) if reach[c].any() and reach[c].argmax() > c]
  if not firsts:
    return None, None
  partners = reach[firsts].argmax(axis=1)
  own = np.stack([encoded[c, :, c] for c in firsts], axis=1)
  other = np.stack([encoded[c, :, p] for c, p in zip(firsts, partners, strict=True)], axis=1)
  fades = np.log(np.hypot(own, other))
  return np.arctan2(other, own), fades if np.abs(fades).max() > 1e-5 else None
