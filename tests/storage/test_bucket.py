"""Runs in a bucket: an emulator of Google's storage, through the same libraries as the real one."""

import http.server
import os
import shutil
import threading
import time

import pytest
import run_fixtures

pytest.importorskip('gcsfs')
emulated_bucket = pytest.importorskip('emulated_bucket')

from etils import epath  # noqa: E402

from pe_research import main  # noqa: E402
from pe_research.common import digest  # noqa: E402
from pe_research.data import corpora  # noqa: E402
from pe_research.machines import exits  # noqa: E402
from pe_research.storage import files, locks, paths  # noqa: E402
from pe_research.training import train_state  # noqa: E402

COMMAND = ('-m', 'pe_research.main')
bucket = emulated_bucket.bucket


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


def rows(folder):
  keys = ('protocol', 'eval_length', 'value', 'documents')
  return [{k: row[k] for k in keys} for row in files.read_rows(folder / 'results.jsonl')]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_its_bucket(bucket, corpus, tmp_path):
  flags = run_fixtures.flags(corpus, steps=40)
  there = epath.Path(f'{bucket}/runs/killed')
  process = run_fixtures.start(*COMMAND, *flags, f'--workdir={there}')
  deadline = time.monotonic() + 200
  while not (there / 'checkpoints' / '8').exists():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline
    time.sleep(0.1)
  process.kill()
  process.wait()
  assert not (there / 'done.json').exists()
  done = run_fixtures.run(*COMMAND, *flags, f'--workdir={there}')
  assert done.returncode == 0, done.stderr
  assert 'step 1/40' not in done.stdout
  straight = run_fixtures.run(*COMMAND, *flags, f'--workdir={tmp_path}')
  assert straight.returncode == 0, straight.stderr
  assert rows(there) == rows(tmp_path)
  final = [files.read_json(f / 'run.json')['final_parameters'] for f in (there, tmp_path)]
  assert final[0] == final[1]


@pytest.mark.slow
def test_a_sweep_in_a_bucket_is_run_shown_and_brought_home(bucket, corpus, tmp_path):
  given = [flag for flag in run_fixtures.flags(corpus, steps=4) if not flag.startswith('--config=')]
  jobs = f'{bucket}/sweep/jobs.json'
  command = ('-m', 'experiments', 'sweep', '--config=configs/smoke.py', *given)
  done = run_fixtures.run(
    *command, '--positions=rope,alibi', '--seeds=0', f'--workdir={bucket}/sweep', f'--jobs={jobs}'
  )
  assert done.returncode == 0, done.stderr
  launch = lambda *more: run_fixtures.run('-m', 'launch', *more)
  assert launch('status', jobs).stdout.endswith('\n2 waiting\n')
  done = launch('run', jobs, '--share=0/2')
  assert done.returncode == 0 and '1 of 1 jobs done' in done.stdout, done.stderr
  assert launch('status', jobs).stdout.endswith('\n1 done, 1 waiting\n')
  assert launch('run', jobs).returncode == 0
  assert 'fixed_targets' in (epath.Path(bucket) / 'sweep/runs/rope_seed0/results.jsonl').read_text()
  assert 'step' in (epath.Path(bucket) / 'sweep/runs/rope_seed0/log.txt').read_text()
  done = launch('collect', jobs, f'--into={tmp_path}')
  assert done.returncode == 0 and len(rows(tmp_path / 'runs/alibi_seed0')) == 3


class Refusing(http.server.BaseHTTPRequestHandler):
  """A storage that wants credentials."""

  def do_GET(self):
    self.send_response(401)
    self.end_headers()

  def log_message(self, *_):
    """Keeps it to itself."""


def test_a_bucket_that_does_not_answer_is_one_line_and_may_be_tried_again():
  with http.server.HTTPServer(('127.0.0.1', 0), Refusing) as refusing:
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{refusing.server_port}'
    done = run_fixtures.run(
      '-m', 'launch', 'status', 'gs://none/jobs.json', STORAGE_EMULATOR_HOST=address
    )
    refusing.shutdown()
  assert done.returncode == exits.STOPPED and 'are you signed in' in done.stderr
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  ('path', 'says'),
  [
    ('s3://mine/jobs.json', 'pip install s3fs'),
    ('ftp://x', 'ftp:// is not a bucket'),
    ('gs://', 'gs:// names no bucket'),
  ],
)
def test_a_bucket_that_nothing_reaches_is_refused(path, says):
  for command in (['launch', 'status', path], ['pe_research.evaluate', f'--workdir={path}']):
    done = run_fixtures.run('-m', *command)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr


def test_errors_are_those_of_users_of_buckets_or_bugs():
  from gcsfs.retry import HttpError
  from google.auth.exceptions import RefreshError
  from google.protobuf.message import DecodeError

  bucket = HttpError({'code': 503}), RefreshError(), paths.Unreachable()
  assert [exits.status(error) for error in bucket] == [exits.STOPPED] * 3
  assert exits.status(ValueError()) == exits.status(OSError()) == 2
  assert exits.status(KeyError()) is None and exits.status(DecodeError()) is None


def test_a_checkpoint_is_fetched_once_and_never_an_old_one(bucket, corpus, tmp_path, monkeypatch):
  monkeypatch.setenv('PE_DATA', str(tmp_path))
  there, config = epath.Path(f'{bucket}/runs/read'), run_fixtures.config(corpus, steps=4)
  main.run(config, there)
  fetched = []
  read = lambda: digest.of_arrays(train_state.load_params(config, there)[0])
  copied = shutil.copyfileobj
  monkeypatch.setattr(shutil, 'copyfileobj', lambda *f: fetched.append(f) or copied(*f))
  expected = files.read_json(there / 'run.json')['final_parameters']
  assert read() == expected and fetched
  once = len(fetched)
  assert read() == expected and len(fetched) == once
  (copy,) = (tmp_path / 'runs').iterdir()
  # A copy that is damaged is not used, and not kept.
  largest = max((p for p in copy.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  largest.write_bytes(bytes(largest.stat().st_size))
  assert read() == expected and not copy.exists()
  assert read() == expected and copy.exists()
  # The same step of another training has another name; what nobody reads is gone after a day.
  there.rmtree()
  main.run(run_fixtures.config(corpus, steps=4, seed=1), there)
  os.utime(copy, (0, 0))
  other = files.read_json(there / 'run.json')['final_parameters']
  assert read() == other != expected and not copy.exists()


def test_the_newest_process_has_a_bucket(bucket):
  workdir = epath.Path(f'{bucket}/runs/contested')
  with locks.claim(workdir) as first:
    first()
    with locks.claim(workdir) as second:
      second()
      with pytest.raises(files.WorkdirError, match='taken over by a newer process'):
        first()


def test_files_of_a_bucket_are_replaced_and_appended_whole(bucket):
  path = epath.Path(f'{bucket}/files/rows.jsonl')
  files.append_row(path, {'a': 1})
  files.append_row(path, {'a': 2})
  assert files.read_rows(path) == [{'a': 1}, {'a': 2}]
  files.write_rows(path, [{'a': 3}])
  assert files.read_rows(path) == [{'a': 3}]
  files.write_once(path.parent / 'plan.json', {'x': 1})
  with pytest.raises(files.WorkdirError, match='holds something else'):
    files.write_once(path.parent / 'plan.json', {'x': 2})


def test_a_set_that_is_prepared_in_a_bucket_is_fetched_once(bucket, tmp_path, monkeypatch):
  name, there = 'state_of_the_union', f'{bucket}/data'
  ours = corpora.open_source(name, str(tmp_path / 'prepared'))
  for path in (tmp_path / 'prepared' / name).rglob('*'):
    if path.is_file():
      copy = epath.Path(there) / path.relative_to(tmp_path / 'prepared')
      copy.write_bytes(path.read_bytes())
  monkeypatch.setenv('PE_DATA', there)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  monkeypatch.setattr(corpora, '_prepare', None)
  told = []
  home = corpora.at_hand(name, there, told.append)
  assert home == str(tmp_path / 'home' / '.cache' / 'pe_research')
  assert told and all(doing.startswith(f'fetching {there}/{name}/') for doing in told)
  assert sorted(told) == sorted(set(told))
  assert list(corpora.open_source(name)) == list(ours)
  corpora.at_hand(name, there, pytest.fail)
