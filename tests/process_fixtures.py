"""Runs as commands, of one process or of several, and what became of them."""

import json
import math
import socket
import time

import run_fixtures

from pe_research.storage import files

COMMAND = ('-m', 'pe_research.main')
DEVICES = '--xla_force_host_platform_device_count='
LONG = {'steps': 400, 'run__save_every': 1000}  # long enough for a signal to come in between


def train(workdir, flags, **environment):
  done = run_fixtures.run(*COMMAND, *flags, f'--workdir={workdir}', **environment)
  assert done.returncode == 0, done.stderr
  return workdir


def state(workdir):
  """Digest of the last checkpoint's state, as saved beside it."""
  newest = max((workdir / 'checkpoints').iterdir(), key=lambda p: int(p.name))
  return json.loads((newest / 'extra' / 'metadata').read_text())['digest']


def rows(workdir):
  fields = 'eval_length', 'value', 'tokens', 'documents'
  return [[row[f] for f in fields] for row in files.read_rows(workdir / 'results.jsonl')]


def evidence(workdir):
  """What shows how each row was made."""
  fields = 'program', 'own_program', 'inputs', 'arithmetic'
  return [[row[f] for f in fields] for row in files.read_rows(workdir / 'results.jsonl')]


def wait_for(condition, process, seconds=120):
  deadline = time.monotonic() + seconds
  while not condition():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline, 'did not happen'
    time.sleep(0.002)


def assert_same_run(one, other, tolerance=1e-5):
  """Same start, same data, losses to tolerance."""
  runs = [files.read_json(w / 'run.json') for w in (one, other)]
  for field in ('initial_parameters', 'batches', 'fingerprint'):
    assert runs[0][field] == runs[1][field]
  losses, expected = run_fixtures.losses(one), run_fixtures.losses(other)
  assert losses.keys() == expected.keys()
  assert all(math.isclose(losses[s], expected[s], rel_tol=tolerance) for s in expected)
  for row, wanted in zip(rows(one), rows(other), strict=True):
    assert math.isclose(row[1], wanted[1], rel_tol=tolerance)
  assert evidence(one) == evidence(other)


def free_port() -> int:
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def start_all(commands, devices, module=COMMAND[1]):
  """A process for each command, of one run; each has so many devices."""
  among, environment = (
    f'127.0.0.1:{free_port()},{len(commands)}',
    {'XLA_FLAGS': f'{DEVICES}{devices}'},
  )
  return [
    run_fixtures.start('-m', module, *command, f'--distributed={among},{rank}', **environment)
    for rank, command in enumerate(commands)
  ]


def join(processes, timeout=240):
  """What each said; none is left behind."""
  try:
    return [process.communicate(timeout=timeout)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
