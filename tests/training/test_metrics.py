"""Every place that numbers go gets the same numbers."""

import sys
import types

import jax
import pytest
import run_fixtures

from pe_research.storage import files
from pe_research.training import costs, metrics


@pytest.fixture
def config(tmp_path):
  return run_fixtures.config(run_fixtures.write_corpus(tmp_path / 'text'))


def write(workdir, config, process=0):
  with metrics.Writer(workdir, config, start=0, process=process) as log:
    log.write(1, {'loss': 2.0})
    log.write(3, {'loss': 1.5})


def test_rows_have_speed_and_time_left_after_the_first(tmp_path, config, monkeypatch, capsys):
  clock = iter([10.0, 14.0])
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: next(clock))
  write(tmp_path, config)
  first, second = files.read_rows(tmp_path / 'metrics.jsonl')
  assert first == {'step': 1, 'loss': 2.0}
  assert second['tokens_per_second'] == 16 * 8 / 2.0  # two steps in four seconds
  assert second['seconds_left'] == 2.0 * (12 - 3)
  out = capsys.readouterr().out
  assert 'rope  step 3/12  loss 1.500  0.1k tokens/s  18 s left' in out


def test_mfu_is_the_share_of_the_devices_peak(tmp_path, config, monkeypatch):
  clock = iter([10.0, 14.0])
  monkeypatch.setattr(metrics.time, 'perf_counter', lambda: next(clock))
  monkeypatch.setitem(costs.PEAKS, jax.devices()[0].device_kind, 1e6)
  least = costs.least_seconds_per_token(flops_per_token=500.0)
  with metrics.Writer(tmp_path, config, start=0, process=0, least=least) as log:
    log.write(1, {'loss': 2.0})
    log.write(3, {'loss': 1.5})
  first, second = files.read_rows(tmp_path / 'metrics.jsonl')
  assert 'mfu' not in first
  # 64 tokens a second of 500 FLOPs each, on devices of a million each.
  assert second['mfu'] == pytest.approx(64 * 500 / (1e6 * jax.device_count()))


def test_no_peak_no_mfu():
  assert jax.devices()[0].device_kind not in costs.PEAKS
  assert costs.least_seconds_per_token(500.0) is None


def test_only_process_0_writes(tmp_path, config, capsys):
  write(tmp_path, config, process=1)
  assert not (tmp_path / 'metrics.jsonl').exists() and capsys.readouterr().out == ''


def test_tensorboard_gets_every_number(tmp_path, config, monkeypatch):
  written = []

  class SummaryWriter:
    def __init__(self, folder):
      written.append(folder)

    def add_scalar(self, name, value, step):
      written.append((name, value, step))

    def close(self):
      written.append('closed')

  monkeypatch.setitem(
    sys.modules, 'tensorboardX', types.SimpleNamespace(SummaryWriter=SummaryWriter)
  )
  config['run']['tensorboard'] = True
  write(tmp_path, config)
  assert written[0] == str(tmp_path / 'tensorboard') and written[-1] == 'closed'
  assert ('loss', 2.0, 1) in written and ('loss', 1.5, 3) in written


def test_tensorboard_files_can_be_read_back(tmp_path, config):
  event_file = pytest.importorskip('tensorboardX.proto.event_pb2')
  record_writer = pytest.importorskip('tensorboardX.record_writer')
  del record_writer
  config['run']['tensorboard'] = True
  write(tmp_path, config)
  [path] = (tmp_path / 'tensorboard').iterdir()
  data, found = path.read_bytes(), {}
  while data:
    size = int.from_bytes(data[:8], 'little')
    event = event_file.Event.FromString(data[12 : 12 + size])
    found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    data = data[16 + size :]
  assert found[('loss', 1)] == 2.0 and found[('loss', 3)] == 1.5


def test_wandb_gets_rows_config_and_name(tmp_path, config, monkeypatch):
  calls = []

  class Run:
    def log(self, row, step):
      calls.append((step, row['loss']))

    def finish(self):
      calls.append('finished')

  def init(**arguments):
    calls.append(arguments)
    return Run()

  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(init=init))
  config['run']['wandb'] = 'project'
  write(tmp_path, config)
  assert calls[0]['project'] == 'project' and calls[0]['config'] == config
  assert calls[0]['name'] == tmp_path.name and calls[0]['resume'] == 'allow'
  one, calls[:] = calls[:], []
  write(tmp_path, config)
  assert calls[0]['id'] == one[0]['id']  # the same run goes on
  calls[:] = one
  assert calls[1:] == [(1, 2.0), (3, 1.5), 'finished']


@pytest.mark.parametrize(
  ('field', 'value', 'module'), [('tensorboard', True, 'tensorboardX'), ('wandb', 'p', 'wandb')]
)
def test_a_missing_package_is_named(tmp_path, config, monkeypatch, field, value, module):
  monkeypatch.setitem(sys.modules, module, None)
  config['run'][field] = value
  with pytest.raises(ValueError, match=f'run.{field} needs the package {module}: pip install'):
    write(tmp_path, config)
