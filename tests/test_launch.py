"""The pool runs every job once, at most so many at a time, and says which failed."""

import json
import os
import sys

import pytest

from launch import local

WORK = """
import json, os, pathlib, sys, time
done, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
mine = folder / f'{os.getpid()}.running'
mine.touch()
seen = len(list(folder.glob('*.running')))
time.sleep(0.3)
mine.unlink()
print('worked')
if 'bad' in done.name: sys.exit(3)
cores = sorted(os.sched_getaffinity(0))
done.write_text(json.dumps({'seen': seen, 'cores': cores, 'malloc': os.environ['GLIBC_TUNABLES']}))
"""


def jobs(tmp_path, names):
  return [
    local.Job(name, ('-c', WORK, str(tmp_path / f'{name}.json'), str(tmp_path)),
              tmp_path / f'{name}.log', tmp_path / f'{name}.json')
    for name in names
  ]  # fmt: skip


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')


def results(tmp_path):
  return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob('*.json')}


def test_jobs_run_on_a_core_each_as_many_as_there_are_workers(tmp_path):
  looked = []
  assert local.run(jobs(tmp_path, 'abcde'), lambda: looked.append(1), workers=2) == []
  found = results(tmp_path)
  assert found.keys() == set('abcde') and looked
  assert max(f['seen'] for f in found.values()) == min(2, len(local.cores()))
  assert all(len(f['cores']) == 1 for f in found.values())
  assert {f['malloc'] for f in found.values()} == {'glibc.malloc.hugetlb=1'}


def test_a_failed_job_is_named_and_the_rest_is_done(tmp_path):
  assert local.run(jobs(tmp_path, ['a', 'bad', 'c']), lambda: None, workers=1) == ['bad']
  assert results(tmp_path).keys() == {'a', 'c'}
  assert 'worked' in (tmp_path / 'bad.log').read_text()


def test_done_jobs_do_not_run_again(tmp_path):
  (tmp_path / 'a.json').write_text('"mine"')
  local.run(jobs(tmp_path, 'ab'), lambda: None)
  assert results(tmp_path)['a'] == 'mine' and not (tmp_path / 'a.log').exists()


def test_an_interrupt_reaches_the_workers(tmp_path):
  def interrupt():
    if list(tmp_path.glob('*.running')):
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    local.run(jobs(tmp_path, 'abcd'), interrupt, workers=1)
  assert results(tmp_path) == {}


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='device files of Linux')
def test_devices_decide_whether_there_is_an_accelerator(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setattr(local.glob, 'glob', lambda pattern: ['x'] if 'nvidia' in pattern else [])
  monkeypatch.setattr(local.importlib.util, 'find_spec', lambda name: None)
  assert not local.has_accelerator()
  monkeypatch.setattr(local.importlib.util, 'find_spec', lambda name: name == 'jax_plugins')
  assert local.has_accelerator()
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert not local.has_accelerator()
  assert os.environ['JAX_PLATFORMS'] == 'cpu'
