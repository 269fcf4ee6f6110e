"""What a run writes is whole or absent, and never another run's."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import resource
import signal

import hypothesis
import pytest
import run_fixtures
from hypothesis import strategies as st

from pe_research.common import provenance
from pe_research.runs import run_folder
from pe_research.storage import files, locks

JSON = st.dictionaries(
  st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False) | st.text(), max_size=3
)


@contextlib.contextmanager
def small_disk():
  """No file of this process may pass 1,000 bytes: a full disk without filling one."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@hypothesis.given(rows=st.lists(JSON, max_size=5), cut=st.integers(0, 40))
def test_rows_come_back_and_a_line_cut_by_a_kill_does_not(rows, cut, tmp_path_factory):
  path = tmp_path_factory.mktemp('rows') / 'rows.jsonl'
  for row in rows:
    files.append_row(path, row)
  assert files.read_rows(path) == rows
  last = json.dumps({'last': 'x' * 30}) + '\n'
  with path.open('a') as file:
    file.write(last[: min(cut, len(last) - 1)])
  assert files.read_rows(path) == rows
  files.append_row(path, {'next': 1})
  assert files.read_rows(path) == [*rows, {'next': 1}]


def test_a_full_disk_leaves_no_part_of_a_row(tmp_path):
  path = tmp_path / 'rows.jsonl'
  files.append_row(path, {'fits': 'x' * 800})
  message = r'row of \d+ bytes cannot be written'
  with pytest.raises(files.WorkdirError, match=message), small_disk():
    files.append_row(path, {'does not fit': 'y' * 900})
  assert files.read_rows(path) == [{'fits': 'x' * 800}]
  assert path.read_bytes().endswith(b'\n')


def test_a_full_disk_leaves_the_old_json(tmp_path):
  path = tmp_path / 'run.json'
  files.write_json(path, {'old': 1})
  with pytest.raises(files.WorkdirError, match='cannot be written'), small_disk():
    files.write_json(path, {'new': 'x' * 2000})
  assert files.read_json(path) == {'old': 1}
  assert os.listdir(tmp_path) == ['run.json']


@hypothesis.given(value=JSON, bit=st.integers(0, 7))
def test_no_changed_bit_of_a_record_is_read_as_one(value, bit, tmp_path_factory):
  path = tmp_path_factory.mktemp('record') / 'record'
  for write, read, wanted in (
    (files.write_json, files.read_json, value),
    (files.append_row, files.read_rows, [value]),
  ):
    path.unlink(missing_ok=True)
    write(path, value)
    content = path.read_bytes()
    for i in range(len(content.rstrip(b'\n'))):
      path.write_bytes(content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :])
      try:
        found = read(path)
      except files.WorkdirError:
        continue
      assert found == wanted, (i, path.read_bytes())


def test_a_record_without_a_digest_is_read_as_older_runs_wrote_it(tmp_path):
  (tmp_path / 'run.json').write_text('{"steps": 3}')
  assert files.read_json(tmp_path / 'run.json') == {'steps': 3}


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_number_that_is_none_is_neither_written_nor_read(value, tmp_path):
  path = tmp_path / 'rows.jsonl'
  with pytest.raises(files.WorkdirError, match=r'loss\.mean is (nan|inf)'):
    files.append_row(path, {'loss': {'mean': value}})
  path.write_text(json.dumps({'loss': value}) + '\n')
  with pytest.raises(files.WorkdirError, match=r'line 1, is damaged.*is not a number'):
    files.read_rows(path)


def test_whether_a_file_can_be_written_is_known_before(tmp_path):
  (tmp_path / 'file').write_text('')
  for bad in (tmp_path / 'file' / 'x.html', tmp_path, pathlib.Path('/proc/x/report.html')):
    with pytest.raises(files.WorkdirError, match=r'cannot be written|no regular file'):
      files.check_writable(bad)
  with pytest.raises(files.WorkdirError, match='No such file'):
    files.check_writable(tmp_path / 'new' / 'x.html')
  with pytest.raises(files.WorkdirError, match='cannot be written'):
    files.check_writable(pathlib.Path('/proc/x/report.html'), makes_folder=True)
  files.check_writable(tmp_path / 'new' / 'x.html', makes_folder=True)
  assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_what_is_no_regular_file_is_neither_read_nor_replaced(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  for path in (tmp_path / 'pipe', tmp_path):
    with pytest.raises(files.WorkdirError, match='no regular file'):
      files.write_bytes(path, b'')
    for read in (files.read_json, files.read_rows):
      with pytest.raises(files.WorkdirError, match='no regular file'):
        read(path)
  assert (tmp_path / 'pipe').is_fifo()


@pytest.mark.parametrize('name', ['a[1]', 'a*', 'a?', 'a\\b'])
def test_a_workdir_that_orbax_would_read_as_a_pattern_is_refused(name, tmp_path):
  with (
    pytest.raises(files.WorkdirError, match='no checkpoint would be found again'),
    locks.claim(tmp_path / name),
  ):
    pass
  assert not (tmp_path / name).exists()


def test_a_damaged_json_is_named(tmp_path):
  path = tmp_path / 'run.json'
  path.write_text('{"a": 1')
  with pytest.raises(files.WorkdirError, match=r'run\.json is damaged .* line 1 column'):
    files.read_json(path)
  path.write_text('{"a": 1}\n{"a"\n{"a": 2}\n')
  with pytest.raises(files.WorkdirError, match=r'run\.json, line 2, is damaged'):
    files.read_rows(path)


def test_a_workdir_has_one_process(tmp_path):
  with locks.claim(tmp_path):
    code = f"""
from pe_research.storage import files, locks
import pathlib, sys
try:
  with locks.claim(pathlib.Path({str(tmp_path)!r})): pass
except files.WorkdirError as error: print(error)
"""
    out = run_fixtures.run('-c', code).stdout
    assert f'in use by process {os.getpid()}' in out and 'another --workdir' in out
  with locks.claim(tmp_path):
    pass


def test_a_file_in_the_way_of_the_workdir_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with (
    pytest.raises(files.WorkdirError, match=r'workdir .*file.* cannot be written'),
    locks.claim(tmp_path / 'file' / 'run'),
  ):
    pass


def test_a_read_only_workdir_is_refused(tmp_path):
  tmp_path.chmod(0o500)
  user = os.geteuid()
  if user == 0:
    os.seteuid(65534)  # root may write anywhere; nobody may not
  try:
    with pytest.raises(files.WorkdirError, match='Permission denied'), locks.claim(tmp_path):
      pass
  finally:
    os.seteuid(user)


def test_another_runs_workdir_is_refused_with_the_difference(tmp_path):
  saved = {'steps': 3, 'model': {'width': 8}, 'run': {'save_every': 1}}
  run_folder.check_config(tmp_path, saved)  # nothing is there yet
  files.write_json(tmp_path / 'config.json', saved)
  run_folder.check_config(tmp_path, saved | {'run': {'save_every': 9}})
  with pytest.raises(files.WorkdirError) as error:
    run_folder.check_config(tmp_path, saved | {'model': {'width': 16}})
  assert 'model.width: 8 -> 16' in str(error.value) and 'steps' not in str(error.value)


def test_without_git_there_is_no_commit_and_no_crash(monkeypatch):
  monkeypatch.setenv('PATH', '')
  assert provenance.provenance()['commit'] is None


def test_provenance_tells_a_changed_tree(tmp_path, monkeypatch):
  monkeypatch.setattr(provenance, 'ROOT', tmp_path)
  (tmp_path / 'pe_research').mkdir()
  source = tmp_path / 'pe_research' / 'x.py'
  source.write_text('1')
  git = lambda *a: run_fixtures.subprocess.run(
    ['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@b', *a],
    check=True, capture_output=True,
  )  # fmt: skip
  git('init'), git('add', '.'), git('commit', '-m', 'x')
  clean = provenance.provenance()
  source.write_text('2')
  dirty = provenance.provenance()
  assert clean['clean'] and not dirty['clean'] and len(clean['commit']) == 40
  assert clean['commit'] == dirty['commit'] and clean['code'] != dirty['code']


def test_a_disk_without_locks_is_not_called_in_use(tmp_path, monkeypatch):
  def none(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', none)
  refused = pytest.raises(files.WorkdirError, match='cannot be locked: No locks available')
  with refused, locks.claim(tmp_path):
    pass
