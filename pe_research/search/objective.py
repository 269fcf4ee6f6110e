"""The loss of a run's weights under the factors of candidates, many at a time."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from pe_research import positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.common import digest, sharding
from pe_research.data import texts
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions import fixed_point, longrope, rotary
from pe_research.runs import lineage
from pe_research.search.space import Candidate

ROPE = ('base', 'layout', 'fraction', 'partial')  # arguments that no stretching changes


@dataclasses.dataclass(frozen=True)
class Windows:
  """Texts to measure on, all of one length.

  Attributes:
    tokens: int32 [D, N + 1].
    names: of their documents.
  """

  tokens: np.ndarray
  names: tuple[str, ...]

  @property
  def digest(self) -> str:
    """Of names and tokens."""
    return digest.of_bytes(repr(self.names).encode(), self.tokens.tobytes())


def windows(documents: texts.Documents, length: int, count: int, seed: int, what: str) -> Windows:
  """One window of `length` tokens and the target after it from each of `count` documents.

  The seed draws them from the documents that are long enough, and the place in each.

  Raises:
    ValueError: there are fewer such documents; says how many, and how long documents are.
  """
  fit = np.flatnonzero(documents.lengths > length)
  if len(fit) < count:
    raise ValueError(
      f'{count} {what} documents of more than {length} tokens are wanted, and {len(fit)} of '
      f'{len(documents)} are that long (the longest has {int(documents.lengths.max())}). Lower '
      f'{"--documents" if what == "training" else "--held-out"} or --factor, or use longer texts.'
    )
  rng = np.random.default_rng([seed, length])
  chosen = sorted(int(i) for i in rng.choice(fit, count, replace=False))
  starts = [int(rng.integers(documents.lengths[i] - length)) for i in chosen]
  cut = [documents[i][s : s + length + 1] for i, s in zip(chosen, starts, strict=True)]
  return Windows(np.stack(cut).astype(np.int32), tuple(documents.names[i] for i in chosen))


class Objective:
  """Mean nats/token of candidates on windows, by one compiled program for all frequencies.

  Candidates that are evaluated at once are spread over the mesh of the config. The factors of a
  candidate multiply those that the weights were last trained with, so that ones leave the run as it
  is; `absolute` factors replace them, so that ones are plain RoPE.

  Attributes:
    stretched: [R / 2], factors that the weights were last trained with.
  """

  def __init__(
    self,
    config: Mapping[str, Any],
    params: Mapping[str, jax.Array],
    shape: tuple[int, int],
    attention_factor: float,
    batch_tokens: int,
    absolute: bool = False,
  ):
    """Prepares the program.

    Args:
      config: resolved, of the run that the weights are of.
      params: the weights.
      shape: [D, N] of the windows.
      attention_factor: multiplies queries and keys.
      batch_tokens: tokens evaluated at once, at least one candidate's on each device.
      absolute: see the class.
    """
    functional = FunctionalDecoder(config)
    arguments = lineage.carried_over(config, longrope.NAME)
    rope = {field: arguments[field] for field in ROPE}
    dims = positions.Dims.of(config['model'], config['length'], encodes=True)
    plain = rotary.RoPE(dims, **rope).frequencies(None)
    trained = np.asarray(functional.scheme.frequencies(config['length']), np.float64)
    divisor = np.where(trained, trained, 1)  # a pair that does not rotate has no factor
    self.stretched = np.where(trained, plain / divisor, 1)
    self.theta = plain if absolute else trained  # frequencies that candidates divide
    self.base_factors = np.ones_like(plain) if absolute else self.stretched
    mesh, size = sharding.mesh(config['run']['mesh']), max(1, batch_tokens // math.prod(shape))
    devices = math.prod(mesh.shape.values())
    self.params, self.size = params, -(-size // devices) * devices
    self.split, self.whole = sharding.split_batch(mesh, self.size), sharding.replicated(mesh)
    spec = Spec(**(config['attention'] | {'implementation': 'tiled'}))

    def loss(params, high, low, start_tokens, tokens):
      decoder = functional.bind(params)
      scheme = longrope.Searched(
        dims,
        turns=fixed_point.Turns(high, low),
        start_tokens=start_tokens,
        attention_factor=attention_factor,
        **rope,
      )
      decoder.position = nnx.List([scheme])
      at = Tokens.contiguous(tokens.shape[1] - 1)
      nll = transformer.loss(decoder(tokens[:, :-1], at, spec), tokens[:, 1:])
      return nll.mean(1)

    each = jax.vmap(loss, in_axes=(None, 0, 0, 0, None))
    self.compiled = jax.jit(each, out_shardings=self.whole)

  def __call__(self, candidates: Sequence[Candidate], windows: Windows) -> list[float]:
    """Nats/token of each candidate, mean over windows of equal length."""
    losses: list[float] = []
    tokens = sharding.place(windows.tokens, self.whole)
    for first in range(0, len(candidates), self.size):
      part = candidates[first : first + self.size]
      full = [*part, *[part[-1]] * (self.size - len(part))]  # one shape, one program
      high, low = fixed_point.fixed_point(self.theta / np.asarray([c.factors for c in full]))
      starts = np.asarray([c.start_tokens for c in full], np.int32)
      each = sharding.place((np.asarray(high), np.asarray(low), starts), self.split)
      by_window = np.asarray(self.compiled(self.params, *each, tokens))
      losses += [float(x) for x in by_window[: len(part)].mean(1, dtype=np.float64)]
    return losses

  def total(self, candidate: Candidate) -> list[float]:
    """Lambda of each pair relative to RoPE before any stretching, as a config takes it."""
    return [float(x) for x in self.base_factors * np.asarray(candidate.factors)]
