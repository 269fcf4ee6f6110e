"""Sizes and methods of a search, without the imports that a search needs."""

import dataclasses

from pe_research.common import checks

METHODS = ('paper', 'released', 'random', 'coordinate', 'yarn_grid')
DOCUMENTS = 5  # of training, that candidates are tried on
# On two cores, candidates of 1,280 tokens run at 77 a second alone and at 54 a dozen at once.
BATCH_TOKENS = 2_048
MOST = 1_000_000  # candidates of a generation, and generations


def _size(default: float, text: str):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Settings:
  """Sizes of the search; the defaults are the paper's, sec. 4.1, for targets up to 256k tokens."""

  population: int = _size(64, 'P, candidates of the first generation')
  mutations: int = _size(16, 'N1, mutants in a generation')
  crossovers: int = _size(16, 'N2, crossovers in a generation')
  iterations: int = _size(40, 'T, generations after the first')
  parents: int = _size(32, 'k, how many of the best breed a generation')
  probability: float = _size(0.3, 'p, that a mutation redraws a factor')
  seed: int = _size(0, 'of all draws')

  def __post_init__(self):
    for field in ('population', 'mutations', 'parents'):
      checks.at_least(f'--{field}', getattr(self, field), 1)
    for field in ('crossovers', 'iterations', 'seed'):
      checks.at_least(f'--{field}', getattr(self, field), 0)
    for field in ('population', 'mutations', 'crossovers', 'iterations', 'parents'):
      checks.at_most(f'--{field}', getattr(self, field), MOST)
    checks.at_most('--seed', self.seed, 2**32 - 1)
    if not 0 < self.probability <= 1:
      raise ValueError(f'--probability is {self.probability}; it must be in (0, 1].')

  @property
  def evaluations(self) -> int:
    """Candidates of the whole search: 1,344 by default.

    Algorithm 1 as printed never evaluates the children of the last iteration; the authors' code
    does, and so does this.
    """
    return self.population + self.iterations * (self.mutations + self.crossovers)
