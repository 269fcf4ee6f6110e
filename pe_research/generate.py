"""Generates text from a saved run.

python -m pe_research.generate --workdir=DIR --prompt='Fellow citizens' --tokens=200
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens, slice_rows
from pe_research.common import checks
from pe_research.data import texts
from pe_research.machines import exits, jax_setup
from pe_research.model.functional import Blueprint
from pe_research.model.transformer import Decoder
from pe_research.runs import run_folder
from pe_research.settings import cli, configs
from pe_research.storage import paths
from pe_research.training import train_state


def choose(logits: jax.Array, key: jax.Array, temperature: float, top_p: float) -> jax.Array:
  """The next token of each row.

  Args:
    logits: float32 [B, V].
    key: randomness.
    temperature: divides the logits; 0 takes the likeliest token.
    top_p: samples among the likeliest tokens that together have this probability (nucleus
      sampling, arXiv:1904.09751); 1 leaves all.

  Returns:
    int32 [B].
  """
  if temperature == 0:
    return logits.argmax(-1).astype(jnp.int32)
  order = jnp.argsort(-logits, axis=-1)
  ranked = jnp.take_along_axis(logits, order, axis=-1) / temperature
  before = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1) - jax.nn.softmax(ranked, axis=-1)
  kept = jnp.where(before < top_p, ranked, -jnp.inf)
  rank = jax.random.categorical(key, kept, axis=-1)
  return jnp.take_along_axis(order, rank[:, None], axis=-1)[:, 0].astype(jnp.int32)


def generate(
  decoder: Decoder,
  prompt: jax.Array,
  tokens: int,
  *,
  key: jax.Array,
  lengths: jax.Array | None = None,
  temperature: float = 1.0,
  top_p: float = 1.0,
  spec: Spec | None = None,
) -> jax.Array:
  """Continues each prompt, one token at a time through the cache.

  Args:
    decoder: a trained model.
    prompt: int [B, P], P at least 1.
    tokens: how many to add.
    lengths: int [B], tokens of each prompt, what follows them being padding; None: all of P.
    key: randomness.
    temperature: see `choose`.
    top_p: see `choose`.
    spec: how to attend; None is dense.

  Returns:
    int32 [B, tokens].

  Raises:
    ValueError: prompt and continuation are longer than the scheme reaches.
  """
  spec, (batch, length) = spec or Spec(), prompt.shape
  filled = decoder.new_cache(batch, length + tokens - 1)
  at = Tokens.contiguous(length)
  if lengths is not None:
    lengths = jnp.asarray(lengths, jnp.int32)
    at = Tokens(at.pos, (at.pos < lengths[:, None]).astype(jnp.int32))
  features, filled = decoder.features(prompt, at, spec, filled)
  if lengths is not None:
    features = slice_rows(features, lengths - 1, 1)
  keys = jax.random.split(key, tokens)
  pick = lambda x, key: choose(decoder.logits(x[:, -1:])[:, 0], key, temperature, top_p)

  def step(carry, key):
    token, filled = carry
    at = Tokens(filled.used[:, None])
    features, filled = decoder.features(token[:, None], at, spec, filled)
    following = pick(features, key)
    return (following, filled), following

  first = pick(features, keys[0])
  _, rest = lax.scan(step, (first, filled), keys[1:])
  return jnp.concatenate([first[:, None], rest.T], axis=1)


def main(argv: list[str]) -> None:
  """Prints the prompt and its continuation."""
  parser = cli.parser('pe_research.generate', __doc__)
  parser.add_argument('--workdir', type=paths.place, required=True, help='of a trained run')
  parser.add_argument('--step', type=int, help='a checkpoint other than the newest')
  parser.add_argument('--prompt', default='The ')
  parser.add_argument('--tokens', type=int, default=200)
  parser.add_argument('--temperature', type=float, default=0.8, help='0: the likeliest token')
  parser.add_argument('--top-p', type=float, default=0.95)
  parser.add_argument('--seed', type=int, default=0)
  given = parser.parse_args(argv)
  with exits.errors():
    checks.at_least('--tokens', given.tokens, 1)
    checks.at_least('--temperature', given.temperature, 0)
    if not 0 < given.top_p <= 1:
      raise ValueError(f'--top-p is {given.top_p}; it must be in (0, 1].')
    if not given.prompt:
      raise ValueError('--prompt is empty; give at least one character.')
    config = configs.anywhere(run_folder.load_config(given.workdir))
    jax_setup.prepare(config)
    blueprint, corpus = Blueprint(config), texts.load(config)
    run_folder.check_data(given.workdir, corpus.facts)
    tokenizer = corpus.tokenizer
    prompt = np.asarray(tokenizer.encode(given.prompt.encode()), np.int32)
    blueprint.scheme.check_length(prompt.size + given.tokens - 1)
    params, _ = train_state.load_params(config, given.workdir, given.step)
    run = jax.jit(
      lambda params, prompt, key: generate(
        blueprint.bind(params),
        prompt,
        given.tokens,
        key=key,
        temperature=given.temperature,
        top_p=given.top_p,
        spec=Spec(**config['attention']),
      )
    )
    out = run(params, prompt[None], jax.random.key(given.seed))
    text = tokenizer.decode(np.concatenate([prompt, np.asarray(out[0])]))
    print(text.decode('utf-8', errors='replace'))


if __name__ == '__main__':
  main(sys.argv[1:])
