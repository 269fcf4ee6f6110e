"""A run shows that it lives, and one that hangs says where and leaves."""

import subprocess
import sys
import time

import pytest
import run_fixtures

from pe_research.machines import exits, heartbeat
from pe_research.storage import files

HANGS = """
import pathlib, sys, time
from pe_research.machines import heartbeat
with heartbeat.Heartbeat(pathlib.Path(sys.argv[1]), 0.5) as heart:
  for step in range(1, 4):
    heart.beat(f'step {step}')
    time.sleep(0.3)
  heart.beat('step 4')
  time.sleep(60)
"""


def test_a_step_that_hangs_ends_the_process_and_is_named(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', HANGS, str(tmp_path)], capture_output=True, text=True, timeout=60,
    cwd=run_fixtures.ROOT,
  )  # fmt: skip
  assert done.returncode == exits.STOPPED
  assert 'process 0 of 1 on ' in done.stderr and 'hangs: step 4 began' in done.stderr
  assert 'the same command resumes from the last checkpoint' in done.stderr
  assert 'File "<string>", line 9' in done.stderr  # where it was


def test_no_patience_is_for_ever_and_leaving_ends_the_watch(tmp_path):
  with heartbeat.Heartbeat(tmp_path, 0):
    time.sleep(0.2)
  with heartbeat.Heartbeat(tmp_path, 2.0) as heart:
    heart.beat('step 1')
  time.sleep(2.6)  # the process is still there


def test_signs_of_life_are_written_now_and_then(tmp_path, monkeypatch):
  sign = lambda: files.read_json(tmp_path / 'heartbeat-0.json')
  clock = [100.0]
  monkeypatch.setattr(heartbeat.time, 'monotonic', lambda: clock[0])
  heart = heartbeat.Heartbeat(tmp_path, 0)
  assert sign() is None
  for passed, doing in ((0, 'step 1'), (heartbeat.EVERY - 1, 'step 2'), (2, 'step 3')):
    clock[0] += passed
    heart.beat(doing)
  assert sign()['doing'] == 'step 3' and sign()['process'].startswith('process 0 of 1 on ')
  clock[0] += 1
  heart.beat('step 4')
  assert sign()['doing'] == 'step 3'


@pytest.mark.parametrize('patience', ['-1', 'x'])
def test_patience_that_is_none_is_refused(patience, tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  command = ('-m', 'pe_research.main', *run_fixtures.flags(corpus), f'--workdir={tmp_path / "run"}')
  done = run_fixtures.run(*command, f'--config.run.patience={patience}')
  assert done.returncode == 2 and 'patience' in done.stderr and not (tmp_path / 'run').exists()
