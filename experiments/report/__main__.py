"""python -m experiments.report; see the package."""

import sys

from experiments import report

report.main(sys.argv[1:])
