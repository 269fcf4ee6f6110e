"""Generates text from a saved run.

python -m pe_research.generate --workdir=DIR --prompt='Fellow citizens' --tokens=200
"""

import sys

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.runs import run_folder
from pe_research.settings import cli


def main(argv: list[str]) -> None:
  """Prints the prompt and its continuation."""
  parser = cli.parser('pe_research.generate', __doc__)
  add = parser.add_argument
  cli.add_checkpoint(parser, '--workdir')
  add('--prompt', default='The ', metavar='TEXT', help='text to continue (default: %(default)r)')
  add(
    '--tokens', type=int, default=200, metavar='N', help='tokens to generate (default: %(default)s)'
  )
  add(
    '--temperature', type=float, default=0.8, metavar='T',
    help='divides the logits; 0 takes the likeliest token (default: %(default)s)',
  )  # fmt: skip
  add(
    '--top-p', type=float, default=0.95, metavar='P',
    help='draw among the likeliest tokens that together have probability P (default: %(default)s)',
  )  # fmt: skip
  add('--seed', type=int, default=0, metavar='N', help='of the draws (default: %(default)s)')
  given = parser.parse_args(argv)
  with exits.errors():
    checks.at_least('--tokens', given.tokens, 1)
    checks.at_most('--tokens', given.tokens, 2**24)
    checks.at_least('--temperature', given.temperature, 0)
    if not 0 < given.top_p <= 1:
      raise ValueError(f'--top-p is {given.top_p}; it must be in (0, 1].')
    checks.at_least('--seed', given.seed, 0)
    checks.at_most('--seed', given.seed, 2**32 - 1)
    if not given.prompt:
      raise ValueError('--prompt is empty; give at least one character.')
    print(_continued(given))


def _continued(given) -> str:
  """The prompt and its continuation, for flags that were checked."""
  import jax  # slow to import, as is all that follows, and --help needs none of it
  import numpy as np

  from pe_research.attention.spec import Spec
  from pe_research.data import texts
  from pe_research.machines import jax_setup
  from pe_research.model.functional import FunctionalDecoder
  from pe_research.model.generation import generate
  from pe_research.settings import configs
  from pe_research.training import train_state

  config = configs.anywhere(run_folder.load_config(given.workdir))
  jax_setup.prepare(config)
  functional, corpus = FunctionalDecoder(config), texts.load(config)
  run_folder.check_data(given.workdir, corpus.facts)
  prompt = np.asarray(corpus.tokenizer.encode(given.prompt.encode()), np.int32)
  functional.scheme.check_length(prompt.size + given.tokens - 1)
  params, _ = train_state.load_params(config, given.workdir, given.step)

  @jax.jit
  def sample(params, prompt, key):
    return generate(
      functional.bind(params),
      prompt,
      given.tokens,
      key=key,
      temperature=given.temperature,
      top_p=given.top_p,
      spec=Spec(**config['attention']),
    )

  tokens = sample(params, prompt[None], jax.random.key(given.seed))
  text = corpus.tokenizer.decode(np.concatenate([prompt, np.asarray(tokens[0])]))
  return text.decode('utf-8', errors='replace')


if __name__ == '__main__':
  main(sys.argv[1:])
