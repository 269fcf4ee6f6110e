"""What engines are handed: texts that a person has read, and that the engines' own checks pass."""

import dataclasses
import json
import os
import pathlib
import subprocess

import pytest
import run_fixtures
import yaml
from engine_cases import SETTINGS, each_engine, submissions
from etils import epath

from launch.engines import base, gcloud
from launch.job import Job, engine_name
from launch.submit import ENGINES

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'launch'


@each_engine
def test_submissions_are_as_they_were_read(name):
  text = base.show(submissions(name, shares=[1])) + '\n'
  assert text == (GOLDEN / f'{name.replace(" ", "_")}.txt').read_text()


@each_engine
def test_every_share_is_handed_in_once(name):
  text = base.show(submissions(name))
  if name.startswith('slurm'):
    assert '--array=0,1,2%' in text and '--share=$SLURM_ARRAY_TASK_ID/3' in text
  else:
    assert all(text.count(f'--share={i}/3') == 1 for i in range(3))


@pytest.mark.parametrize('name', ['slurm', 'slurm over hosts'])
def test_the_array_script_passes_shellcheck(name, tmp_path):
  (one,) = submissions(name)
  (tmp_path / 'job.sh').write_text(one.files['alibi.sh'])
  assert not run_fixtures.shellcheck(tmp_path / 'job.sh')


@pytest.mark.parametrize('status, queued_again', [(0, False), (1, False), (base.STOPPED, True)])
def test_the_array_script_queues_again_what_was_told_to_leave(status, queued_again, tmp_path):
  (one,) = submissions('slurm over hosts')
  (tmp_path / 'alibi.sh').write_text(one.files['alibi.sh'])
  for name, body in {
    'srun': f'printf "%s\\n" "$@" > ran; exit {status}',
    'scontrol': 'echo $@',
  }.items():
    (tmp_path / name).write_text(f'#!/bin/sh\n{body}\n')
    (tmp_path / name).chmod(0o755)
  environment = {'SLURM_ARRAY_JOB_ID': '7', 'SLURM_ARRAY_TASK_ID': '2'}
  environment['PATH'] = f'{tmp_path}:{os.environ["PATH"]}'
  done = subprocess.run(
    ['bash', 'alibi.sh'], cwd=tmp_path, env=environment, capture_output=True, text=True
  )
  assert done.returncode == status
  assert done.stdout == ('requeue 7_2\n' if queued_again else '')
  said = (tmp_path / 'ran').read_text()
  assert (
    said.startswith('--kill-on-bad-exit=0\n--wait=0\n--cpus-per-task=16\nbash\n-c\ncd ')
    and '--all-chips' in said
  )


def test_the_task_of_skypilot_is_yaml_that_says_the_same():
  one = submissions('skypilot')[2]
  task = yaml.safe_load(one.files['alibi-2.yaml'])
  assert task['name'] == one.name == 'alibi-2' and task['num_nodes'] == 1
  assert task['resources']['accelerators'] == 'H100:8' and task['resources']['use_spot'] is True
  assert task['run'].endswith('--share=2/3\n') and task['setup'].count('\n') == 2
  assert task['resources']['job_recovery']['recover_on_exit_codes'] == [base.STOPPED]
  assert 's3fs' not in one.files['alibi-2.yaml'] and '--detach-run' in one.command
  (one,) = submissions('skypilot', 1, 's3://mine/jobs.json')
  assert 's3fs\n' in one.files['alibi-0.yaml']


@pytest.mark.slow
@pytest.mark.skipif('PE_SKYPILOT' not in os.environ, reason='PE_SKYPILOT names no Python with sky')
@pytest.mark.parametrize(
  'changed',
  [
    {},
    {'accelerators': 'tpu-v5litepod-8', 'cloud': 'gcp', 'spot': False, 'data': "gs://mine/it's"},
  ],
)
def test_skypilot_reads_what_is_written(changed, tmp_path):
  made = dataclasses.replace(SETTINGS['skypilot'], **changed)
  (one,) = made.submissions('gs://mine/jobs.json', {0: 'alibi-0'}, 1)
  (tmp_path / 'task.yaml').write_text(one.files['alibi-0.yaml'])
  code = 'import json, sky; print(json.dumps(sky.Task.from_yaml("task.yaml").to_yaml_config()))'
  done = subprocess.run(
    [os.environ['PE_SKYPILOT'], '-c', code], cwd=tmp_path, capture_output=True, text=True,
    env=os.environ | {'HOME': str(tmp_path)},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  read, written = (
    json.loads(done.stdout.splitlines()[-1]),
    yaml.safe_load(one.files['alibi-0.yaml']),
  )
  recovery = read['resources']['job_recovery']
  assert recovery | written['resources']['job_recovery'] == recovery
  assert read['resources']['use_spot'] is made.spot
  assert set(read['resources']['accelerators']) == {made.accelerators.partition(':')[0]}
  assert read['resources'].get('infra', '') == made.cloud
  assert all(read[name] == written[name] for name in ('name', 'num_nodes', 'setup', 'run'))


def settings_file(tmp_path, **changed):
  given = {'engine': 'jobset'} | dataclasses.asdict(SETTINGS['jobset']) | changed
  text = lambda v: str(v).lower() if isinstance(v, bool) else repr(v)
  path = tmp_path / 'engine.toml'
  path.write_text(''.join(f'{k} = {text(v)}\n' for k, v in given.items() if v is not None))
  return path


def test_settings_are_read_from_toml(tmp_path):
  assert base.load(settings_file(tmp_path), ENGINES) == SETTINGS['jobset']


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'engine': 'borg'}, "engine = 'borg'; it must be one of jobset, gcloud, slurm, skypilot"),
    ({'clusters': 'x'}, "jobset has no setting 'clusters'; it has"),
    ({'context': None, 'queue': None}, 'jobset needs context, queue'),
    ({'jobs': 'two'}, "jobs = 'two' is a str; it must be a int"),
    ({'jobs': 0}, 'jobs is 0; it must be at least 1'),
    ({'restarts': -1}, 'restarts is -1; it must be at least 0'),
    ({'engine': ['jobset']}, "engine = ['jobset']; it must be one of jobset"),
    ({'sweep': 'x' * 40}, 'is not a name for jobset: at most 32 of a-z, 0-9 and hyphens'),
    ({'sweep': 'ALiBi_sweep'}, "for example 'alibi-sweep-"),
    ({'queue': 'a; rm -r .'}, "queue = 'a; rm -r .' has ';'"),
  ],
)
def test_settings_that_cannot_be_are_named(changed, message, tmp_path):
  with pytest.raises(ValueError) as error:
    base.load(settings_file(tmp_path, **changed), ENGINES)
  assert message in str(error.value)


@pytest.mark.parametrize(
  'tpu_type, count',
  [
    ('v5litepod-8', 1),
    ('v5litepod-16', 4),
    ('v6e-4', 1),
    ('v4-8', 1),
    ('v5p-64', 8),
    ('tpu9-2', 0),
  ],
)
def test_types_of_tpu_have_so_many_machines(tpu_type, count):
  assert gcloud.machines(tpu_type) == count


def test_machines_that_a_type_does_not_have_are_refused():
  changed = lambda **given: dataclasses.replace(SETTINGS['gcloud'], **given)
  with pytest.raises(ValueError, match=r'v5litepod-16 has 4; set hosts = 4'):
    changed(tpu_type='v5litepod-16')
  with pytest.raises(ValueError, match=r'v5litepod-8 has 1; set hosts = 1'):
    changed(hosts=2, all_chips=True)
  with pytest.raises(ValueError, match='is not a type'):
    changed(tpu_type='v5litepod16')
  assert changed(tpu_type='v5litepod-16', hosts=4, all_chips=True).hosts == 4


def test_flex_start_is_asked_for_in_place_of_spot():
  changed = lambda **given: dataclasses.replace(SETTINGS['gcloud'], **given)
  (one,) = changed(flex_hours=24, spot=False).submissions('gs://mine/jobs.json', {0: 'alibi-0'}, 1)
  assert one.command[:2] == ('gcloud', 'alpha') and '--spot' not in one.command
  assert {'--provisioning-model=flex-start', '--max-run-duration=24h'} <= set(one.command)
  with pytest.raises(ValueError, match='flex_hours is 169 hours; it must be at most 168'):
    changed(flex_hours=169, spot=False)
  with pytest.raises(ValueError, match='flex_hours is -1; it must be at least 0'):
    changed(flex_hours=-1)
  with pytest.raises(ValueError, match=r'flex_hours = 24 .*; set spot = false'):
    changed(flex_hours=24)


@each_engine
def test_names_are_never_used_twice_and_the_engine_takes_them(name):
  made = SETTINGS[name]
  longest = dataclasses.replace(made, sweep='a' * (made.longest - base.ROOM))
  used = []
  for _ in range(12):
    found = longest.names([0, 1234], used)
    assert found == longest.names([0, 1234], used) and not set(found.values()) & set(used)
    assert all(engine_name(one, made.longest) == one for one in found.values())
    used += found.values()
  assert len(set(used)) == 24


@each_engine
def test_only_a_cluster_with_a_disk_takes_jobs_that_are_not_in_a_bucket(name):
  there, here = pathlib.Path('runs/a'), epath.Path('gs://mine/a')
  job = lambda folder: Job('a', ('-c', 'x'), folder / 'log.txt', folder / 'done.json')
  SETTINGS[name].check('gs://mine/jobs.json', [job(here)])
  for jobs_file, folder in (('jobs.json', here), ('gs://mine/jobs.json', there)):
    if name.startswith('slurm'):
      SETTINGS[name].check(jobs_file, [job(folder)])
    else:
      with pytest.raises(ValueError, match=r'is on this machine, .* --workdir=gs://BUCKET'):
        SETTINGS[name].check(jobs_file, [job(folder)])
  own = dataclasses.replace(SETTINGS[name], data='/data')
  if name.startswith('slurm'):
    own.check('jobs.json', [])
  else:
    with pytest.raises(ValueError, match=r"data = '/data' is on this machine"):
      own.check('gs://mine/jobs.json', [])


def test_wanted_shares_alone_are_handed_in():
  assert [one.name for one in submissions('jobset', 4, shares=[1, 3])] == ['alibi-1', 'alibi-3']
  (array,) = submissions('slurm', 4, shares=[1, 3])
  assert '--array=1,3%8' in array.files['alibi.sh'] and '/4' in array.files['alibi.sh']


def test_machines_that_would_share_jobs_on_a_disk_are_refused():
  alone = dataclasses.replace(SETTINGS['slurm over hosts'], all_chips=False)
  with pytest.raises(ValueError, match=r'share jobs in a bucket only, and jobs\.json is on a disk'):
    alone.check('jobs.json', [])
  dataclasses.replace(SETTINGS['jobset'], all_chips=False).check('gs://mine/jobs.json', [])
