"""Writes the report of a sweep: all rows, a figure, and a page that needs no other file.

  python -m experiments.report --workdir=results/demo
  python -m experiments.report results/alibi results/rope --workdir=results/both

The files are written into DIR. The first command compares the runs in DIR/runs, the second those
that it names.
"""

import pathlib
import sys

from pe_research.machines import exits
from pe_research.settings import cli
from pe_research.storage import files


def main(argv: list[str]) -> None:
  """Reads the runs of a sweep, compares them and reports."""
  parser = cli.parser('experiments.report', __doc__)
  parser.add_argument('runs', nargs='*', type=pathlib.Path, metavar='RUN', help='default: DIR/runs')
  parser.add_argument(
    '--workdir', type=pathlib.Path, metavar='DIR', help='default: results/report, for named runs'
  )
  parser.add_argument('--allow-different', action='append', default=[], metavar='FIELD')
  parser.add_argument(
    '--explorer', action='store_true', help='also write explorer.html, of the runs'
  )
  parser.add_argument(
    '--stretch', action='append', default=[], metavar='NAME:...', help='also shown there'
  )
  arguments = parser.parse_args(argv)
  with exits.errors():
    from experiments.report import writer  # slow to import, and --help needs none of it
    from experiments.studies import comparability

    if arguments.stretch and not arguments.explorer:
      raise ValueError('--stretch is shown in explorer.html only; add --explorer.')
    if not (arguments.runs or arguments.workdir):
      raise ValueError('name runs to compare, or --workdir=DIR of a sweep.')
    workdir = arguments.workdir or pathlib.Path('results/report')
    folders = (workdir / 'runs').glob('*')
    workdirs = arguments.runs or sorted(path for path in folders if path.is_dir())
    if not workdirs:
      raise ValueError(
        f'{workdir / "runs"} holds no runs; --workdir names the directory of a sweep. To compare '
        'runs that lie elsewhere, name them: python -m experiments.report RUN RUN.'
      )
    files.check_writable(workdir / 'report.html', makes_folder=True)
    runs = comparability.load(workdirs)
    differences = comparability.check(runs, arguments.allow_different)
    writer.publish(runs, workdir, differences, arguments.explorer, arguments.stretch)


if __name__ == '__main__':
  main(sys.argv[1:])
