"""Writes what a sweep found: all rows, a figure, and a page that needs nothing but itself.

  python -m experiments.report --workdir=results/demo

DIR/runs holds the workdirs of the runs; the files are written into DIR.
"""

import pathlib
import sys

from pe_research.machines import exits
from pe_research.settings import cli


def main(argv: list[str]) -> None:
  """Reads the runs of a sweep, compares them and reports."""
  parser = cli.parser('experiments.report', __doc__)
  parser.add_argument('--workdir', type=pathlib.Path, required=True, metavar='DIR')
  parser.add_argument('--allow-different', action='append', default=[], metavar='FIELD')
  parser.add_argument('--explorer', action='store_true', help='also a page to explore the runs')
  parser.add_argument(
    '--stretch', action='append', default=[], metavar='NAME:...', help='to look at in that page'
  )
  arguments = parser.parse_args(argv)
  with exits.errors():
    from experiments.report import writer  # slow to import, and --help needs none of it
    from experiments.studies import comparability

    if arguments.stretch and not arguments.explorer:
      raise ValueError('--stretch is for the page to explore; give --explorer, too.')
    workdirs = sorted(p for p in (arguments.workdir / 'runs').glob('*') if p.is_dir())
    if not workdirs:
      raise ValueError(
        f'{arguments.workdir / "runs"} holds no runs; --workdir names the directory of a sweep.'
      )
    runs = comparability.load(workdirs)
    marks = comparability.check(runs, arguments.allow_different)
    writer.publish(runs, arguments.workdir, marks, arguments.explorer, arguments.stretch)


if __name__ == '__main__':
  main(sys.argv[1:])
