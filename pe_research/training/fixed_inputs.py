"""Code on the host that decides batches, shown by what it makes of fixed inputs."""

from collections.abc import Mapping
from typing import Any

from pe_research.common import digest, sharding
from pe_research.data import batches, texts, tokenizers
from pe_research.evaluation.fixed_inputs import Source, documents
from pe_research.training import train_step

BATCHES = 3  # that are drawn
SEED = 2**32 + 2**31 + 7


def of_batches(config: Mapping[str, Any], tokenizer: tokenizers.Tokenizer) -> str:
  """The first batches that a config draws of made-up documents, and a seed as the step gets it.

  The scheme has no part in them, and neither has where the text comes from.
  """
  windows = config['length'] + 1
  source = Source([windows * 8 * (1 + i % 3) + 5 * i for i in range(6)])
  held = None if config['data']['loader'] == 'grain' else documents(source, tokenizer)
  corpus = texts.Corpus(held, source, held, tokenizer, {})
  plain = dict(config) | {'data': config['data'] | {'seed': 0}}
  stream = batches.build(corpus, plain, beyond=0)
  for _ in range(BATCHES):
    next(stream)
  seed = train_step.seed({'seed': SEED}, sharding.one_device())
  return digest.of_json([stream.chain, int(seed)])
