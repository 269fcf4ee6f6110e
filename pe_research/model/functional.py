"""A decoder as a pure function of a flat dict of parameters, {'blocks/0/...': array}."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from pe_research.model import transformer
from pe_research.model.decoder_config import DecoderConfig


def of_position(path: str) -> bool:
  """Whether a parameter is there for a scheme's sake: its own, or latent attention's slice."""
  return any(part.startswith('position') for part in path.split('/'))


class Blueprint:
  """What a resolved config says about the model; parameters come and go as arguments.

  NNX walks the module graph at every call, which a small model feels. Here the graph is split off
  once, and paths name parameters in sharding rules, checkpoints and records alike.
  """

  def __init__(self, config: Mapping[str, Any]):
    """Reads model, position, data.vocab, length and seed of a resolved config."""
    self.model = DecoderConfig.of(config)
    self.position, self.length = config['position'], config['length']
    window = config['attention']['window']
    self.seed = config['seed']
    abstract = nnx.eval_shape(self._create)
    self.scheme = abstract.position[0]  # the first layer's, where each has its own; shapes only
    windows = [[w for w in (self.length, window, s.sees) if w] for s in abstract.position]
    self.windows = [min(known) for known in windows]  # tokens that a query sees in training
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
    """Numbers of parameters, and matrix-product FLOPs of one training step's token.

    A multiply-add counts 2; backward twice forward; causal attention counts each visible pair once.
    """
    shapes = jax.eval_shape(self.init)
    count = lambda keep: sum(int(np.prod(s.shape)) for name, s in shapes.items() if keep(name))
    own = count(of_position)
    products = count(lambda name: name.endswith('kernel')) + self.model.vocab * self.model.width
    attention = self.model.products(self.scheme.encodes())
    seen = np.minimum(np.arange(1, self.length + 1)[None], np.array(self.windows)[:, None])
    mean_context = float(seen.mean())
    return {
      'parameters': count(lambda name: True),
      'position_parameters': own,
      'train_flops_per_token': int(3 * 2 * (products + attention * mean_context)),
    }
