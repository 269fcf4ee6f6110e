"""Files of one run that lie in the folder of another, or are gone, are named; so is a full disk."""

import errno
import shutil

import pytest
import run_fixtures

from experiments.studies import comparability
from pe_research.runs import checkpoints, run_folder
from pe_research.storage import files
from pe_research.training import loop, train_state


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  return run_fixtures.config(
    run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text'), steps=5
  )


@pytest.fixture(scope='module')
def straight(config, tmp_path_factory):
  """The workdir of a finished run, with a row of results."""
  workdir = tmp_path_factory.mktemp('straight') / 'run'
  loop.train(config, workdir)
  record = files.read_json(workdir / 'run.json')
  row = {name: record[name] for name in ('scheme', 'seed', 'train_length', 'fingerprint')}
  files.append_row(workdir / 'results.jsonl', row | {'step': 5})
  return workdir


@pytest.fixture
def workdir(straight, tmp_path):
  return shutil.copytree(straight, tmp_path / 'run')


def change(path, **fields):
  files.write_json(path, files.read_json(path) | fields)


@pytest.mark.parametrize('field', ['seed', 'fingerprint'])
def test_rows_of_another_run_are_refused(workdir, field):
  change(workdir / 'run.json', **{field: 3})
  with pytest.raises(files.WorkdirError, match=rf'results.jsonl, line 1, .*{field}: 3 -> '):
    run_folder.load_rows(workdir, run_folder.load_record(workdir))
  with pytest.raises(files.WorkdirError, match=r'results.jsonl, line 1'):
    comparability.load([workdir])


def test_rows_of_an_earlier_step_may_have_other_conditions(workdir):
  change(workdir / 'run.json', fingerprint='of other code', steps=6)
  assert len(run_folder.load_rows(workdir, run_folder.load_record(workdir))) == 1


def test_a_record_of_another_run_is_refused(workdir):
  change(workdir / 'run.json', seed=3)
  with pytest.raises(files.WorkdirError, match=r'config.json and run.json .*seed: 0 -> 3'):
    run_folder.load_config(workdir)


def test_weights_of_another_run_are_refused(config, workdir):
  change(workdir / 'run.json', final_parameters='others')
  for read in (train_state.load_params, loop.train):
    with pytest.raises(files.WorkdirError, match=r'checkpoints are not those of .*run.json'):
      read(config, workdir)


def test_a_checkpoint_of_another_run_is_not_gone_on_from(config, workdir):
  record = files.read_json(workdir / 'run.json')
  files.write_json(workdir / 'run.json', {k: v for k, v in record.items() if k != 'batches'})
  other = config | {'optimizer': config['optimizer'] | {'clip': 0.5}}
  with pytest.raises(files.WorkdirError, match='checkpoints is of a run with another config'):
    loop.train(other, workdir)


def test_a_record_that_is_gone_is_named(config, workdir):
  (workdir / 'run.json').unlink()
  with pytest.raises(files.WorkdirError, match=r'no run\.json'):
    loop.train(config, workdir)


def test_a_full_disk_is_named_with_the_folder_of_checkpoints(config, tmp_path, monkeypatch):
  def full(*given, **more):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(checkpoints.ocp.CheckpointManager, 'save', full)
  with pytest.raises(files.WorkdirError, match=r'checkpoints cannot be written: .*No space left'):
    loop.train(config, tmp_path)
