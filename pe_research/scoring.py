"""A trained model as measurements ask it: losses, right answers, hidden states of windows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from pe_research import attend, model, sharding
from pe_research.blueprint import Blueprint


class Scorer:
  """The compiled side, for any weights: windows in, numbers of each target out.

  Windows are int [W, N + 1], `eval.batch_tokens` of them at once, over all devices.
  """

  def __init__(self, blueprint: Blueprint, config: Mapping[str, Any], mesh):
    """Compiles nothing yet; a program is compiled at the first call of its kind and length."""
    how = config['attention'] | {'implementation': config['eval']['implementation']}
    self.spec = attend.Spec(**how, mesh=mesh)
    self.blueprint, self.mesh = blueprint, mesh
    self.devices = mesh.shape['data'] * mesh.shape['fsdp']
    self.tokens = config['eval']['batch_tokens']
    replicated = sharding.replicated(mesh)
    compiled = functools.partial(jax.jit, out_shardings=replicated)
    self._nats = compiled(self._nats, static_argnums=(2, 3, 4))
    self._hits = compiled(self._hits, static_argnums=(2, 3))
    self._hidden = compiled(self._hidden, static_argnums=2)

  def _logits(self, params, tokens, last, scale=1.0, window=None):
    decoder, window = self.blueprint.bind(params), attend.narrowest(self.spec.window, window)
    spec = dataclasses.replace(self.spec, scale=scale, window=window)
    at = attend.Tokens.contiguous(tokens.shape[1] - 1)
    features, _ = decoder.features(tokens[:, :-1], at, spec, last=last)
    return decoder.logits(features)

  def _nats(self, params, tokens, last, scale, window):
    return model.loss(self._logits(params, tokens, last, scale, window), tokens[:, -last:])

  def _hits(self, params, tokens, last, scale):
    return self._logits(params, tokens, last, scale).argmax(-1) == tokens[:, -last:]

  def _hidden(self, params, tokens, layers):
    decoder = self.blueprint.bind(params)
    decoder.blocks = decoder.blocks[:layers]
    at = attend.Tokens.contiguous(tokens.shape[1] - 1)
    return decoder.features(tokens[:, :-1], at, self.spec)[0]

  def _batched(self, program: Callable, params, windows: np.ndarray, *static) -> np.ndarray:
    length = windows.shape[1] - 1
    self.blueprint.scheme.check_length(length)
    size = max(1, min(len(windows), self.tokens // length))
    size = -(-size // self.devices) * self.devices
    rows = sharding.split_batch(self.mesh, size)
    found = []
    for start in range(0, len(windows), size):
      part = windows[start : start + size].astype(np.int32)
      full = np.pad(part, ((0, size - len(part)), (0, 0)), mode='edge')
      found.append(np.asarray(program(params, sharding.place(full, rows), *static))[: len(part)])
    return np.concatenate(found)

  def nats(
    self,
    params,
    windows: np.ndarray,
    last: int | None = None,
    scale: float = 1.0,
    window: int | None = None,
  ) -> np.ndarray:
    """Losses of the last `last` targets, all if None: float32 [W, last].

    The logits of attention are multiplied by `scale`; a query sees the last `window` keys, if that
    is given and fewer than it would.
    """
    last = windows.shape[1] - 1 if last is None else last
    return self._batched(self._nats, params, windows, last, scale, window)

  def lower(self, params, windows, last: int) -> jax.stages.Lowered:
    """The program of `nats` for windows of a shape, placed or abstract; for what it takes."""
    return self._nats.lower(params, windows, last, 1.0, None)

  def hits(self, params, windows: np.ndarray, last: int, scale: float = 1.0) -> np.ndarray:
    """Whether each of the last `last` targets is the likeliest token: bool [W, last].

    The logits of attention are multiplied by `scale`.
    """
    return self._batched(self._hits, params, windows, last, scale)

  def hidden(self, params, windows: np.ndarray, layers: int) -> np.ndarray:
    """What the final norm makes of the states after the first `layers` blocks: [W, N, D]."""
    if not 0 <= layers <= self.blueprint.model.layers:
      raise ValueError(
        f'there is no layer {layers}; the model has {self.blueprint.model.layers} (0: embeddings).'
      )
    return self._batched(self._hidden, params, windows, layers)


class Subject:
  """A scorer with its weights; see measures.Subject."""

  def __init__(self, scorer: Scorer, params):
    """Binds `params`."""
    self.scorer, self.params = scorer, params

  def __call__(self, windows: np.ndarray, *given, **how) -> np.ndarray:
    """Losses, see Scorer.nats."""
    return self.scorer.nats(self.params, windows, *given, **how)

  def hits(self, windows: np.ndarray, last: int, scale: float = 1.0) -> np.ndarray:
    """See Scorer.hits."""
    return self.scorer.hits(self.params, windows, last, scale)

  def hidden(self, windows: np.ndarray, layer: int, initial: bool) -> np.ndarray:
    """See Scorer.hidden; `initial` is for the weights that training began with."""
    params = jax.jit(self.scorer.blueprint.init)() if initial else self.params
    return self.scorer.hidden(params, windows, layer)
