"""Settings of every engine, and what it submits."""

import pytest

from launch.engines.gcloud import Gcloud
from launch.engines.jobset import JobSet
from launch.engines.skypilot import Skypilot
from launch.engines.slurm import Slurm

SETTINGS = {
  'jobset': JobSet(
    sweep='alibi', context='gke_my-project_us-west4-a_mine', queue='tpus', topology='2x4',
    accelerator='tpu-v5-lite-podslice', image='gcr.io/my-project/pe', hosts=2, all_chips=True,
  ),
  'gcloud': Gcloud(
    sweep='alibi', project='my-project', zone='us-west4-a', tpu_type='v5litepod-8',
    runtime='v2-alpha-tpuv5-lite', repository='https://github.com/me/pe_research',
    commit='0123456789abcdef0123456789abcdef01234567', data='gs://mine/data',
  ),
  'slurm': Slurm(
    sweep='alibi', partition='gpu', logs='/scratch/me/logs', checkout='/home/me/pe_research',
  ),
  'slurm over hosts': Slurm(
    sweep='alibi', partition='gpu', logs='/scratch/me/logs', checkout="/home/me/it's mine", hosts=4,
    all_chips=True,
  ),
  'skypilot': Skypilot(sweep='alibi', accelerators='H100:8'),
}  # fmt: skip
each_engine = pytest.mark.parametrize('name', SETTINGS)


def submissions(name, count=3, jobs='gs://mine/pe/jobs.json', shares=None):
  shares = range(count) if shares is None else shares
  return SETTINGS[name].submissions(jobs, SETTINGS[name].names(shares, []), count)
