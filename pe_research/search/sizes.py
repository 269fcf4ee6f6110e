"""How large a search is, and the names of its methods: what a command line may say."""

import dataclasses

from pe_research.common import checks

METHODS = ('paper', 'released', 'random', 'coordinate', 'yarn_grid')
DOCUMENTS = 5  # of training, that candidates are tried on
# Two cores: candidates of 1,280 tokens run at 77 a second alone and at 54 a dozen at once.
BATCH_TOKENS = 2_048
MEANS = {  # of the fields of Settings
  'population': 'candidates of the first generation',
  'mutations': 'mutants a generation',
  'crossovers': 'crossovers a generation',
  'iterations': 'generations after the first',
  'parents': 'the best that a generation is bred from',
  'probability': 'of redrawing a factor in a mutation',
  'seed': 'of all draws',
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Sizes of the search; the defaults are the paper's, sec. 4.1, for targets up to 256k tokens.

  Attributes:
    population: P, candidates of the first generation.
    mutations: N1, mutants a generation.
    crossovers: N2, crossovers a generation.
    iterations: T, generations after the first.
    parents: k, the best that a generation is bred from.
    probability: p, of redrawing a factor in a mutation.
    seed: of all draws.
  """

  population: int = 64
  mutations: int = 16
  crossovers: int = 16
  iterations: int = 40
  parents: int = 32
  probability: float = 0.3
  seed: int = 0

  def __post_init__(self):
    for field in ('population', 'mutations', 'parents'):
      checks.at_least(f'--{field}', getattr(self, field), 1)
    for field in ('crossovers', 'iterations', 'seed'):
      checks.at_least(f'--{field}', getattr(self, field), 0)
    if not 0 < self.probability <= 1:
      raise ValueError(f'--probability is {self.probability}; it must be in (0, 1].')

  @property
  def evaluations(self) -> int:
    """Of the whole search: 1,344 by default.

    Algorithm 1 as printed never evaluates what the last iteration breeds; the authors' code does,
    and so does this.
    """
    return self.population + self.iterations * (self.mutations + self.crossovers)
