"""Prints digests of the programs that train a config: with its scheme, and with it taken out.

  python -m pe_research.programs --config=configs/lm.py:position=rope
  python -m pe_research.programs --config=configs/lm.py:position=rope --out=DIR

The programs are the initialisation and the training step; --out writes their texts. Two configs
whose programs agree with the scheme taken out differ in their scheme alone.
"""

import sys

from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files, paths


def main(argv: list[str]) -> None:
  """Prints the digests of a config's training."""
  parser = cli.parser('pe_research.programs', __doc__, config=True)
  parser.add_argument(
    '--out', type=paths.place, metavar='DIR',
    help='folder to write the texts of the programs to (default: write none)',
  )  # fmt: skip
  flags, config_flags = parser.parse_known_args(argv)
  with exits.errors():
    from pe_research.settings import configs  # slow to import, and --help needs none of it
    from pe_research.training import programs

    config = configs.resolve(cli.read_config(config_flags))
    rows = [['program', 'scheme', 'sha256']]
    for name, both in programs.of_training(config).items():
      for scheme, program in (('taken out', both.shared), ('as it is', both.own)):
        rows.append([name, scheme, program.digest])
        if flags.out:
          flags.out.mkdir(parents=True, exist_ok=True)
          file = flags.out / f'{name}_scheme_{scheme.replace(" ", "_")}.txt'
          files.write_bytes(file, program.text.encode())
    print('\n'.join(cli.aligned(rows)))
    if flags.out:
      print(f'wrote their texts to {flags.out}')


if __name__ == '__main__':
  main(sys.argv[1:])
