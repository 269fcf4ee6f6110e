"""An interactive page of positional schemes, with every value from the modules that train.

python -m pe_research.explorer                                      explorer.html
python -m pe_research.explorer --workdir=RUN --workdir=RUN          and what those runs learned
python -m pe_research.explorer --workdir=RUN --stretch=yarn:factor=4
python -m pe_research.explorer --workdir=RUN --stretch=longrope:file=FACTORS  as a search left them
python -m pe_research.explorer --figure=png --out=panels.png        for a paper
"""

import pathlib
import sys
from collections.abc import Sequence

from pe_research.common import checks
from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files

LARGE = 3e6  # bytes of a page


def main(argv: Sequence[str]) -> None:
  """Writes the page, or the figure."""
  parser = cli.parser('pe_research.explorer', __doc__)
  add = parser.add_argument
  add('--out', help='file to write (default: explorer.html, or panels.svg or .png)')
  add('--workdir', action='append', default=[], help='a finished run to look into; repeatable')
  add('--stretch', action='append', default=[], help='extension to look at, of every such run')
  add('--figure', choices=('svg', 'png'), help='draws the panels alone, a PNG at 1x and 2x')
  add('--schemes', help='in the panels, a,b,...; default: one of each family')
  add('--length', type=int, default=16, help='tokens of the figure (%(default)s)')
  add('--head', type=int, default=0, help='head of the figure (%(default)s)')
  given = parser.parse_args(argv)
  with exits.errors():
    import jax  # slow to import, as are the next, and --help needs none of them

    from pe_research import positions
    from pe_research.show import explorer

    jax.config.update('jax_platforms', 'cpu')  # a few numbers: no accelerator need wake up
    names = given.schemes.split(',') if given.schemes else list(positions.FAMILIES)
    for name in names:
      positions.scheme(name)
    checks.at_least('--length', given.length, 2, 'tokens')
    checks.at_least('--head', given.head, 0)
    target = pathlib.Path(
      given.out or (f'panels.{given.figure}' if given.figure else 'explorer.html')
    )
    wanted = f'.{given.figure or "html"}'
    if target.suffix != wanted:
      raise ValueError(f'--out={target} does not end in {wanted}; name a file that does.')
    workdirs = [pathlib.Path(workdir) for workdir in given.workdir]
    if given.figure:
      from pe_research.show.explorer import figure  # Altair and its compiler take a second

      shown = explorer.schemes(workdirs, given.stretch)
      spec = figure.drawn([shown[name] for name in names], given.length, given.head)
      made = figure.written(spec, given.figure)
    else:
      made = {'.html': explorer.html(workdirs, given.stretch, names).encode()}
    for end, contents in made.items():
      path = target.with_name(f'{target.stem}{end}')
      files.write_bytes(path, contents)
      print(f'wrote {path}, {len(contents) / 1e6:.1f} MB')
      if end == '.html' and len(contents) > LARGE:
        print(f'Over {LARGE / 1e6:g} MB a page opens slowly: name fewer runs or stretches.')


if __name__ == '__main__':
  main(sys.argv[1:])
