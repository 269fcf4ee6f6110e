"""Measures speed on this machine and prints one JSON line.

python -m experiments.bench train --width=128 --layers=4 --heads=4 --batch=32 --length=128
python -m experiments.bench forward --position=alibi --length=16384
python -m experiments.bench decode --batch=16 --length=256
python -m experiments.bench search --length=256 --batch=5
python -m experiments.bench together --seeds=4 --width=64 --layers=3 --length=64
python -m experiments.bench scaling --workdir=results/bench
python -m experiments.bench peers --peers-python=PYTHON --workdir=results/bench
python -m experiments.bench faults --minutes=10 --seed=1

scaling and peers run the other modes in processes of their own: scaling draws time and memory of a
forward pass against length, peers alternates with PyTorch models on the same work. faults kills
commands and damages files, and prints what survived.
"""

import argparse
import json
import pathlib
import sys

from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import locks

MEASURES = ('train', 'forward', 'decode', 'search', 'together')
SIZES = {'width': 128, 'layers': 4, 'heads': 4, 'batch': 32, 'length': 128, 'steps': 20,
         'tokens': 64, 'candidates': 64, 'seeds': 4}  # fmt: skip


def parser() -> argparse.ArgumentParser:
  """Flags of every mode."""
  flags = cli.parser('experiments.bench', __doc__)
  add = flags.add_argument
  add('mode', choices=(*MEASURES, 'scaling', 'peers', 'faults'))
  add('--position', default='rope')
  add('--mlp', default='swiglu')
  add('--dtype', default='float32')
  add('--attention', help="default: 'dense' to train, 'tiled' for one forward pass")
  for name, default in SIZES.items():
    add(f'--{name}', type=int, default=default)
  add('--workdir', type=pathlib.Path, help='of the results of scaling and peers')
  add('--rounds', type=int, default=5, help='of peers')
  add('--peers-python', metavar='PYTHON', help='that has torch, transformers and x-transformers')
  add('--minutes', type=float, default=2.0, help='of faults')
  add('--seed', type=int, default=0, help='of faults')
  add('--trial', type=int, metavar='N', help='of faults: this one alone, once more')
  return flags


def main(argv: list[str]) -> int:
  """Prints the settings and what was measured; the exit status is 1 if faults lost something."""
  given = parser().parse_args(argv)
  given.attention = given.attention or ('tiled' if given.mode == 'forward' else 'dense')
  with exits.errors():
    if given.mode == 'faults':
      from experiments.faults import campaign  # forks, so it is the first to import JAX

      return campaign.run(given)
    from experiments.bench import measure, peers, scaling  # slow to import

    if given.mode in ('scaling', 'peers'):
      if given.workdir is None:
        raise ValueError(f'{given.mode} needs --workdir=DIR for its results.')
      with locks.claim(given.workdir):
        {'scaling': scaling.run, 'peers': peers.run}[given.mode](given)
      return 0
    exits.restart_tuned()
    import jax

    jax.config.update('jax_enable_compilation_cache', False)  # compiling is measured as well
    figures = getattr(measure, given.mode)(given)
  about = {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
  settings = {name: getattr(given, name) for name in ('mode', 'position', 'mlp', 'dtype', *SIZES)}
  print(json.dumps(settings | {'attention': given.attention} | figures | about), flush=True)
  return 0


if __name__ == '__main__':
  raise SystemExit(main(sys.argv[1:]))
