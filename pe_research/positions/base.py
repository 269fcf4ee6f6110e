"""The interface of a positional scheme: hooks that are the identity unless overridden."""

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
    rotary: R, the width of the part of a head that `query` and `key` see.
    length: tokens, the length that the model is trained at.
    sliced: whether R is a slice beside the rest of the head, as in latent attention.
    layer: which layer asks, from 0, where each has a scheme of its own.
  """

  width: int
  heads: int
  rotary: int
  length: int
  sliced: bool = False
  layer: int = 0

  @classmethod
  def of(cls, model: Mapping[str, Any], length: int, encodes: bool) -> 'Dims':
    """Those of a model's config: `rotary_dim` where a head has a slice for positions alone.

    Only what `encodes` queries and keys has that slice.
    """
    slice_ = model.get('rotary_dim') if encodes else None
    return cls(model['width'], model['heads'], slice_ or model['head_dim'], length, bool(slice_))


@dataclasses.dataclass(frozen=True)
class DistanceBias:
  """A bias as data, which a kernel computes from distances d = q_pos - k_pos >= 0.

  Head h has slopes[h] d, plus jumps[h, s] for each s with d >= starts[s].

  Attributes:
    slopes: float32 [H], logits/token.
    jumps: float32 [H, S], logits.
    starts: S distances, tokens.
  """

  slopes: jax.Array
  jumps: jax.Array
  starts: tuple[int, ...]


def filled(name: str, value: Any) -> Any:
  """The value of an argument that `PositionScheme.resolve` fills in; ValueError where none did."""
  if value is None:
    raise ValueError(f'position.{name} is not settled; build schemes by positions.build.')
  return value


class PositionScheme(nnx.Module):
  """What a decoder knows about token order. Overriding nothing gives NoPE.

  A scheme is always *given* positions and never makes its own, so offsets, packed documents and
  left padding need nothing from it. Keyword-only constructor arguments are its configuration; what
  of them may be left open is settled by `resolve`, before anything is built.

  Shapes: B batch (1 where all rows share their positions), L tokens, H heads, D model width,
  R rotated width of a head. Positions are int32, counted in tokens from 0.

  The docstring of a scheme ends in a paragraph 'Paper and code: ...' that says how the two are
  known to differ, and which is followed here.
  """

  label: ClassVar[str] = ''  # name in tables and figures
  paper: ClassVar[str] = ''  # 'arXiv:2104.09864, eq. 34'
  formula: ClassVar[str] = ''  # what becomes of embeddings x, or of logits ℓ of query m and key n
  relative: bool = True  # logits depend on q_pos - k_pos alone
  per_layer: ClassVar[bool] = False  # True: every layer has a scheme of its own; False: all share
  trains_as: ClassVar[str] = ''  # 'rope': needs no training of its own, stretches a run of that
  depends_on_length: bool = False  # True: a token's encoding changes as its document grows
  counts_keys: ClassVar[bool] = False  # True: the logits of a query grow with the keys it sees
  draws_positions: ClassVar[bool] = False  # True: training goes by `draw_positions`
  reads_beyond: int = 0  # tokens after those of a sequence that `draw_text` chooses from too
  sees: int | None = None  # tokens that a query sees, itself included; None: all
  max_length: int | None = None  # tokens; None: defined at every position
  remedy: ClassVar[str] = 'Use a shorter length.'  # what a user may do past max_length

  def __init__(self, dims: Dims, *, rngs: nnx.Rngs | None = None):
    del dims, rngs

  @classmethod
  def resolve(cls, given: Mapping[str, Any], dims: Dims) -> dict[str, Any]:
    """All arguments, those that were left open settled by the others and by the model's sizes.

    The only step that may read files. A scheme settles its own and leaves the rest to its parent.

    Args:
      given: every argument by name.
      dims: sizes of the model.

    Raises:
      ValueError: something has to be said that was not.
    """
    del dims
    return dict(given)

  def draw_positions(self, pos: jax.Array, rows: int, key: jax.Array) -> jax.Array:
    """The positions of one training step, int32 [rows or 1, L], for pos [rows or 1, L].

    Their order along a document stays. Nothing but training asks, and only `draws_positions`.
    """
    del rows, key
    return pos

  def draw_text(self, tokens: jax.Array, beyond: jax.Array, key: jax.Array) -> jax.Array:
    """The tokens of one training step, in the order of their text: int32 [rows, L + 1].

    Nothing but training asks, and only where there is `reads_beyond`.

    Args:
      tokens: the text of each row, inputs and, one to the right, targets: int32 [rows, L + 1].
      beyond: how it goes on, -1 from where it ends: int32 [rows, reads_beyond].
      key: that of the step's `draw_positions`, so that the two may go together.
    """
    del beyond, key
    return tokens

  def embed(self, x: jax.Array, pos: jax.Array) -> jax.Array:
    """Adds position to the embedded tokens. x [B, L, D], pos [B or 1, L] -> [B, L, D]."""
    del pos
    return x

  def query(self, q: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Encodes queries [B, L, H, R] at `pos` [B or 1, L].

    `length` is the number of positions that the document of a token spans so far, its cached part
    included: an int where it is the same for all and known when the program is compiled, else
    int32 [B or 1, L or 1]. Only where `depends_on_length` is it given; None otherwise.
    """
    del pos, length
    return q

  def key(self, k: jax.Array, pos: jax.Array, length) -> jax.Array:
    """Encodes keys [B, L, H or fewer, R] at `pos` [B or 1, L]."""
    del pos, length
    return k

  def bias(self, q_pos: jax.Array, k_pos: jax.Array) -> jax.Array | None:
    """Logit bias of one tile: [B or 1, Lq], [B or 1, Lk] -> float32 [B or 1, H, Lq, Lk]."""
    del q_pos, k_pos
    return None

  def distance_bias(self) -> DistanceBias | None:
    """`bias` over what a query may see, where it depends on the distance alone and is of this form.

    None where there is no bias; a scheme that has one and not this cannot use the kernels.
    """
    if type(self).bias is PositionScheme.bias:
      return None
    raise ValueError(
      f"{self.label!r} has a bias that no kernel computes; choose 'dense' or 'tiled' for "
      'attention.implementation and eval.implementation.'
    )

  def logit_scale(self, q_pos: jax.Array, length) -> jax.Array | float:
    """Multiplies q.k / sqrt(head width), not the bias. Scalar, [B or 1, Lq] or [B or 1, Lq, H].

    `q_pos` [B or 1, Lq] is the position of a query, or the last that it sees counted from the first
    where a window hides others, so that q_pos + 1 is the number of its keys.
    """
    del q_pos, length
    return 1.0

  @classmethod
  def encodes(cls) -> bool:
    """Whether queries and keys carry position, so that latent attention needs a slice for it."""
    return cls.query is not PositionScheme.query

  def regime(self, length):
    """The cache stays valid while this value is unchanged; a value for each length."""
    return length

  @classmethod
  def matched(cls, length: int) -> dict[str, Any]:
    """Arguments to replace published ones that make no sense at a training length in tokens."""
    del length
    return {}

  @classmethod
  def known(cls, position: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that weights trained with these bring along to another scheme."""
    return dict(position)

  def notes(self, length: int) -> list[str]:
    """What a reader of results at training length `length` (tokens) should know."""
    del length
    return []

  def marks(self, length: int, longest: int) -> dict[str, int]:
    """Lengths in tokens that a card looks at; 'training' is that of the weights."""
    return {'training': length, 'longest': longest}

  def card(self, length: int, longest: int) -> facts.Card:
    """What the scheme means for a model trained at `length` and used up to `longest` tokens.

    Schemes add what they know of themselves. Parameters may be shapes without values.
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
    """As `check_length`, of positions that are known: not while a program is compiled."""
    if self.max_length is not None and not isinstance(pos, jax.core.Tracer):
      self.check_length(int(np.asarray(pos).max()) + 1)


class NoPE(PositionScheme):
  """No positional encoding: order reaches the model through the causal mask alone.

  Paper and code: none known.
  """

  label = 'NoPE'
  paper = 'arXiv:2203.16634; arXiv:2305.19466'
  formula = 'ℓ = q_m · k_n / √d'
