"""Prints the digests of a config's programs, with the scheme taken out and as it is.

  python -m pe_research.programs --config=configs/lm.py:position=rope
  python -m pe_research.programs --config=configs/lm.py:position=rope --out=DIR

They are those of the draw of initial parameters and of the training step; --out writes the texts.
"""

import sys

from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files, paths


def main(argv: list[str]) -> None:
  """Prints the digests of a config's training."""
  parser = cli.parser('pe_research.programs', __doc__, config=True)
  parser.add_argument('--out', type=paths.place, metavar='DIR', help='where the texts go')
  arguments, rest = parser.parse_known_args(argv)
  with exits.errors():
    from pe_research.settings import configs  # slow to import, and --help needs none of it
    from pe_research.training import programs

    config = configs.resolve(cli.read_config(rest))
    rows = [['program', 'scheme', 'sha256']]
    for name, both in programs.of_training(config).items():
      for scheme, program in (('taken out', both.shared), ('as it is', both.own)):
        rows.append([name, scheme, program.digest])
        if arguments.out:
          arguments.out.mkdir(parents=True, exist_ok=True)
          words = f'{name}_scheme_{scheme.replace(" ", "_")}.txt'
          files.write_bytes(arguments.out / words, program.text.encode())
    print('\n'.join(cli.aligned(rows)))


if __name__ == '__main__':
  main(sys.argv[1:])
