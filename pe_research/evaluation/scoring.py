"""Scores windows by a trained model: losses, right answers, hidden states."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from pe_research.attention.spec import Spec, narrowest
from pe_research.attention.tokens import Tokens
from pe_research.common import digest, sharding
from pe_research.model import transformer
from pe_research.model.functional import FunctionalDecoder


class Call(NamedTuple):
  """What determines the program that scores some windows.

  Attributes:
    kind: 'nats', 'hits' or 'hidden'.
    shape: [W, N + 1] of the windows of one batch.
    static: static arguments.
  """

  kind: str
  shape: tuple[int, int]
  static: tuple


class Scorer:
  """The compiled programs, for any weights: windows in, a number for each target out.

  Windows are int [W, N + 1]; `eval.batch_tokens` tokens are scored at once, over all devices.
  """

  def __init__(self, functional: FunctionalDecoder, config: Mapping[str, Any], mesh):
    """Compiles nothing yet; a program is compiled at the first call of its kind and length."""
    attention = config['attention'] | {'implementation': config['eval']['implementation']}
    self.spec = Spec(**attention, mesh=mesh)
    self.functional, self.mesh = functional, mesh
    self.devices = mesh.shape['data'] * mesh.shape['fsdp']
    self.tokens = config['eval']['batch_tokens']
    replicated = sharding.replicated(mesh)
    compiled = functools.partial(jax.jit, out_shardings=replicated, keep_unused=True)
    self._programs = {
      'nats': compiled(self._nats, static_argnums=(2, 3, 4)),
      'hits': compiled(self._hits, static_argnums=(2, 3)),
      'hidden': compiled(self._hidden, static_argnums=2),
    }

  def _logits(self, params, tokens, last, scale=1.0, window=None):
    decoder, window = self.functional.bind(params), narrowest(self.spec.window, window)
    spec = dataclasses.replace(self.spec, scale=scale, window=window)
    at = Tokens.contiguous(tokens.shape[1] - 1)
    features, _ = decoder.features(tokens[:, :-1], at, spec, last=last)
    return decoder.logits(features)

  def _nats(self, params, tokens, last, scale, window):
    return transformer.loss(self._logits(params, tokens, last, scale, window), tokens[:, -last:])

  def _hits(self, params, tokens, last, scale):
    return self._logits(params, tokens, last, scale).argmax(-1) == tokens[:, -last:]

  def _hidden(self, params, tokens, layers):
    decoder = self.functional.bind(params)
    decoder.blocks = decoder.blocks[:layers]
    at = Tokens.contiguous(tokens.shape[1] - 1)
    return decoder.features(tokens[:, :-1], at, self.spec)[0]

  def _size(self, windows: np.ndarray) -> int:
    """Windows in a batch on one device."""
    return max(1, min(len(windows), self.tokens // (windows.shape[1] - 1)))

  def call(self, kind: str, windows: np.ndarray, *static) -> Call:
    """The call that scores these windows on one device."""
    return Call(kind, (self._size(windows), windows.shape[1]), static)

  def lower(self, params, call: Call) -> jax.stages.Lowered:
    """The program of a call, for parameters that are arrays or shapes."""
    rows = sharding.split_batch(self.mesh, call.shape[0])
    tokens = jax.ShapeDtypeStruct(call.shape, np.int32, sharding=rows)
    return self._programs[call.kind].lower(params, tokens, *call.static)

  def _batched(self, kind: str, params, windows: np.ndarray, *static) -> np.ndarray:
    self.functional.scheme.check_length(windows.shape[1] - 1)
    program, size = self._programs[kind], -(-self._size(windows) // self.devices) * self.devices
    rows = sharding.split_batch(self.mesh, size)
    scored = []
    for start in range(0, len(windows), size):
      part = windows[start : start + size].astype(np.int32)
      full = np.pad(part, ((0, size - len(part)), (0, 0)), mode='edge')
      scored.append(np.asarray(program(params, sharding.place(full, rows), *static))[: len(part)])
    return np.concatenate(scored)

  def nats(
    self,
    params,
    windows: np.ndarray,
    last: int | None = None,
    scale: float = 1.0,
    window: int | None = None,
  ) -> np.ndarray:
    """Losses of the last `last` targets, all if None: float32 [W, last].

    Attention logits are multiplied by `scale`; a query sees at most the last `window` keys.
    """
    last = windows.shape[1] - 1 if last is None else last
    return self._batched('nats', params, windows, last, scale, window)

  def hits(self, params, windows: np.ndarray, last: int, scale: float = 1.0) -> np.ndarray:
    """Whether each of the last `last` targets is the likeliest token: bool [W, last].

    Attention logits are multiplied by `scale`.
    """
    return self._batched('hits', params, windows, last, scale)

  def hidden(self, params, windows: np.ndarray, layers: int) -> np.ndarray:
    """States after the first `layers` blocks and the final norm: [W, N, D]."""
    if not 0 <= layers <= self.functional.model.layers:
      raise ValueError(
        f'there is no layer {layers}; the model has {self.functional.model.layers} (0: embeddings).'
      )
    return self._batched('hidden', params, windows, layers)


class Subject:
  """A model with its weights, as measurements use it; records the calls and their windows.

  Attributes:
    calls: in order.
    inputs: hash chain over the windows.
  """

  def __init__(self, scorer: Scorer, params):
    self.scorer, self.params = scorer, params
    self.calls: list[Call] = []
    self.inputs = ''

  def _record(self, kind: str, windows: np.ndarray, *static) -> None:
    self.calls.append(self.scorer.call(kind, windows, *static))
    self.inputs = digest.chain(self.inputs, {'windows': windows.astype(np.int32)})

  def __call__(
    self,
    windows: np.ndarray,
    last: int | None = None,
    scale: float = 1.0,
    window: int | None = None,
  ) -> np.ndarray:
    """Losses in nats, see Scorer.nats."""
    last = windows.shape[1] - 1 if last is None else last
    self._record('nats', windows, last, scale, window)
    return self.scorer.nats(self.params, windows, last, scale, window)

  def hits(self, windows: np.ndarray, last: int, scale: float = 1.0) -> np.ndarray:
    """See Scorer.hits."""
    self._record('hits', windows, last, scale)
    return self.scorer.hits(self.params, windows, last, scale)

  def hidden(self, windows: np.ndarray, layer: int, initial: bool) -> np.ndarray:
    """See Scorer.hidden; `initial` takes the weights before training."""
    self._record('hidden', windows, layer)
    params = jax.jit(self.scorer.functional.init)() if initial else self.params
    return self.scorer.hidden(params, windows, layer)
