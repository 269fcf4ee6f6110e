"""Jobs of claims: each does something of its own, and a file of them is what was planned."""

import pytest

from experiments import campaign, claims, scales
from launch import job

SEEDS = 2


@pytest.mark.parametrize('scale', scales.SCALES)
def test_jobs_of_all_claims_are_written_and_read(scale, tmp_path):
  every = list(claims.CLAIMS.values())
  planner, _ = campaign.prepare(every, scales.SCALES[scale], SEEDS, tmp_path / 'runs')
  jobs = planner.jobs()
  assert sum(one.continues for one in jobs) >= SEEDS  # measures what its training left
  job.write(tmp_path / 'jobs.json', jobs)
  assert job.read(tmp_path / 'jobs.json') == jobs
