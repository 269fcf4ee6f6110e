"""The start script of a TPU VM, among programs that only note how they were called."""

import signal
import subprocess
import time

import pytest
import run_fixtures

VM = {
  'pe-repository': 'https://github.com/me/pe', 'pe-commit': 'c' * 40, 'pe-command': 'work all',
  'pe-name': 'alibi-0', 'zone': 'projects/1/zones/us-west4-a',
}  # fmt: skip
GONE = 'gcloud compute tpus queued-resources delete alibi-0 --zone=us-west4-a --force'
SAVES = """
trap "echo told >> {noted}; exit 75" TERM
echo waits >> {noted}
while true; do sleep 0.1; done
"""


def prepare(folder, work='exit 0\n', clone='mkdir -p "${@: -1}/.git"', **metadata):
  """The environment of a VM with that metadata, whose share of the sweep is the script `work`."""
  noted = folder / 'noted'
  say = f'printf "%s " "$(basename "$0")" "$@" >> {noted}; echo >> {noted}\n'
  answers = ''.join(f'  */{k}) echo -n "{v}";;\n' for k, v in metadata.items())
  for key in ('maintenance-event', 'preempted'):  # a notice comes when the test writes it
    answers += f'  */{key}\\?wait_for_change=true*) cat {folder}/{key};;\n'
  bodies = {
    'curl': f'case "${{@: -1}}" in\n{answers}  *) exit 22;;\nesac\n',
    'git': say + f'if [ "$1" = clone ]; then {clone}; fi\n',
    'python3': say + 'mkdir -p .venv\n',
    'gcloud': say,
    'sleep': 'exec /bin/sleep 0.1\n',
    'work': say + f'echo "rank $PE_RANK of $PE_HOSTS" >> {noted}\n' + work.format(noted=noted),
  }
  for name, body in bodies.items():
    (folder / name).write_text(f'#!/bin/bash\n{body}')
    (folder / name).chmod(0o755)
  return {'PATH': f'{folder}:/usr/bin:/bin', 'PE_CHECKOUT': str(folder / 'checkout')}


def start(folder, *given, **metadata):
  """Starts launch/tpu_vm.sh on such a VM."""
  return subprocess.Popen(
    ['bash', 'launch/tpu_vm.sh'], cwd=run_fixtures.ROOT, env=prepare(folder, *given, **metadata),
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip


def lines(folder):
  """What was noted."""
  return (folder / 'noted').read_text().splitlines() if (folder / 'noted').exists() else []


def until(folder, line):
  """Waits for a line to be noted."""
  deadline = time.monotonic() + 60
  while line not in lines(folder):
    assert time.monotonic() < deadline, lines(folder)
    time.sleep(0.05)


def ends(process, folder):
  """Its status, what it said, and what was noted."""
  _, said = process.communicate(timeout=60)
  return process.returncode, said, lines(folder)


@pytest.mark.parametrize('script', ['launch/tpu_vm.sh', '.ci/run'])
def test_scripts_pass_shellcheck(script):
  assert not run_fixtures.shellcheck(run_fixtures.ROOT / script)


@pytest.mark.parametrize('status', [0, 1])
def test_a_vm_does_its_share_and_goes(status, tmp_path):
  found, said, noted = ends(start(tmp_path, f'exit {status}\n', **VM), tmp_path)
  assert found == status, said
  checkout = tmp_path / 'checkout'
  assert noted[0].startswith(f'git clone --quiet https://github.com/me/pe {checkout}')
  assert f'git -C {checkout} checkout --quiet --detach {"c" * 40}' in noted[2]
  assert any('launch/requirements-tpu.txt' in line for line in noted)
  assert noted[-3].startswith('work all') and noted[-2] == 'rank 0 of '
  assert noted[-1].startswith(GONE)
  *_, noted = ends(start(tmp_path, f'exit {status}\n', **VM), tmp_path)
  assert [line.split()[0] for line in noted[-5:]] == ['git', 'git', 'work', 'rank', 'gcloud']


def test_a_vm_of_several_knows_so_and_does_not_delete_all(tmp_path):
  more = {'agent-worker-number': '3', 'worker-network-endpoints': 'a:b:c,d:e:f,g:h:i,j:k:l'}
  *_, noted = ends(start(tmp_path, **VM, **more), tmp_path)
  assert noted[-1] == 'rank 3 of 4'


def test_work_that_stopped_by_itself_goes_on(tmp_path):
  twice = 'if [ ! -e stopped ]; then touch stopped; exit 75; fi\n'
  status, _, noted = ends(start(tmp_path, twice, **VM), tmp_path)
  assert status == 0 and [line.split()[0] for line in noted[-5:]] == [
    'work', 'rank', 'work', 'rank', 'gcloud',
  ]  # fmt: skip


def test_a_vm_that_is_told_to_leave_passes_that_on_waits_and_is_kept(tmp_path):
  process = start(tmp_path, SAVES, **VM)
  until(tmp_path, 'waits')
  process.send_signal(signal.SIGTERM)
  status, said, noted = ends(process, tmp_path)
  assert status == 0 and noted[-1] == 'told', said


@pytest.mark.parametrize(
  'key, value',
  [('maintenance-event', 'TERMINATE_ON_HOST_MAINTENANCE'), ('preempted', 'TRUE')],
)
def test_a_notice_of_google_tells_the_run_to_leave(key, value, tmp_path):
  (tmp_path / 'maintenance-event').write_text('NONE')
  (tmp_path / 'preempted').write_text('FALSE')
  process = start(tmp_path, SAVES, **VM)
  until(tmp_path, 'waits')
  time.sleep(0.5)
  assert process.poll() is None
  (tmp_path / key).write_text(value)
  status, said, noted = ends(process, tmp_path)
  assert status == 0 and noted[-1] == 'told', said


def test_a_vm_that_cannot_begin_goes(tmp_path):
  status, _, noted = ends(start(tmp_path, 'exit 0\n', 'exit 128', **VM), tmp_path)
  assert status == 128 and noted[-1].startswith(GONE)


def test_a_vm_without_a_command_says_so(tmp_path):
  given = {k: v for k, v in VM.items() if k not in ('pe-command', 'pe-name')}
  status, said, noted = ends(start(tmp_path, **given), tmp_path)
  assert status != 0 and 'set PE_COMMAND, or metadata pe-command' in said
  assert not noted
