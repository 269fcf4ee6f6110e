"""Writes the documentation as a site that opens from a folder and needs no network.

python -m experiments.site --out=site

It has the repository's Markdown, a page for every registered scheme and the docstrings of all
modules. A folder with other files in it is refused.
"""

import pathlib
import sys

from pe_research.machines import exits
from pe_research.settings import cli


def main(argv: list[str]) -> None:
  """Builds it."""
  parser = cli.parser('experiments.site', __doc__)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('site'), help='a folder')
  given = parser.parse_args(argv)
  with exits.errors():
    import jax  # slow to import, and --help does not need it

    from experiments.site import build

    jax.config.update('jax_platforms', 'cpu')  # a few numbers: no accelerator need wake up
    print(f'wrote {build.write(given.out)}')


if __name__ == '__main__':
  main(sys.argv[1:])
