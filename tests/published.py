"""Decoders of every kind that is exported, tiny and with weights that are all different."""

import pathlib
from typing import Any

import golden_models
import jax
import jax.numpy as jnp
import numpy as np

from pe_research.huggingface import exporting, importing
from pe_research.model.functional import FunctionalDecoder
from pe_research.settings import configs

LLAMA = {'embedding_scale': False, 'tied': False}
LAYERED = {'norm': 'layer', 'norm_eps': 1e-5, 'norm_bias': True, 'embedding_scale': False}
BIASED = LAYERED | {'attention_bias': True, 'mlp_bias': True}
MLA = {'projection': 'mla', 'latent': 12, 'query_latent': 10, 'rotary_dim': 4, 'value_dim': 6}
LONG, SHORT = [1.0, 2.0, 3.0, 9.0], [1.0, 1.0, 1.5, 2.0]

TRAINED = 16  # tokens

# NAME: (position, its arguments, model fields).
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
  'ours': ('rope', {}, {}),  # as configs/lm.py has it: tied, embeddings times sqrt(D)
  'llama': ('rope', {}, LLAMA | {'kv_heads': 2, 'projection': 'gqa'}),
  'llama tied': ('rope', {'base': 500.0}, LLAMA | {'tied': True}),
  'llama biased': ('rope', {}, LLAMA | {'attention_bias': True, 'mlp_bias': True, 'norm_eps': 0.1}),
  'llama wide heads': ('rope', {}, LLAMA | {'head_dim': 12, 'kv_heads': 1, 'projection': 'mqa'}),
  'pi': ('pi', {'factor': 4.0}, LLAMA),
  'ntk': ('ntk', {'factor': 4.0}, LLAMA),
  'abf': ('abf', {'new_base': 80_000.0}, LLAMA),
  'dynamic': ('dynamic_ntk', {'factor': 2.0}, LLAMA),
  'by parts': ('ntk_by_parts', {'factor': 4.0}, LLAMA),
  'yarn': ('yarn', {'factor': 4.0, 'beta_fast': 4.0, 'train_length': 8}, LLAMA),
  'yarn unrounded': ('yarn', {'factor': 4.0, 'ramp': 'unrounded', 'attention_factor': 1.3}, LLAMA),
  'yarn mscale': ('yarn', {'factor': 4.0, 'mscale': 2.0, 'mscale_all_dim': 0.5}, LLAMA),
  'llama3': ('llama3', {'factor': 4.0, 'base': 100.0, 'train_length': 8}, LLAMA),
  'longrope': ('longrope', {'factor': 4.0, 'long_factor': LONG}, LLAMA),
  'longrope su': (
    'longrope',
    {'factor': 4.0, 'long_factor': LONG, 'short_factor': SHORT, 'temperature': 'su'}
    | {'train_length': 8},
    LLAMA,
  ),
  'p-rope': ('rope', {'fraction': 0.5, 'partial': 'frequencies'}, LLAMA),
  'p-rope pi': ('pi', {'fraction': 0.5, 'partial': 'frequencies', 'factor': 2.0}, LLAMA),
  'neox': (
    'rope',
    {'fraction': 0.5},
    BIASED | {'mlp': 'gelu_exact', 'parallel': True, 'tied': False},
  ),
  'neox sequential': ('pi', {'factor': 2.0}, BIASED | {'mlp': 'relu', 'attention_bias': False}),
  'neox yarn': (
    'yarn',
    {'fraction': 0.5, 'factor': 4.0, 'attention_factor': 1.0, 'slice_factor': 1.2},
    BIASED | {'mlp': 'gelu', 'tied': True},
  ),
  'neox p-rope': (
    'rope',
    {'fraction': 0.5, 'partial': 'frequencies'},
    BIASED | {'mlp': 'gelu', 'tied': False},
  ),
  'neox longrope': (
    'longrope',
    {'fraction': 0.5, 'factor': 4.0, 'long_factor': [1.0, 3.0], 'slice_factor': 1.2},
    BIASED | {'mlp': 'gelu', 'tied': True},
  ),
  'gpt2': ('learned', {'max_length': 32, 'scaled': False}, BIASED | {'mlp': 'gelu'}),
  'gpt2 ours': ('learned', {'max_length': 32}, BIASED | {'mlp': 'gelu', 'embedding_scale': True}),
  'bloom': ('alibi', {}, BIASED | {'mlp': 'gelu', 'mlp_width': 128, 'embedding_norm': True}),
  'mpt': ('alibi', {}, LAYERED | {'norm_bias': False, 'mlp': 'gelu_exact', 'mlp_width': 128}),
  'deepseek': ('rope', {'layout': 'interleaved'}, LLAMA | MLA),
  'deepseek half': ('pi', {'factor': 4.0}, LLAMA | MLA | {'query_latent': 0}),
  'deepseek biased': ('rope', {}, LLAMA | MLA | {'attention_bias': True}),
  'deepseek 2': ('rope', {'layout': 'interleaved'}, LLAMA | MLA | {'mlp_bias': True}),
  'deepseek yarn': ('yarn', {'factor': 4.0, 'layout': 'interleaved'}, LLAMA | MLA),
  'deepseek mscale': ('yarn', {'factor': 4.0, 'mscale': 1.0, 'mscale_all_dim': 0.5}, LLAMA | MLA),
  'deepseek p-rope': ('rope', {'fraction': 0.5, 'partial': 'frequencies'}, LLAMA | MLA),
  'deepseek eps': ('rope', {}, LLAMA | MLA | {'norm_eps': 0.1}),
  'deepseek longrope': (
    'longrope',
    {'factor': 4.0, 'long_factor': [1.0, 3.0], 'short_factor': [1.0, 1.0], 'slice_factor': 1.2},
    LLAMA | MLA,
  ),
  'deepseek factors': (
    'yarn',
    {'factor': 4.0, 'attention_factor': 1.1, 'slice_factor': 1.2},
    LLAMA | MLA,
  ),
}


def config(name: str) -> dict[str, Any]:
  """The resolved config of a case."""
  position, given, model = CASES[name]
  return resolved(position, given, model)


def resolved(position: str, given: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
  """A resolved config with these changes."""
  from configs import smoke

  made = smoke.get_config(f'position={position},length={TRAINED}').to_dict()
  made['position'] |= given
  made['model'] |= {'heads': 4} | model
  return configs.resolve(made)


def params(config: dict[str, Any], seed: int = 0) -> dict[str, jax.Array]:
  """Weights that are neither zero nor one anywhere, so that none can be left out."""
  shapes = jax.eval_shape(FunctionalDecoder(config).init)
  rng = np.random.default_rng(seed)
  made = {}
  for path, x in shapes.items():
    # Large queries and keys make attention, and so positions, matter.
    size = 2.0 if 'query' in path or 'key' in path else 1.0
    scale = size * x.shape[0] ** -0.5 if len(x.shape) == 2 else 0.3
    center = 1.0 if path.endswith('scale') else 0.0
    made[path] = jnp.asarray(center + scale * rng.normal(size=x.shape), jnp.float32)
  return made


def ids(name: str) -> np.ndarray:
  """int32 [2, L], 24 tokens: more than the model was made for, which transformers' MPT refuses."""
  length = TRAINED if name == 'mpt' else 24
  return np.random.default_rng(1).integers(0, 256, (2, length)).astype(np.int32)


def exported(into: pathlib.Path, name: str = 'llama', **options) -> pathlib.Path:
  """The folder of a case."""
  made = config(name)
  exporting.export(exporting.plan(made), params(made), into, **options)
  return into


def imported(path: pathlib.Path) -> dict[str, jax.Array]:
  """The parameters of a folder."""
  return importing.load(path, golden_models.config_of(path))


def bits(parameters) -> dict[str, bytes]:
  """Of each parameter."""
  return {name: np.asarray(x).tobytes() for name, x in parameters.items()}
