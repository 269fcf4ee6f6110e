"""Settings of engines are data: no shell runs a part of them, where jobs are submitted or run."""

import dataclasses
import subprocess

import pytest
import yaml
from engine_cases import SETTINGS, each_engine

from launch.engines import base, gcloud

NASTY = (  # allowed in a path, and quoted wherever it goes
  "it's mine",
  'x; touch injected',
  'x$(touch injected)',
  'x`touch injected`',
  "x' ; touch injected ; '",
  'x" ; touch injected ; "',
  'x$$y $(HOME)',
  'x && touch injected #',
  'x | touch injected',
  '^;^x;pe-command=touch injected',
)
PROGRAMS = {  # in place of those that submit and start jobs; the last words of srun are a command
  'kubectl': 'true', 'gcloud': 'true', 'sky': 'true', 'sbatch': 'true',
  'srun': 'while [ "$1" != bash ]; do shift; done; exec "$@"',
}  # fmt: skip


def run_by_machines(name, one):
  """The shell text that machines run for a submission."""
  if name == 'gcloud':
    given = next(word for word in one.command if word.startswith('--metadata='))
    delimiter, _, listed = given.removeprefix('--metadata=^').partition('^')
    return dict(part.partition('=')[::2] for part in listed.split(delimiter))['pe-command']
  (text,) = one.files.values()
  if name.startswith('slurm'):
    return text
  task = yaml.safe_load(text)
  if name == 'skypilot':
    return task['run']
  job = task['spec']['replicatedJobs'][0]['template']['spec']
  return job['template']['spec']['containers'][0]['command'][2].replace('$$', '$')


@each_engine
@pytest.mark.parametrize('nasty', NASTY)
def test_a_path_arrives_whole_and_no_shell_runs_a_part_of_it(name, nasty, tmp_path):
  python = tmp_path / nasty / '.venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  bodies = {python: f'printf "%s\\n" "$PE_DATA" "$@" > {tmp_path}/ran'}
  bodies |= {tmp_path / program: body for program, body in PROGRAMS.items()}
  for path, body in bodies.items():
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)
  there = f'gs://mine/{nasty}'
  made = dataclasses.replace(SETTINGS[name], checkout=nasty, data=there)
  (one,) = made.submissions(there, {0: 'alibi-0'}, 1)
  variables = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'SLURM_ARRAY_TASK_ID': '0'}
  for text in (base.show([one]), run_by_machines(name, one)):
    done = subprocess.run(
      ['bash', '-c', text], cwd=tmp_path, env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
  assert not list(tmp_path.rglob('injected'))
  said = (tmp_path / 'ran').read_text().splitlines()
  assert said[:6] == [there, '-m', 'launch', 'run', there, '--share=0/1']


@each_engine
def test_no_setting_that_a_script_would_run_is_taken(name):
  texts = [field for field, value in vars(SETTINGS[name]).items() if isinstance(value, str)]
  assert len(texts) > 3
  for field in texts:
    for bad in ('x\ntouch y', 'x\nEND\ntouch y', 'x\x00'):
      with pytest.raises(ValueError, match=field):
        dataclasses.replace(SETTINGS[name], **{field: bad})
    if field not in base.QUOTED:
      for bad in ('x; touch y', 'x$(touch y)', 'x`touch y`', 'x"', "x'", 'x y', 'x|y', 'x&y'):
        with pytest.raises(ValueError, match=field):
          dataclasses.replace(SETTINGS[name], **{field: bad})


def test_a_list_of_gcloud_is_cut_where_values_are_not():
  values = {'a': 'x;y', 'b': 'z|w'}
  made = gcloud.delimited(values)
  delimiter, _, listed = made[1:].partition('^')
  assert dict(part.partition('=')[::2] for part in listed.split(delimiter)) == values


def test_a_text_ends_where_it_ends():
  text = 'one\nEND\ntwo'
  shown = base.show([base.Submission('x', ('true',), {'file': text})])
  assert shown == f"cat > file <<'END_'\n{text}\nEND_\ntrue"
