"""Files of jobs, and the shares that machines take of them."""

import dataclasses
import json
import pathlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch import job
from launch.job import Job
from pe_research.storage.files import WorkdirError

R = pathlib.Path('runs')


def make(name: str, *after: str, command=None) -> Job:
  folder = R / name
  does = command or ('-m', 'work', f'--workdir={folder}', f'--only={len(name)}{name[::-1]}')
  needs = tuple(R / other / 'done.json' for other in after)
  return Job(name, does, folder / 'log.txt', folder / 'done.json', needs)


names = st.lists(st.text('abcdefgh', min_size=1, max_size=4), unique=True, min_size=1, max_size=12)


@st.composite
def sweeps(draw):
  """Jobs of which some wait for earlier ones."""
  made = []
  for name in draw(names):
    earlier = [one.name for one in made]
    after = draw(st.lists(st.sampled_from(earlier), max_size=2)) if earlier else []
    made.append(make(name, *after))
  return made


@settings(deadline=None)
@given(sweeps(), st.integers(1, 6))
def test_shares_hold_every_job_once_with_all_that_it_waits_for(jobs, count):
  shares = job.shares(jobs, count)
  assert sorted(one.name for share in shares for one in share) == sorted(one.name for one in jobs)
  assert len(shares) <= count and all(shares)
  for share in shares:
    written = {one.done for one in share}
    assert all(set(one.after) <= written for one in share)
    assert [jobs.index(one) for one in share] == sorted(jobs.index(one) for one in share)
  assert job.shares(jobs, count) == shares


def test_shares_of_jobs_that_are_not_tied_differ_by_one_at_most():
  shares = job.shares([make(chr(97 + i)) for i in range(11)], 4)
  assert sorted(map(len, shares)) == [2, 3, 3, 3]
  with pytest.raises(ValueError, match='number of shares is 0'):
    job.shares([], 0)


@settings(deadline=None)
@given(sweeps())
def test_a_file_gives_back_what_was_written(tmp_path_factory, jobs):
  path = tmp_path_factory.mktemp('jobs') / 'sweep' / 'jobs.json'
  job.write(path, jobs)
  assert job.read(path) == jobs
  job.write(path, jobs)


def test_a_file_of_other_jobs_is_not_overwritten(tmp_path):
  job.write(tmp_path / 'jobs.json', [make('a')])
  with pytest.raises(WorkdirError, match=r'Only there, or otherwise: none\. Only here: b\.'):
    job.write(tmp_path / 'jobs.json', [make('a'), make('b')])
  assert job.read(tmp_path / 'jobs.json') == [make('a')]
  job.write(tmp_path / 'two.json', [make('a'), make('b')])
  with pytest.raises(WorkdirError, match='or in another order'):
    job.write(tmp_path / 'two.json', [make('b'), make('a')])


@pytest.mark.parametrize(
  'jobs, message',
  [
    ([make('a'), make('a')], "'a' and 'a' have one name"),
    ([make('a'), Job('b', ('-c', 'x'), R / 'a' / 'x', R / 'a' / 'done.json')], 'write one file'),
    (
      [make(n, command=('-m', 'work', f'--workdir={R / n}', '--seed=0')) for n in 'ab'],
      "'a' and 'b' differ in nothing but their names",
    ),
  ],
)
def test_jobs_that_are_one_are_refused(jobs, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    job.write(tmp_path / 'jobs.json', jobs)
  assert not (tmp_path / 'jobs.json').exists()


def test_jobs_that_work_on_what_is_in_their_folders_differ_by_these(tmp_path):
  trained = [make(n) for n in 'ab']
  measured = [
    Job(f'{one.name} measured', ('-m', 'measure', f'--workdir={one.folder}'),
        one.folder / 'measure.txt', one.folder / 'measured.json', (one.done,))
    for one in trained
  ]  # fmt: skip
  assert [one.continues for one in trained + measured] == [False, False, True, True]
  job.write(tmp_path / 'jobs.json', trained + measured)
  alone = [dataclasses.replace(one, after=()) for one in measured]
  with pytest.raises(ValueError, match='differ in nothing but their names'):
    job.write(tmp_path / 'other.json', trained + alone)


def one_with(**changed) -> str:
  """A file of one job, with other fields."""
  given = {
    'name': 'a',
    'command': ['x'],
    'log': 'a/log',
    'done': 'a/done',
    'after': [],
    'others': [],
  }
  return json.dumps({'jobs': [given | changed]})


BAD = {
  'nothing': '', 'a list': '[]', 'not all': '{"jobs": [{"name": "a"}]}',
  'no name': one_with(name=1), 'one text': one_with(command='x -y'),
  'after nothing': one_with(after=None),
}  # fmt: skip


@pytest.mark.parametrize('text', BAD.values(), ids=BAD)
def test_a_file_that_is_none_of_jobs_is_named(text, tmp_path):
  path = tmp_path / 'jobs.json'
  with pytest.raises(ValueError, match='does not exist'):
    job.read(path)
  path.write_text(text)
  with pytest.raises(ValueError, match='is not a file of jobs'):
    job.read(path)


def test_jobs_that_could_never_end_are_refused(tmp_path):
  (tmp_path / 'jobs.json').write_text('{"jobs": []}')
  with pytest.raises(ValueError, match=r'jobs\.json: there are no jobs'):
    job.read(tmp_path / 'jobs.json')
  around = [make('a', 'c'), make('b', 'a'), make('c', 'b'), make('d', 'a')]
  with pytest.raises(ValueError, match=r"jobs '[abc]', '[abc]', '[abc]' wait for each other"):
    job.check(around)


@settings(deadline=None)
@given(st.text(max_size=80), st.integers(12, 60))
def test_engines_take_every_name(text, longest):
  name = job.engine_name(text, longest)
  assert len(name) <= longest and re.fullmatch('[a-z]([-a-z0-9]*[a-z0-9])?', name)
  assert job.engine_name(name, longest) == name


def test_long_names_that_differ_late_stay_apart():
  made = {job.engine_name('x' * 60 + end, 40) for end in 'abc'} | {job.engine_name('X' * 60, 40)}
  assert len(made) == 4 and job.engine_name('alibi-0', 40) == 'alibi-0'
