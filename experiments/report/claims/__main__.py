"""Decides the committed claims again, by the rule of this code, from their committed rows.

python -m experiments.report.claims --scale=cpu
"""

import json
import sys

from experiments import claims
from experiments.studies import scales
from pe_research.settings import cli
from pe_research.storage import files


def main(argv: list[str]) -> None:
  """Writes verdict.json of every claim that has the variants that were run."""
  parser = cli.parser('experiments.report.claims', __doc__)
  parser.add_argument('--scale', default='cpu', choices=scales.SCALES)
  scale = scales.SCALES[parser.parse_args(argv).scale]
  from experiments.report.claims import rows  # slow to import, and --help needs none of it
  from experiments.studies import ledger, preregistration

  plan = rows.planner(scale)
  for claim in claims.CLAIMS.values():
    file = ledger.path(scale.name, claim, 'verdict.json')
    kept = files.read_json(file)
    if kept and tuple(kept['verdicts']) == claim.variants:
      finding, _ = ledger.decide_kept(plan, claim)
      commits = {run['commit'] for run in finding.record['runs']}
      finding.record['registered'] = preregistration.since(claim, commits, scale.name)
      files.write_bytes(file, json.dumps(ledger.as_json(finding), indent=1).encode())
    elif kept:
      print(f'{file.name} is of other variants than {claim.id} has; run the claim again.')


if __name__ == '__main__':
  main(sys.argv[1:])
