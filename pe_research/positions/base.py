"""The interface of a positional scheme: hooks that are the identity unless overridden.

model/ calls the hooks, training/ `draw_positions` and `draw_text`, the cards of show/ `card`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from pe_research.positions import facts


@dataclasses.dataclass(frozen=True)
class Dims:
  """The sizes that a scheme may depend on.

  Attributes:
    width: D, the width of the residual stream.
    heads: H, the number of query heads.
    rotary: R, the width of the part of a head that `query` and `key` encode.
    length: tokens, the training length.
    sliced: whether R is a slice beside the rest of the head, as in latent attention.
    layer: index of the layer from 0, where each has a scheme of its own.
  """

  width: int
  heads: int
  rotary: int
  length: int
  sliced: bool = False
  layer: int = 0

  @classmethod
  def of(cls, model: Mapping[str, Any], length: int, encodes: bool) -> 'Dims':
    """From a model's config; a scheme that `encodes` gets its slice `rotary_dim`, if any."""
    slice_ = model.get('rotary_dim') if encodes else None
    return cls(model['width'], model['heads'], slice_ or model['head_dim'], length, bool(slice_))


@dataclasses.dataclass(frozen=True)
class DistanceBias:
  """A bias as data, for a kernel that computes it from distances d = q_pos - k_pos >= 0.

  The bias of head h is slopes[h] d, plus jumps[h, s] for each s with d >= starts[s].

  Attributes:
    slopes: float32 [H], logits/token.
    jumps: float32 [H, S], logits.
    starts: S distances, tokens.
  """

  slopes: jax.Array
  jumps: jax.Array
  starts: tuple[int, ...]


def resolved(name: str, value: Any) -> Any:
  """The value of an argument that `PositionScheme.resolve` fills in; ValueError if it is None."""
  if value is None:
    raise ValueError(
      f'position.{name} is None; build schemes by positions.build, which fills it in.'
    )
  return value


def fill(given: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
  """The arguments, with these defaults in place of None."""
  return dict(given) | {name: x for name, x in defaults.items() if given[name] is None}


class PositionScheme(nnx.Module):
  """What a decoder knows about token order. Overriding nothing gives NoPE.

  A scheme is always *given* positions and never makes its own, so offsets, packed documents and
  left padding need no code in it. Its configuration is the keyword-only arguments of its
  constructor; `resolve` fills in those that are None, before anything is built.

  Shapes: B batch (1 where all rows share their positions), L tokens, H heads, D model width,
  R rotated width of a head. Positions are int32, counted in tokens from 0.

  The docstring of a scheme ends in a paragraph 'Paper and code: ...' that says how the two are
  known to differ, and which one this scheme follows.
  """

  label: ClassVar[str] = ''  # name in tables and figures
  paper: ClassVar[str] = ''  # 'arXiv:2104.09864, eq. 34'
  formula: ClassVar[str] = ''  # of embeddings x, or of logits ℓ of query m and key n
  relative: bool = True  # logits depend on q_pos - k_pos alone
  per_layer: ClassVar[bool] = False  # True: every layer has a scheme of its own; False: all share
  trains_as: ClassVar[str] = ''  # 'rope': uses the weights of a run of RoPE, without training
  depends_on_length: bool = False  # True: a token's encoding changes as its document grows
  counts_keys: ClassVar[bool] = False  # True: a query's logit scale grows with the keys it sees
  draws_positions: ClassVar[bool] = False  # True: training uses `draw_positions`
  reads_beyond: int = 0  # tokens after a sequence that `draw_text` may choose as well
  sees: int | None = None  # window: tokens that a query sees, itself included; None: all
  max_length: int | None = None  # tokens; None: defined at every position
  remedy: ClassVar[str] = 'Use a shorter length.'  # what a user can do past max_length

  def __init__(self, dims: Dims, *, rngs: nnx.Rngs | None = None):
    """Reads the sizes and draws the parameters, of which NoPE has none."""

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: Dims) -> dict[str, Any]:
    """All arguments; those that are None are computed from the others and the model's sizes.

    The only step that may read files. A scheme fills in its own arguments, its parent the rest.

    Args:
      given: every argument by name.
      dims: sizes of the model.

    Raises:
      ValueError: an argument that has no default is None.
    """
    return dict(given)

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """The positions of one training step, int32 [rows or 1, L], for pos [rows or 1, L].

    They keep their order along a document. Called in training alone, if `draws_positions`.
    """
    return pos

  def draw_text(self, tokens: jax.Array, beyond: jax.Array, key: jax.Array) -> jax.Array:
    """The tokens of one training step, in the order of their text: int32 [rows, L + 1].

    Called in training alone, if `reads_beyond` is not 0.

    Args:
      tokens: the text of each row, inputs and, one to the right, targets: int32 [rows, L + 1].
      beyond: the text after it, -1 past its end: int32 [rows, reads_beyond].
      key: the same as for `draw_positions` of the step, so that the two can match.
    """
    return tokens

  def embed(self, x: jax.Array, pos: jax.Array) -> jax.Array:
    """Adds position to the embedded tokens. x [B, L, D], pos [B or 1, L] -> [B, L, D]."""
    return x

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Encodes queries [B, L, H, R] at `pos` [B or 1, L].

    `length` is None unless `depends_on_length`. Then it is the number of positions that a token's
    document spans so far, its cached part included: an int where it is static and the same for all
    tokens, else int32 [B or 1, L or 1].
    """
    return q

  def key(self, k: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Encodes keys [B, L, H or fewer, R] at `pos` [B or 1, L]."""
    return k

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array | None:
    """Logit bias of one tile: [B or 1, Lq], [B or 1, Lk] -> float32 [B or 1, H, Lq, Lk]."""
    return None

  def distance_bias(self) -> DistanceBias | None:
    """`bias` of visible keys as data, for the Pallas kernel; None where there is no bias.

    Raises:
      ValueError: the scheme has a bias that does not have this form.
    """
    if type(self).bias is PositionScheme.bias:
      return None
    raise ValueError(
      f"{self.label!r} has a bias that no kernel computes; choose 'dense' or 'tiled' for "
      'attention.implementation and eval.implementation.'
    )

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array | float:
    """Multiplies q.k / sqrt(head width), not the bias. Scalar, [B or 1, Lq] or [B or 1, Lq, H].

    `q_pos` [B or 1, Lq] is the position of a query, or window - 1 where a window is shorter, so
    that q_pos + 1 is the number of keys that it sees.
    """
    return 1.0

  @classmethod
  def encodes(cls) -> bool:
    """Whether the scheme encodes queries and keys, so that latent attention needs a slice."""
    return cls.query is not PositionScheme.query

  def regime(self, length):
    """Equal for two lengths if their encodings are; a cache stays valid while it is unchanged."""
    return length

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """Arguments scaled to a short training length (tokens), where the published ones do not fit."""
    return {}

  @classmethod
  def trained_arguments(cls, position: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that an extension inherits from a run that was trained with these."""
    return dict(position)

  def notes(self, length: int) -> list[str]:
    """What a reader of results at training length `length` (tokens) should know."""
    return []

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """Lengths (tokens) by name that a card has values at; 'training' is that of the weights."""
    return {'training': length, 'longest': longest}

  def card(self, length: int, longest: int) -> facts.Card:
    """What the scheme means for a model trained at `length` and used up to `longest` tokens.

    Schemes add facts of their own. Parameters may be shapes without values.
    """
    marks: dict[str, int] = {}
    for name, n in self.marks(length, longest).items():
      marks |= {} if n in marks.values() else {name: n}
    scale = {n: self._scale_at(n) for n in marks.values() if n <= (self.max_length or n)}
    named = {f'logit scale at {n:,} tokens': value for n, value in scale.items()}
    if len(set(scale.values())) == 1:
      named = {'logit scale': next(iter(scale.values()))}
    found = [
      facts.Fact('logits depend on', 'distance alone' if self.relative else 'positions'),
      facts.Fact('defined up to', self.max_length or float('inf'), 'tokens'),
      *(facts.Fact(name, value, '×') for name, value in named.items()),
    ]
    if self.trains_as:
      found.insert(0, facts.Fact('stretches weights trained as', self.trains_as))
    notes = tuple(self.notes(marks['training']))
    return facts.Card(self.label, self.paper, marks, tuple(found), notes)

  def _scale_at(self, length: int) -> float:
    last = jnp.asarray([[length - 1]])
    scale = self.logit_scale(last, length if self.depends_on_length else None)
    return float(np.asarray(scale).reshape(-1)[-1])

  def check_length(self, length: int) -> None:
    """Raises ValueError where the scheme is not defined for positions 0 .. length - 1."""
    if self.max_length is not None and length > self.max_length:
      raise ValueError(
        f'{self.label!r} holds {self.max_length} positions; asked for {length}. {self.remedy}'
      )

  def check_positions(self, pos: jax.Array) -> None:
    """As `check_length`, for the largest of these positions; checks nothing under jit."""
    if self.max_length is not None and not isinstance(pos, jax.core.Tracer):
      self.check_length(int(np.asarray(pos).max()) + 1)


class NoPE(PositionScheme):
  """No positional encoding: order reaches the model through the causal mask alone.

  Paper and code: no known difference.
  """

  label = 'NoPE'
  paper = 'arXiv:2203.16634; arXiv:2305.19466'
  formula = 'ℓ = q_m · k_n / √d'
