"""A decoder as a pure function of a flat dict of parameters, {'blocks/0/...': array}."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from pe_research.model import transformer
from pe_research.model.decoder_config import DecoderConfig


class FunctionalDecoder:
  """The decoder of a resolved config, with its parameters as arguments and results.

  NNX walks the module graph at every call, which slows small models down. Here the graph is split
  off once. Sharding rules, checkpoints and records name parameters by the same paths.
  """

  def __init__(self, config: Mapping[str, Any]):
    """Reads model, position, data.vocab, length and seed of a resolved config."""
    self.model = DecoderConfig.of(config)
    self.position, self.length = config['position'], config['length']
    window = config['attention']['window']
    self.seed = config['seed']
    abstract = nnx.eval_shape(self._create)
    self.scheme = abstract.position[0]  # the first layer's, where each has its own; shapes only
    # Tokens visible to a query in training, for each scheme.
    self.windows = [min(w for w in (self.length, window, s.sees) if w) for s in abstract.position]
    self.graphdef, state = nnx.split(abstract)
    self.paths = {'/'.join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}

  def _create(self) -> transformer.Decoder:
    key = jax.random.key(self.seed)
    return transformer.Decoder(self.model, self.position, self.length, key=key)

  def init(self) -> dict[str, jax.Array]:
    """The initial parameters, float32."""
    state = nnx.to_flat_state(nnx.split(self._create())[1])
    return {'/'.join(map(str, path)): variable[...] for path, variable in state}

  def bind(self, params: Mapping[str, jax.Array]) -> transformer.Decoder:
    """The decoder with these parameters."""
    flat = [(self.paths[name], nnx.Param(params[name])) for name in self.paths]
    return nnx.merge(self.graphdef, nnx.from_flat_state(flat))

  def sizes(self) -> dict[str, int]:
    """Numbers of parameters, and matrix-product FLOPs per token of a training step.

    A multiply-add counts 2; the backward pass twice the forward pass; causal attention counts each
    visible pair once.
    """
    sizes = {name: int(np.prod(x.shape)) for name, x in jax.eval_shape(self.init).items()}
    kernels = sum(n for name, n in sizes.items() if name.endswith('kernel'))
    products = kernels + self.model.vocab * self.model.width
    attention = self.model.multiply_adds_per_pair(self.scheme.encodes())
    seen = np.minimum(np.arange(1, self.length + 1)[None], np.array(self.windows)[:, None])
    mean_context = float(seen.mean())
    return {
      'parameters': sum(sizes.values()),
      'position_parameters': sum(n for name, n in sizes.items() if is_position_parameter(name)),
      'train_flops_per_token': int(3 * 2 * (products + attention * mean_context)),
    }


def is_position_parameter(path: str) -> bool:
  """Whether a parameter belongs to the scheme, or to the slice of latent attention for position."""
  return any(part.startswith('position') for part in path.split('/'))
