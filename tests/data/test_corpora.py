"""Text sources: what they hold, what they refuse, and who may open them at once."""

import hashlib
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import sysconfig

import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pe_research.data import corpora
from pe_research.data.corpora import builders, catalogue, documents

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE_SHA256 = '964a7eebc7f4db515af0534d460d3686e4f9eac19ed88cdc5bb5a3bd931bcc62'
SPEECHES_SHA256 = 'b33e8e27e592b489'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def speeches(data_dir):
  return corpora.open_source('state_of_the_union', data_dir)


@pytest.fixture
def offline(monkeypatch):
  asked = []
  monkeypatch.setattr(catalogue, 'connected', lambda url: asked.append(url))
  return asked


def write(folder, files):
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return str(folder)


def python(code, *args, **env):
  """Starts a Python that sees this checkout."""
  path = os.pathsep.join([*env.pop('path', ()), str(ROOT)])
  return subprocess.Popen(
    [sys.executable, '-c', code, *args],
    env=os.environ | {'PYTHONPATH': path} | env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def output(process):
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  return out


# What the project's own sets hold.


def test_vendored_archive_is_the_one_the_readme_describes():
  readme = (builders.ARCHIVE.parent / 'README.md').read_text()
  assert hashlib.sha256(builders.ARCHIVE.read_bytes()).hexdigest() == ARCHIVE_SHA256
  assert ARCHIVE_SHA256 in readme
  assert f'{builders.ARCHIVE.stat().st_size:,} bytes' in readme


def test_state_of_the_union(speeches):
  sizes = sorted(len(text) for text in speeches)
  assert len(speeches) == 249
  assert (sum(sizes), sizes[0], sizes[124], sizes[-1]) == (12_185_751, 6_259, 38_808, 219_354)
  assert speeches.ids == sorted(speeches.ids)
  assert (speeches.ids[0], speeches.ids[-1]) == ('1790-Washington-1', '2026-Trump-1')
  assert speeches[0].startswith(b'Fellow-Citizens of the Senate')
  assert speeches.fingerprint.startswith(SPEECHES_SHA256)
  assert (speeches.name, speeches.split) == ('state_of_the_union/1.0.0', 'train')


def test_python_library_is_this_pythons_own_source(data_dir):
  library = corpora.open_source('python_library', data_dir)
  root = pathlib.Path(sysconfig.get_paths()['stdlib'])
  assert library.ids == sorted(library.ids)
  assert library[library.ids.index('argparse.py')] == (root / 'argparse.py').read_bytes()
  assert not any({'test', 'tests', 'site-packages'} & set(name.split('/')) for name in library.ids)
  assert len(library) > 500 and sum(map(len, library)) > 9_000_000
  version = '.'.join(map(str, sys.version_info[:3]))
  assert library.name.startswith(f'python_library/{version}-')


def test_documents_are_a_sequence_of_bytes(speeches):
  assert type(speeches[3]) is bytes
  assert speeches[-1] == speeches[248]
  assert speeches.id(-1) == speeches.ids[248]
  for i in (249, -250):
    with pytest.raises(IndexError):
      speeches[i]
  assert list(speeches)[:2] == [speeches[0], speeches[1]]


def test_documents_survive_pickling(speeches, data_dir, tmp_path):
  folder = corpora.open_source(write(tmp_path, {'a': b'x', 'b': b'y'}), data_dir)
  for source in (speeches, folder):
    copy = pickle.loads(pickle.dumps(source))
    assert (len(copy), copy[1], copy.ids) == (len(source), source[1], source.ids)


def test_a_slice_of_a_split(speeches, data_dir):
  part = corpora.open_source('state_of_the_union', data_dir, 'train[:10]')
  assert list(part) == [speeches[i] for i in range(10)]
  assert part.fingerprint != speeches.fingerprint


def test_data_dir_from_the_environment(monkeypatch, data_dir, tmp_path, speeches):
  monkeypatch.setenv('PE_DATA', data_dir)
  assert corpora.default_data_dir() == data_dir
  assert corpora.open_source('state_of_the_union').fingerprint == speeches.fingerprint
  monkeypatch.delenv('PE_DATA')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert corpora.default_data_dir() == str(tmp_path / '.cache' / 'pe_research')


# Folders.

texts = st.text(st.characters(codec='utf-8', exclude_characters='\0'), min_size=1).map(str.encode)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.from_regex(r'[ab]{1,2}(/[ab]{1,2})?\.txt', fullmatch=True), texts))
def test_folder_round_trip(tmp_path_factory, files):
  files = files | {'z': b'end\n'}
  path = write(tmp_path_factory.mktemp('folder'), files)
  source = corpora.open_source(path, str(tmp_path_factory.mktemp('data')))
  assert source.ids == sorted(files)
  assert list(source) == [files[name] for name in sorted(files)]


def test_folder_skips_what_is_hidden(tmp_path):
  files = {'a/b': b'1', '.git/x': b'\0', '.DS_Store': b'\0'}
  source = corpora.open_source(write(tmp_path / 'f', files), str(tmp_path / 'data'))
  assert source.ids == ['a/b']


def test_large_folder_keeps_its_order_over_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(builders, 'SHARD_BYTES', 100)
  files = {f'{i:03}': b'%03d' % i * 11 for i in range(30)}
  source = corpora.open_source(write(tmp_path / 'f', files), str(tmp_path / 'data'))
  assert list(source) == list(files.values())
  assert len(list((tmp_path / 'data').rglob('*.array_record*'))) == 10


def test_changed_folder_is_prepared_anew(tmp_path):
  folder, data = tmp_path / 'f', str(tmp_path / 'data')
  path = write(folder, {'a': b'one', 'b': b'two'})
  first = corpora.open_source(path, data)
  stamp = (folder / 'a').stat().st_mtime_ns
  (folder / 'a').write_bytes(b'uno')
  os.utime(folder / 'a', ns=(stamp, stamp))
  second = corpora.open_source(path, data)
  assert (list(first), list(second)) == ([b'one', b'two'], [b'uno', b'two'])
  assert first.fingerprint != second.fingerprint
  (folder / 'a').rename(folder / 'c')
  assert corpora.open_source(path, data).ids == ['b', 'c']


def test_fingerprint_does_not_depend_on_where_a_folder_is(tmp_path):
  files = {'a': b'one', 'b': b'two'}
  prints = {
    corpora.open_source(write(tmp_path / place, files), str(tmp_path / f'data_{place}')).fingerprint
    for place in ('here', 'there')
  }
  assert len(prints) == 1


def test_file_that_changes_while_it_is_prepared(tmp_path):
  folder = write(tmp_path / 'f', {'a': b'one'})
  builder = corpora.TextFolder(folder, data_dir=str(tmp_path / 'data'))
  write(tmp_path / 'f', {'a': b'two'})
  with pytest.raises(ValueError, match=r'f/a changed while it was being prepared\. Start again'):
    builder.download_and_prepare(file_format='array_record')
  assert not (tmp_path / 'data' / 'text_folder' / builder.builder_config.name / '1.0.0').exists()


@pytest.mark.parametrize(
  'files, message',
  [
    ({}, r"'.*/f' holds no files: put at least 1 text file into it\."),
    ({'a': b'x', 'e': b''}, r'f/e is empty \(0 bytes; a document needs 1\)\. Fill it or remove'),
    ({'sub/b': b'ab\0c'}, r'f/sub/b is a binary file: byte 2 is NUL.*Move everything but text'),
    ({'l1': b'caf\xe9'}, r'f/l1 is not UTF-8: byte 3 is 0xe9\. Convert it.*iconv'),
  ],
)
def test_bad_folders(tmp_path, files, message):
  (tmp_path / 'f').mkdir()
  with pytest.raises(ValueError, match=message):
    corpora.open_source(write(tmp_path / 'f', files), str(tmp_path / 'data'))
  assert not (tmp_path / 'data').exists()


def test_all_unusable_files_are_named_at_once_and_can_be_set_aside(tmp_path):
  files = {'a': b'text', 'e': b'', 'sub/b c': b'ab\0c', 'l1': b'caf\xe9'}
  folder = write(tmp_path / 'f', files)
  with pytest.raises(ValueError) as caught:
    corpora.open_source(folder, str(tmp_path / 'data'))
  first, *reasons, hint, command = str(caught.value).splitlines()
  assert first == f'3 of 4 files in {folder!r} cannot be used:'
  wanted = ('f/e is empty', 'f/l1 is not UTF-8', 'f/sub/b c is a binary file')
  assert all(text in reason for text, reason in zip(wanted, reasons, strict=True))
  assert 'hidden folders are skipped' in hint
  subprocess.run(command, shell=True, check=True)
  assert list(corpora.open_source(folder, str(tmp_path / 'data'))) == [b'text']


def test_a_pipe_is_not_waited_for(tmp_path):
  (tmp_path / 'f').mkdir()
  os.mkfifo(tmp_path / 'f' / 'pipe')
  for folder, said in ((tmp_path / 'f', 'no regular file'), (tmp_path / 'f' / 'pipe', 'no folder')):
    with pytest.raises(ValueError, match=said):
      corpora.open_source(str(folder), str(tmp_path / 'data'))


def test_folder_that_is_not_one(tmp_path):
  with pytest.raises(ValueError, match=r"no folder '/no/such': give the path of an existing"):
    corpora.open_source('/no/such', str(tmp_path))
  with pytest.raises(ValueError, match=r"/f' is no folder: give a folder of text"):
    corpora.open_source(f'{write(tmp_path, {"f": b"x"})}/f', str(tmp_path))
  with pytest.raises(ValueError, match=r"the name of '.*\\udcff' is not UTF-8\. Rename the file"):
    path = os.fsencode(tmp_path / 'g')
    os.mkdir(path)
    pathlib.Path(os.fsdecode(path + b'/\xff')).write_bytes(b'x')
    corpora.open_source(str(tmp_path / 'g'), str(tmp_path))


def test_which_name_is_a_folder(tmp_path, monkeypatch, offline):
  monkeypatch.chdir(tmp_path)
  write(tmp_path, {'mine/a': b'x', 'pg19/a': b'y'})
  assert list(corpora.open_source('mine', 'data')) == [b'x']
  assert list(corpora.open_source('./pg19', 'data')) == [b'y']
  with pytest.raises(ValueError, match="'pg19' is not prepared in data"):
    corpora.open_source('pg19', 'data')


# The catalogue of tfds.


def test_unknown_names(tmp_path):
  with pytest.raises(ValueError, match=r"'lm1c' is neither.*Did you mean lm1b\?.*tfds name such"):
    corpora.open_source('lm1c', str(tmp_path))
  with pytest.raises(ValueError, match=r'Did you mean state_of_the_union\?'):
    corpora.open_source('state_of_union', str(tmp_path))
  with pytest.raises(ValueError, match=r"'no/such' is neither a text set nor an existing folder"):
    corpora.open_source('no/such', str(tmp_path))
  with pytest.raises(ValueError, match=r"cannot open 'lm1b:9.9.9'.*only: 1\.1\.0"):
    corpora.open_source('lm1b:9.9.9', str(tmp_path))
  with pytest.raises(ValueError, match=r"split 'test' of state_of_the_union.*\['train'\]"):
    corpora.open_source('state_of_the_union', str(tmp_path), 'test')


@pytest.mark.parametrize('name', ['lm1b:1.1.0', 'pg19', 'c4/en', 'wiki40b/en'])
def test_unprepared_set_without_a_network(name, tmp_path, offline):
  base = catalogue.base_name(name)
  with pytest.raises(ValueError) as error:
    corpora.open_source(name, str(tmp_path))
  for part in (
    f'{name!r} is not prepared in {tmp_path}',
    f"tfds.builder('{name}', data_dir='tfds_data').download_and_prepare(file_format='array_rec",
    f'copy tfds_data/{base} to {tmp_path}/{base}.',
  ):
    assert part in str(error.value)
  assert len(offline) == 1  # one quick look, no retries


def test_other_versions_that_are_prepared_are_named(tmp_path, offline):
  for there in ('lm1b/1.0.0', 'lm1b/0.9.0', 'c4/en/2.3.1', 'mine/1.0.0'):
    write(tmp_path, {f'{there}/dataset_info.json': b'{}'})
  write(tmp_path, {'lm1b/1.1.0.incompleteX/train.part': b''})
  for name in ('lm1b:1.1.0', 'lm1b:9.9.9'):
    with pytest.raises(ValueError, match=r'there: lm1b:0\.9\.0, lm1b:1\.0\.0\.$'):
      corpora.open_source(name, str(tmp_path))
  with pytest.raises(ValueError, match=r'there: c4/en:2\.3\.1\.$'):
    corpora.open_source('c4/de', str(tmp_path))
  with pytest.raises(ValueError, match=r'there: mine:1\.0\.0\.$'):
    corpora.open_source('mine:2.0.0', str(tmp_path))


def test_set_whose_code_fails_says_what_to_do(tmp_path, monkeypatch):
  def fail(self, **kwargs):
    raise ImportError('no TensorFlow here')

  monkeypatch.setattr(catalogue, 'connected', lambda url: True)
  monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', fail)
  with pytest.raises(ValueError, match=r"preparing 'pg19'.*ImportError: no TensorFlow.*copy tfds"):
    corpora.open_source('pg19', str(tmp_path))


def test_connection_check():
  assert not catalogue.connected('http://127.0.0.1:1/x')


@pytest.mark.parametrize('name', ['lm1b:1.1.0', 'pg19', 'c4/en', 'state_of_the_union'])
def test_mock_data(name, tmp_path):
  with tfds.testing.mock_data(num_examples=4):
    source = corpora.open_source(name, str(tmp_path))
    texts = list(source)
    assert len(source) == len(texts) == len(source.ids) == 4
    assert all(type(text) is bytes and text for text in texts)
    assert len(source.fingerprint) == 64
  if name == 'pg19':
    assert source.text_key == 'book_text'


def test_text_key(tmp_path):
  with tfds.testing.mock_data(num_examples=2):
    for name, words in {'booksum/book': r"2 .*\['document', 'summary'\].*", 'mnist': '0 '}.items():
      with pytest.raises(
        ValueError, match=rf'{name}.* has {words}.* called text or article or book'
      ):
        corpora.open_source(name, str(tmp_path))


def test_set_that_only_lies_prepared_in_data_dir(speeches, data_dir, tmp_path):
  """As copied from another machine, here under a name that no code knows."""
  target = tmp_path / 'my_set' / '1.0.0'
  shutil.copytree(pathlib.Path(data_dir) / speeches.name, target)
  info = json.loads((target / 'dataset_info.json').read_text()) | {'name': 'my_set'}
  (target / 'dataset_info.json').write_text(json.dumps(info))
  shard = next(target.glob('*.array_record*'))
  shard.rename(target / shard.name.replace('state_of_the_union', 'my_set'))
  source = corpora.open_source('my_set', str(tmp_path))
  assert list(source) == list(speeches)
  (target / 'dataset_info.json').write_text(json.dumps(info | {'fileFormat': 'tfrecord'}))
  with pytest.raises(ValueError, match=r"'my_set' is prepared in .* as tfrecord.*Delete that"):
    corpora.open_source('my_set', str(tmp_path))


def test_fingerprint_of_a_large_set_reads_no_text(data_dir, speeches, monkeypatch):
  whole = speeches.fingerprint
  monkeypatch.setattr(documents, 'SMALL', 0)
  large = corpora.open_source('state_of_the_union', data_dir)
  half = corpora.open_source('state_of_the_union', data_dir, 'train[:50%]')
  monkeypatch.setattr(documents.Documents, '__getitem__', lambda self, i: pytest.fail('read'))
  assert len({large.fingerprint, half.fingerprint, whole}) == 3


# Processes.

EVERYTHING = """
import sys
from pe_research.data import corpora, tokenizers
from pe_research.data.corpora import catalogue

data, folder = sys.argv[1:]
catalogue.connected = lambda url: False
for name in ('state_of_the_union', 'python_library', folder):
  source = corpora.open_source(name, data)
  source.fingerprint, source.ids
for name in ('lm1b', 'c4/en', 'nothing'):
  try:
    corpora.open_source(name, data)
  except ValueError:
    continue
  raise AssertionError(name)
assert 'sentencepiece' not in sys.modules
tokenizers.SentencePiece(data + '/model', vocab=280, documents=corpora.open_source(folder, data))
print('tensorflow' in sys.modules)
"""


def test_tensorflow_is_never_imported(tmp_path):
  """Even where there is one to import: a stand-in that import would find."""
  write(tmp_path / 'path', {'tensorflow/__init__.py': b'__version__ = "2.99.0"\n'})
  folder = write(tmp_path / 'f', {'a': b'the cat sat on the mat, the cat sat\n' * 9})
  process = python(EVERYTHING, str(tmp_path / 'data'), folder, path=[str(tmp_path / 'path')])
  assert output(process).splitlines()[-1] == 'False'


AT_ONCE = """
import os, sys, time
from pe_research.data import corpora

data, me = sys.argv[1:]
open(f'{data}/ready{me}', 'w').close()
while not all(os.path.exists(f'{data}/ready{i}') for i in range(2)):
  time.sleep(0.001)
print(corpora.open_source('state_of_the_union', data).fingerprint)
"""


def test_two_processes_prepare_at_once(tmp_path):
  processes = [python(AT_ONCE, str(tmp_path), str(i)) for i in range(2)]
  outputs = [output(process) for process in processes]
  assert [out.splitlines()[-1][:16] for out in outputs] == [SPEECHES_SHA256] * 2
  assert sum('downloaded and prepared' in out for out in outputs) == 1
