"""Memory of a cached token and speed of decoding, for each projection of heads.

  python -m experiments.cache --workdir=results/demo

Prints bytes per token, by formula and as allocated, and tokens/s of decoding after contexts of
several lengths, and writes them to DIR/cache.json, which the report of DIR shows.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files

PROJECTIONS = {
  'MHA': {'model.projection': 'mha'},
  'GQA, 4 key heads': {'model.projection': 'gqa', 'model.kv_heads': 4},
  'MQA': {'model.projection': 'mqa'},
  'MLA, absorbed': {'model.projection': 'mla'},
  'MLA, expanded': {'model.projection': 'mla', 'attention.absorbed': False},
}
SIZES = {'width': 512, 'layers': 4, 'heads': 16, 'dtype': 'float32'}
STEPS = 16  # tokens decoded in one call


@dataclasses.dataclass(frozen=True)
class Row:
  """One projection.

  Attributes:
    name: of PROJECTIONS.
    formula: bytes per token over all layers, from the sizes.
    allocated: bytes per token, of the arrays.
    speed: tokens/s by context length in tokens.
  """

  name: str
  formula: int
  allocated: int
  speed: dict[str, float]


def parse(argv: list[str]) -> argparse.Namespace:
  """Flags."""
  parser = cli.parser('experiments.cache', __doc__)
  parser.add_argument('--workdir', type=pathlib.Path, metavar='DIR', required=True)
  parser.add_argument('--position', default='rope')
  parser.add_argument('--contexts', type=cli.integers, default=(1024, 4096, 16384), help='a,b,...')
  parser.add_argument('--repeats', type=int, default=3, help='of each timing; the median counts')
  for name, default in {'batch': 1, **SIZES}.items():
    parser.add_argument(f'--{name}', type=type(default), default=default)
  return parser.parse_args(argv)


def setup(given: argparse.Namespace, projection: dict[str, Any], longest: int) -> dict[str, Any]:
  """The resolved config of a decoder with this projection."""
  from pe_research.settings import configs  # slow to import, and --help needs none of it

  fields = {f'model.{size}': getattr(given, size) for size in SIZES} | projection
  flags = [f'--config=configs/lm.py:position={given.position},length={longest}']
  flags += [f'--config.{field}={value}' for field, value in fields.items()]
  return configs.resolve(cli.read_config(flags))


def formula(model: dict[str, Any], encodes: bool) -> int:
  """Bytes per token: 2 G D numbers a layer, or C + R in MLA (arXiv:2405.04434, table 1)."""
  numbers = 2 * model['kv_heads'] * model['head_dim']
  if model['projection'] == 'mla':
    numbers = model['latent'] + (model['rotary_dim'] if encodes else 0)
  return numbers * model['layers'] * {'float32': 4, 'bfloat16': 2}[model['dtype']]


def measure(given: argparse.Namespace, name: str, contexts: Sequence[int]) -> Row:
  """Sizes and speeds of one projection."""
  import jax
  import jax.numpy as jnp
  from jax import lax

  from pe_research.attention.spec import Spec
  from pe_research.attention.tokens import Tokens
  from pe_research.machines import jax_setup
  from pe_research.model.functional import FunctionalDecoder

  config = setup(given, PROJECTIONS[name], max(contexts) + STEPS)
  jax_setup.prepare(config)
  functional, spec = FunctionalDecoder(config), Spec(**config['attention'])
  params = jax.jit(functional.init)()

  @jax.jit
  def decode(params, filled):
    decoder = functional.bind(params)

    def step(carry, _):
      token, filled = carry
      at = Tokens(filled.used[:, None])
      features, filled = decoder.features(token, at, spec, filled)
      return (decoder.logits(features)[:, -1].argmax(-1)[:, None], filled), None

    token = jnp.zeros((given.batch, 1), jnp.int32)
    return lax.scan(step, (token, filled), length=STEPS)[0][0]

  speed = {}
  for context in contexts:
    filled = functional.bind(params).new_cache(given.batch, context + STEPS)
    filled = occupied(filled, context)
    decode(params, filled).block_until_ready()
    seconds = []
    for _ in range(given.repeats):
      start = time.perf_counter()
      decode(params, filled).block_until_ready()
      seconds.append(time.perf_counter() - start)
    speed[str(context)] = round(given.batch * STEPS / statistics.median(seconds), 1)
  own = formula(config['model'], functional.scheme.encodes())
  return Row(name, own, filled.bytes_per_token(), speed)


def occupied(filled, context: int):
  """The cache with `context` random tokens in each row."""
  import jax
  import jax.numpy as jnp

  from pe_research.attention.tokens import Tokens

  shape = filled.at.pos.shape
  index = jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32), shape)
  return dataclasses.replace(
    filled,
    layers=jax.tree.map(
      lambda x: jax.random.normal(jax.random.key(0), x.shape, x.dtype), filled.layers
    ),
    at=Tokens(index, (index < context).astype(jnp.int32)),
    used=jnp.full(shape[0], context, jnp.int32),
  )


def table(rows: list[Row]) -> str:
  """For a terminal."""
  contexts = list(rows[0].speed)
  lines = [['', 'bytes/token', 'allocated', *(f'tokens/s at {int(c):,}' for c in contexts)]]
  lines += [
    [r.name, f'{r.formula:,}', f'{r.allocated:,}', *(f'{r.speed[c]:,.0f}' for c in contexts)]
    for r in rows
  ]
  return '\n'.join(cli.aligned(lines))


def main(argv: list[str]) -> int:
  """Measures one projection after another, prints and writes the table."""
  given = parse(argv)
  from experiments.report.tables import CACHE_FILE

  with exits.errors():
    contexts = given.contexts
    for context in contexts:
      checks.at_least('--contexts', context, 1)
      checks.at_most('--contexts', context, 2**24)
    for field in ('repeats', 'batch'):
      checks.at_least(f'--{field}', getattr(given, field), 1)
    for projection in PROJECTIONS.values():
      setup(given, projection, max(contexts) + STEPS)
    exits.restart_tuned()
    rows = [measure(given, name, contexts) for name in PROJECTIONS]
    print(table(rows))
    import jax

    about = {k: v for k, v in vars(given).items() if k not in ('workdir', 'contexts')}
    about |= {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
    given.workdir.mkdir(parents=True, exist_ok=True)
    found = {'settings': about, 'rows': [dataclasses.asdict(row) for row in rows]}
    files.write_json(given.workdir / CACHE_FILE, found)
    print(f'wrote {given.workdir / CACHE_FILE}')
  return 0


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
