"""What engines are handed: texts that a person has read, and that the engines' own checks pass."""

import dataclasses
import os
import pathlib
import shutil
import subprocess

import pytest
import small
import yaml

from launch import engine
from launch.__main__ import ENGINES
from launch.gcloud import Gcloud
from launch.job import Job, write
from launch.skypilot import Skypilot
from launch.slurm import Slurm
from launch.xpk import Xpk

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'launch'
CLOUD = {'project': 'my-project', 'zone': 'us-west4-a', 'tpu_type': 'v5litepod-8'}
SETTINGS = {
  'xpk': Xpk(sweep='alibi', cluster='mine', image='gcr.io/my-project/pe', hosts=2, **CLOUD),
  'gcloud': Gcloud(
    sweep='alibi', runtime='v2-alpha-tpuv5-lite', repository='https://github.com/me/pe_research',
    commit='0123456789abcdef0123456789abcdef01234567', **CLOUD,
  ),
  'slurm': Slurm(
    sweep='alibi', partition='gpu', logs='/scratch/me/logs', checkout='/home/me/pe_research',
  ),
  'slurm over hosts': Slurm(
    sweep='alibi', partition='gpu', logs='/scratch/me/logs', checkout="/home/me/it's mine", hosts=4,
    together=True,
  ),
  'skypilot': Skypilot(sweep='alibi', accelerators='H100:8', bucket='s3://mine'),
}  # fmt: skip
each_engine = pytest.mark.parametrize('name', SETTINGS)


def shown(name):
  return engine.show(SETTINGS[name].submissions('/bucket/pe/jobs.json', 3)) + '\n'


@each_engine
def test_submissions_are_as_they_were_read(name):
  assert shown(name) == (GOLDEN / f'{name.replace(" ", "_")}.txt').read_text()


@each_engine
def test_every_share_is_handed_in_once(name):
  text = shown(name)
  if name.startswith('slurm'):
    assert '--array=0-2%' in text and '--share=$SLURM_ARRAY_TASK_ID/3' in text
  else:
    assert all(text.count(f'--share={i}/3') == 1 for i in range(3))


@pytest.mark.skipif(shutil.which('shellcheck') is None, reason='no shellcheck on PATH')
@pytest.mark.parametrize('name', ['slurm', 'slurm over hosts'])
def test_the_array_script_passes_shellcheck(name, tmp_path):
  (one,) = SETTINGS[name].submissions('/bucket/pe/jobs.json', 3)
  (tmp_path / 'job.sh').write_text(one.files['alibi.sh'])
  done = subprocess.run(['shellcheck', tmp_path / 'job.sh'], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('status, queued_again', [(0, False), (1, False), (engine.STOPPED, True)])
def test_the_array_script_queues_again_what_was_told_to_leave(status, queued_again, tmp_path):
  (one,) = SETTINGS['slurm over hosts'].submissions('/bucket/pe/jobs.json', 3)
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
  assert said.startswith('--kill-on-bad-exit=1\nbash\n-c\ncd ') and '--together' in said


def test_a_quoted_checkout_survives_both_shells(tmp_path):
  (one,) = SETTINGS['slurm over hosts'].submissions('/bucket/pe/jobs.json', 3)
  line = next(x for x in one.files['alibi.sh'].splitlines() if x.startswith('srun'))
  done = subprocess.run(
    ['bash', '-c', 'srun() { printf "%s\\n" "${@: -1}"; }\n' + line], capture_output=True, text=True
  )
  assert done.stdout.startswith("""cd '/home/me/it'"'"'s mine' && exec .venv/bin/python""")


def test_the_task_of_skypilot_is_yaml_that_says_the_same():
  one = SETTINGS['skypilot'].submissions('/bucket/pe/jobs.json', 3)[2]
  task = yaml.safe_load(one.files['alibi-2.yaml'])
  assert task['name'] == one.name == 'alibi-2' and task['num_nodes'] == 1
  assert task['resources']['accelerators'] == 'H100:8' and task['resources']['use_spot'] is True
  assert task['run'].endswith('--share=2/3\n') and task['setup'].count('\n') == 2


@pytest.mark.skipif('PE_SKYPILOT' not in os.environ, reason='PE_SKYPILOT names no python with sky')
def test_skypilot_reads_the_task(tmp_path):
  one = SETTINGS['skypilot'].submissions('/bucket/pe/jobs.json', 1)[0]
  (tmp_path / 'task.yaml').write_text(one.files['alibi-0.yaml'])
  code = 'import sky; t = sky.Task.from_yaml("task.yaml"); print(t.name, t.num_nodes, t.run)'
  (tmp_path / 'launch').mkdir()
  done = subprocess.run(
    [os.environ['PE_SKYPILOT'], '-c', code], cwd=tmp_path, capture_output=True, text=True
  )
  assert done.returncode == 0 and 'alibi-0 1 cd . &&' in done.stdout, done.stderr


@pytest.mark.skipif('PE_XPK' not in os.environ, reason='PE_XPK names no xpk')
def test_xpk_makes_a_manifest(tmp_path):
  one = SETTINGS['xpk'].submissions('gs://bucket/jobs.json', 2)[1]
  more = ('--dry-run', '--skip-validation', f'--output-manifest-file={tmp_path / "m.yaml"}')
  command = [os.environ['PE_XPK'], *one.command[1:], *more]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  manifest = yaml.safe_load((tmp_path / 'm.yaml').read_text())
  assert manifest['metadata']['name'] == 'alibi-1' and manifest['kind'] == 'JobSet'
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  assert job['parallelism'] == SETTINGS['xpk'].hosts
  pod = job['template']['spec']
  assert pod['terminationGracePeriodSeconds'] == 120
  assert '--share=1/2 --hosts=2' in pod['containers'][0]['command'][2]
  assert engine.STOPPED in job['podFailurePolicy']['rules'][0]['onExitCodes']['values']


def settings_file(tmp_path, **changed):
  given = {'engine': 'xpk'} | dataclasses.asdict(SETTINGS['xpk']) | changed
  text = lambda v: str(v).lower() if isinstance(v, bool) else repr(v)
  path = tmp_path / 'engine.toml'
  path.write_text(''.join(f'{k} = {text(v)}\n' for k, v in given.items() if v is not None))
  return path


def test_settings_are_read_from_toml(tmp_path):
  assert engine.load(settings_file(tmp_path), ENGINES) == SETTINGS['xpk']


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'engine': 'borg'}, "engine = 'borg'; it must be one of xpk, gcloud, slurm, skypilot"),
    ({'clusters': 'x'}, "xpk has no setting 'clusters'; it has"),
    ({'cluster': None, 'zone': None}, 'xpk needs zone, cluster'),
    ({'jobs': 'two'}, "jobs = 'two' is a str; it must be a int"),
    ({'jobs': 0}, 'jobs = 0; it must be at least 1'),
    ({'sweep': 'x' * 40}, 'is no name for xpk: at most 35 of a-z, 0-9 and hyphens'),
    ({'sweep': 'ALiBi_sweep'}, "for example 'alibi-sweep-"),
  ],
)
def test_settings_that_cannot_be_are_named(changed, message, tmp_path):
  with pytest.raises(ValueError) as error:
    engine.load(settings_file(tmp_path, **changed), ENGINES)
  assert message in str(error.value)


def test_missing_programs_and_credentials_are_said_before_anything_is_created(tmp_path):
  jobs, log = tmp_path / 'jobs.json', tmp_path / 'created'
  write(jobs, [Job('a', ('-c', 'x'), tmp_path / 'a' / 'log.txt', tmp_path / 'a' / 'done.json')])
  command = ('-m', 'launch', 'submit', str(jobs), f'--on={settings_file(tmp_path)}')
  done = small.run(*command, PATH=str(tmp_path))
  assert done.returncode == 2 and 'xpk needs xpk, gcloud, kubectl on PATH' in done.stderr
  for name in ('xpk', 'gcloud', 'kubectl'):
    (tmp_path / name).write_text(
      f'#!/bin/sh\n[ $1 = workload ] && echo >> {log}\n[ -e {tmp_path}/in ]\n'
    )
    (tmp_path / name).chmod(0o755)
  path = f'{tmp_path}:/usr/bin:/bin'
  done = small.run(*command, PATH=path)
  assert done.returncode == 2 and 'Sign in first. Nothing was created.' in done.stderr
  assert not log.exists()
  (tmp_path / 'in').touch()
  done = small.run(*command, PATH=path)
  assert done.returncode == 0 and 'alibi-0 submitted' in done.stdout and log.read_text() == '\n'


def test_an_array_is_handed_in_with_its_script(tmp_path):
  jobs = tmp_path / 'jobs.json'
  write(jobs, [Job('a', ('-c', 'x'), tmp_path / 'a' / 'log.txt', tmp_path / 'a' / 'done.json')])
  for name in ('sbatch', 'srun', 'scontrol', 'sinfo'):
    (tmp_path / name).write_text(
      f'#!/bin/sh\n[ {name} = sbatch ] && cat $1 > {tmp_path}/got\nexit 0\n'
    )
    (tmp_path / name).chmod(0o755)
  (tmp_path / 'slurm.toml').write_text(
    'engine = "slurm"\nsweep = "alibi"\npartition = "gpu"\nlogs = "/logs"\n'
  )
  command = ('-m', 'launch', 'submit', str(jobs), f'--on={tmp_path / "slurm.toml"}')
  done = small.run(*command, PATH=f'{tmp_path}:/usr/bin:/bin')
  assert done.returncode == 0, done.stderr
  assert '#SBATCH --array=0-0%8' in (tmp_path / 'got').read_text()


def start_vm(folder, status=0, **metadata):
  """Runs launch/tpu_vm.sh among programs that only note how they were called."""
  noted = folder / 'noted'
  say = f'printf "%s " "$(basename "$0")" "$@" >> {noted}; echo >> {noted}\n'
  answers = ''.join(f'  */{name}) echo -n "{value}";;\n' for name, value in metadata.items())
  bodies = {
    'curl': f'case "${{@: -1}}" in\n{answers}  *) exit 22;;\nesac\n',
    'git': say + 'if [ "$1" = clone ]; then mkdir -p "${@: -1}/.git"; fi\n',
    'python3': say + 'mkdir -p .venv\n',
    'gcloud': say,
    'work': say + f'echo "rank $PE_RANK" >> {noted}; exit {status}\n',
  }
  for name, body in bodies.items():
    (folder / name).write_text(f'#!/bin/bash\n{body}')
    (folder / name).chmod(0o755)
  environment = {'PATH': f'{folder}:/usr/bin:/bin', 'PE_CHECKOUT': str(folder / 'checkout')}
  done = subprocess.run(
    ['bash', 'launch/tpu_vm.sh'], cwd=small.ROOT, env=environment, capture_output=True, text=True
  )
  return done, noted.read_text().splitlines() if noted.exists() else []


VM = {
  'pe-repository': 'https://github.com/me/pe', 'pe-commit': 'c' * 40, 'pe-command': 'work all',
  'pe-name': 'alibi-0', 'zone': 'projects/1/zones/us-west4-a',
}  # fmt: skip
GONE = 'gcloud compute tpus queued-resources delete alibi-0 --zone=us-west4-a --force'


@pytest.mark.skipif(shutil.which('shellcheck') is None, reason='no shellcheck on PATH')
def test_the_start_script_passes_shellcheck():
  done = subprocess.run(
    ['shellcheck', 'launch/tpu_vm.sh'], cwd=small.ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('status', [0, 1])
def test_a_vm_does_its_share_and_goes(status, tmp_path):
  done, noted = start_vm(tmp_path, status, **VM)
  assert done.returncode == status, done.stderr
  checkout = tmp_path / 'checkout'
  assert noted[0].startswith(f'git clone --quiet https://github.com/me/pe {checkout}')
  assert f'git -C {checkout} checkout --quiet --detach {"c" * 40}' in noted[2]
  assert any('launch/requirements-tpu.txt' in line for line in noted)
  assert noted[-3].startswith('work all') and noted[-2] == 'rank 0' and noted[-1].startswith(GONE)
  _, noted = start_vm(tmp_path, status, **VM)
  assert [line.split()[0] for line in noted[-5:]] == ['git', 'git', 'work', 'rank', 'gcloud']


def test_a_vm_that_is_told_to_leave_is_kept_and_one_of_several_does_not_delete_all(tmp_path):
  done, noted = start_vm(tmp_path, engine.STOPPED, **VM)
  assert done.returncode == 0 and not any(line.startswith('gcloud') for line in noted)
  (tmp_path / 'other').mkdir()
  done, noted = start_vm(tmp_path / 'other', **VM, **{'agent-worker-number': '3'})
  assert noted[-1] == 'rank 3'


def test_a_vm_without_a_command_says_so(tmp_path):
  done, noted = start_vm(tmp_path, **{k: v for k, v in VM.items() if k != 'pe-command'})
  assert done.returncode != 0 and 'set PE_COMMAND, or metadata pe-command' in done.stderr
  assert not noted
