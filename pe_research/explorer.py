"""An interactive page of positional schemes, with every value from the modules that train.

python -m pe_research.explorer                                    explorer.html
python -m pe_research.explorer --workdir=RUN --workdir=RUN        with what those runs learned
python -m pe_research.explorer --workdir=RUN --stretch=yarn:factor=4
python -m pe_research.explorer --workdir=RUN --stretch=longrope:file=FACTORS    from a search
python -m pe_research.explorer --figure=png --out=panels.png      for a paper
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
  add('--out', metavar='FILE', help='(default: explorer.html; panels.svg or .png for a figure)')
  add(
    '--workdir', action='append', default=[], metavar='DIR',
    help='a finished run to show; may be repeated',
  )  # fmt: skip
  add(
    '--stretch', action='append', default=[], metavar='NAME[:argument=value,...]',
    help='also show the runs under this extension; may be repeated',
  )  # fmt: skip
  add('--figure', choices=('svg', 'png'), help='draw only the panels; PNG at 1x and 2x')
  add('--schemes', metavar='A,B,...', help='schemes in the panels (default: one of each family)')
  add('--length', type=int, default=16, help='tokens in the figure (default: %(default)s)')
  add('--head', type=int, default=0, help='head in the figure (default: %(default)s)')
  flags = parser.parse_args(argv)
  with exits.errors():
    import jax  # slow to import, as are the next, and --help needs none of them

    from pe_research import positions
    from pe_research.show import explorer

    jax.config.update('jax_platforms', 'cpu')  # a few numbers: no accelerator is needed
    names = flags.schemes.split(',') if flags.schemes else list(positions.FAMILIES)
    for name in names:
      positions.scheme(name)
    checks.at_least('--length', flags.length, 2, 'tokens')
    checks.at_least('--head', flags.head, 0)
    default = f'panels.{flags.figure}' if flags.figure else 'explorer.html'
    target, suffix = pathlib.Path(flags.out or default), f'.{flags.figure or "html"}'
    if target.suffix != suffix:
      raise ValueError(f'--out={target} does not end in {suffix}; name a file that does.')
    files.check_writable(target)
    workdirs = [pathlib.Path(workdir) for workdir in flags.workdir]
    if flags.figure:
      from pe_research.show.explorer import figure  # Altair and its compiler take a second

      shown = explorer.schemes(workdirs, flags.stretch)
      spec = figure.drawn([shown[name] for name in names], flags.length, flags.head)
      contents = figure.written(spec, flags.figure)
    else:
      contents = {'.html': explorer.html(workdirs, flags.stretch, names).encode()}
    for end, data in contents.items():
      path = target.with_name(f'{target.stem}{end}')
      files.write_bytes(path, data)
      print(f'wrote {path}, {len(data) / 1e6:.1f} MB')
      if end == '.html' and len(data) > LARGE:
        print(f'A page over {LARGE / 1e6:g} MB opens slowly: name fewer runs or stretches.')


if __name__ == '__main__':
  main(sys.argv[1:])
