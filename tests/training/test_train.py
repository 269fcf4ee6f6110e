"""Training: what is promised of a run that is cut, resumed, damaged or misled."""

import json
import math
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_fixtures

from pe_research.attention import logits
from pe_research.attention.spec import Spec
from pe_research.common import provenance, sharding
from pe_research.data import batches, texts
from pe_research.evaluation import evaluate
from pe_research.model.functional import FunctionalDecoder
from pe_research.positions import rotary
from pe_research.runs import checkpoints
from pe_research.storage import files, paths
from pe_research.training import loop, optimizers, train_state, train_step


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.fixture(scope='module')
def straight(corpus, tmp_path_factory):
  """A run of twelve steps that nothing happened to: its state, and its workdir."""
  workdir = tmp_path_factory.mktemp('straight')
  return loop.train(run_fixtures.config(corpus), workdir), workdir


def assert_same_bits(one, other):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


class Interrupt:
  """A stream that raises, or asks for a stop, before it gives batch `at`."""

  def __init__(self, monkeypatch, at: int, what):
    draw = batches.Memory.draw

    def interrupted(stream):
      if stream.step == at:
        what()
      return draw(stream)

    monkeypatch.setattr(batches.Memory, 'draw', interrupted)


def kill():
  raise KeyboardInterrupt


def test_a_run_cut_between_checkpoints_ends_with_the_same_bits(
  corpus, straight, tmp_path, monkeypatch
):
  with monkeypatch.context() as patch:
    Interrupt(patch, 7, kill)
    with pytest.raises(KeyboardInterrupt):
      loop.train(run_fixtures.config(corpus), tmp_path)
  resumed = loop.train(run_fixtures.config(corpus), tmp_path)
  assert_same_bits(resumed, straight[0])
  assert run_fixtures.losses(tmp_path) == run_fixtures.losses(straight[1])
  chain = lambda workdir: files.read_json(workdir / 'run.json')['batches']
  assert chain(tmp_path) == chain(straight[1])


@pytest.mark.parametrize('packing', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_streamed_run_goes_on_with_grains_own_state(corpus, tmp_path, monkeypatch, packing):
  streamed = {
    'data__loader': 'grain',
    'data__train_split': 'train[:8]',
    'data__validation_split': 'train[8:]',
    'data__packing': packing,
  }
  config = run_fixtures.config(corpus, **streamed)
  whole = loop.train(config, tmp_path / 'whole')
  draw, drawn = batches.Streamed.draw, []

  def interrupted(stream):
    drawn.append(1)
    if len(drawn) == 7:
      raise KeyboardInterrupt
    return draw(stream)

  with monkeypatch.context() as patch:
    patch.setattr(batches.Streamed, 'draw', interrupted)
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, tmp_path / 'cut')
  assert_same_bits(loop.train(config, tmp_path / 'cut'), whole)
  chains = [files.read_json(tmp_path / w / 'run.json')['batches'] for w in ('whole', 'cut')]
  assert chains[0] == chains[1]


def test_sigterm_saves_the_step_it_came_in_and_returns(corpus, straight, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    Interrupt(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert loop.train(run_fixtures.config(corpus), tmp_path) is None
  assert _saved(tmp_path)[-1] == 7
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert_same_bits(loop.train(run_fixtures.config(corpus), tmp_path), straight[0])


def _saved(workdir):
  return sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir() if p.name.isdigit())


def _damage(checkpoint):
  """Cuts the largest file of the state in half."""
  files = [p for p in (checkpoint / 'state').rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)


def test_a_damaged_newest_checkpoint_is_passed_over(corpus, straight, tmp_path, caplog):
  workdir = tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  assert _saved(workdir) == [8, 12]
  _damage(workdir / 'checkpoints' / '12')
  resumed = loop.train(run_fixtures.config(corpus), workdir)
  assert 'checkpoint of step 12 is damaged' in caplog.text
  assert 'resuming from step 8' in caplog.text
  assert_same_bits(resumed, straight[0])


def test_changed_numbers_that_still_decode_are_found(corpus, straight, tmp_path, monkeypatch):
  config, workdir = run_fixtures.config(corpus), tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  from pe_research.common import digest

  monkeypatch.setattr(digest, 'of_arrays', lambda tree: 'another')
  with pytest.raises(ValueError, match=r'no whole checkpoint.*12, 8'):
    train_state.load_params(config, workdir)
  assert _saved(workdir) == [8, 12]  # nothing is deleted where nothing is whole


def test_a_damaged_checkpoint_is_kept_aside(corpus, straight, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  _damage(workdir / 'checkpoints' / '12')
  train_state.load_params(run_fixtures.config(corpus), workdir)  # reading changes nothing
  assert _saved(workdir) == [8, 12] and not (workdir / 'checkpoints_damaged').exists()
  loop.train(run_fixtures.config(corpus), workdir)
  [aside] = (workdir / 'checkpoints_damaged').iterdir()
  assert aside.name.startswith('12.') and (aside / 'state').exists()
  assert _saved(workdir) == [8, 12]


def test_reading_leaves_a_save_in_progress_alone(corpus, straight, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  partial = workdir / 'checkpoints' / '16.orbax-checkpoint-tmp'
  partial.mkdir()
  train_state.load_params(run_fixtures.config(corpus), workdir)
  assert partial.exists()


def test_a_finished_run_keeps_its_record(corpus, straight, tmp_path, monkeypatch):
  workdir = tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  before = (workdir / 'run.json').read_bytes()
  made_by = provenance.provenance() | {'code': 'edited', 'commit': 'later'}
  monkeypatch.setattr(provenance, 'provenance', lambda: made_by)
  assert_same_bits(loop.train(run_fixtures.config(corpus), workdir), straight[0])
  assert (workdir / 'run.json').read_bytes() == before


def test_another_text_under_the_same_name_is_refused(straight, tmp_path):
  folder, workdir = run_fixtures.write_corpus(tmp_path / 'text', words=301), tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  message = r'the text is not the one(.|\n)*train: (.|\n)*validation: '
  with pytest.raises(files.WorkdirError, match=message):
    loop.train(run_fixtures.config(folder), workdir)
  with pytest.raises(files.WorkdirError, match=message):
    evaluate.evaluate(run_fixtures.config(folder), workdir, straight[0]['params'], 12)


def test_with_no_whole_checkpoint_nothing_is_begun_anew(corpus, straight, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  for step in ('8', '12'):
    _damage(workdir / 'checkpoints' / step)
  with pytest.raises(ValueError, match='no whole checkpoint'):
    loop.train(run_fixtures.config(corpus), workdir)


def test_nan_stops_with_its_step_and_keeps_the_checkpoint_before(corpus, tmp_path):
  config = run_fixtures.config(corpus, optimizer__learning_rate=1e30, optimizer__clip=0)
  config['run']['save_every'] = 1
  with pytest.raises(loop.Diverged, match=r'step \d+: .*loss') as error:
    loop.train(config, tmp_path)
  step = int(str(error.value).split(':')[0].split()[-1])
  assert _saved(tmp_path)[-1] < step
  params, _ = train_state.load_params(config, tmp_path)
  assert all(np.isfinite(np.asarray(p)).all() for p in params.values())


def gradients(config, batch):
  """Loss and update of one step from the initial state."""
  mesh, functional = sharding.mesh(config['run']['mesh']), FunctionalDecoder(config)
  optimizer = optimizers.build(config['optimizer'], config['steps'])
  like = train_state.abstract(functional, optimizer, mesh)
  state, _ = train_state.begin(config, functional, optimizer, like)
  rows = sharding.split_batch(mesh, len(batch['tokens']))
  step = train_step.jitted(config, functional, optimizer, like, rows)
  state, measured = step(state, sharding.place(batch, rows), train_step.seed(config, mesh))
  return measured, state['params']


@pytest.mark.parametrize('packing', [False, True])
def test_accumulated_parts_equal_the_large_batch(corpus, packing):
  config = run_fixtures.config(corpus, data__packing=packing, position='t5', length=16)
  batch = next(batches.build(texts.load(config), config, 0))
  whole, parts = (
    gradients(config | {'optimizer': config['optimizer'] | {'accumulate': n, 'warmup': 0}}, batch)
    for n in (1, 4)
  )
  for name in ('loss', 'gradient_norm'):
    assert math.isclose(whole[0][name], parts[0][name], rel_tol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), whole[1], parts[1]
  )


def test_packed_documents_are_trained_as_if_alone(corpus):
  """The loss of a packed batch is the mean over its documents' own targets."""
  config = run_fixtures.config(corpus, data__packing=True)
  functional, stream = FunctionalDecoder(config), batches.build(texts.load(config), config, 0)
  decoder = functional.bind(functional.init())
  batch = next(b for b in stream if b['segments'].max() > 1)
  given = Spec(), jax.random.key(0)
  total, count = train_step.token_loss(decoder, jax.tree.map(np.asarray, batch), *given)
  alone, targets = 0.0, 0
  for tokens, segments in zip(batch['tokens'], batch['segments'], strict=True):
    for segment in set(segments):
      part = tokens[segments == segment][None]
      if part.shape[1] > 1:
        nats, n = train_step.token_loss(decoder, {'tokens': part}, *given)
        alone, targets = alone + float(nats), targets + int(n)
  assert int(count) == targets
  assert math.isclose(float(total), alone, rel_tol=1e-5)


@pytest.mark.parametrize('kind', ['cosine', 'wsd', 'constant'])
def test_schedules_by_hand(kind):
  optimizer = {'learning_rate': 2.0, 'warmup': 10, 'schedule': kind, 'final': 0.1, 'decay': 0.2}
  rate = optimizers.schedule(optimizer, 100)
  assert [float(rate(s)) for s in (0, 5, 10)] == [0.0, 1.0, 2.0]
  cosine = 0.2 + 1.8 * (1 + math.cos(math.pi * 40 / 90)) / 2
  middle = {'cosine': cosine, 'wsd': 2.0, 'constant': 2.0}[kind]
  late = {'cosine': 0.2 + 1.8 * (1 + math.cos(math.pi * 80 / 90)) / 2, 'wsd': 1.1, 'constant': 2.0}
  assert math.isclose(rate(50), middle, rel_tol=1e-5)
  assert math.isclose(rate(90), late[kind], rel_tol=1e-5)
  assert math.isclose(rate(100), 2.0 if kind == 'constant' else 0.2, rel_tol=1e-5)


def test_a_bucket_that_does_not_answer_damages_no_checkpoint(tmp_path, monkeypatch):
  kept = checkpoints.Checkpoints(tmp_path / 'run', 2)
  tree = {'x': jnp.zeros(2)}
  for step in (1, 2):
    kept.save(step, tree, {})
  kept.manager.wait_until_finished()

  def away(step, like):
    if step == 2:
      raise paths.Unreachable('no answer')
    return like, {}

  monkeypatch.setattr(kept, '_read', away)
  with pytest.raises(paths.Unreachable):
    kept.restore(tree)
  assert kept.steps() == [1, 2] and not list(tmp_path.rglob('checkpoints_damaged'))


@pytest.mark.parametrize('decay', [1.0, 0.95, 0.9])
def test_a_rate_that_falls_from_the_warmup_on_ends_at_the_final_one(decay):
  optimizer = {'learning_rate': 2.0, 'warmup': 10, 'schedule': 'wsd', 'final': 0.0, 'decay': decay}
  rate = optimizers.schedule(optimizer, 100)
  assert rate(10) == 2.0 and math.isclose(rate(55), 1.0, rel_tol=1e-5)
  assert math.isclose(rate(100), 0.0, abs_tol=1e-6)


def test_only_matrices_decay(corpus):
  config = run_fixtures.config(corpus, position='learned')
  functional = FunctionalDecoder(config)
  params = functional.init()
  optimizer = optimizers.build(config['optimizer'] | {'warmup': 0, 'clip': 0}, 10)
  zero = jax.tree.map(np.zeros_like, params)
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  moved = {name for name, u in updates.items() if np.asarray(u).any()}
  assert moved == {name for name in params if name.endswith('kernel')}
  assert {'embedding', 'position/0/table', 'norm/scale'} <= params.keys() - moved


def test_the_record_says_what_was_run(straight, corpus):
  record = files.read_json(straight[1] / 'run.json')
  assert record['steps'] == 12 and len(record['batches']) == 64
  assert record['parameters'] == sum(p.size for p in straight[0]['params'].values())
  assert record['position_parameters'] == 0
  assert {'program.step', 'program.initial', 'batch_order'} <= record['conditions'].keys()
  assert not any(name.startswith(('config.', 'code')) for name in record['conditions'])
  assert record['conditions']['device'] == 'cpu cpu'
  width, hidden, layers, length = 16, 48, 2, 16
  products = layers * (4 * width**2 + 3 * width * hidden) + 256 * width
  scores = layers * 2 * width * (length + 1) / 2
  assert record['train_flops_per_token'] == 6 * (products + scores)


def test_the_record_has_the_compilers_own_count(straight):
  """Dense attention computes both halves of its square, and elementwise work adds a little."""
  record = files.read_json(straight[1] / 'run.json')
  cost, tokens = record['step_cost'], 16 * 8
  masked = 6 * 2 * 2 * 16 * (16 - 17 / 2)
  least = tokens * (record['train_flops_per_token'] + masked)
  assert least < cost['flops'] < 1.5 * least
  state = 4 * (3 * record['parameters'])  # parameters and both of Adam's moments
  assert state < cost['argument_bytes'] < state + 4 * 2 * tokens + 64
  assert state <= cost['donated_bytes'] <= cost['output_bytes']
  assert cost['temporary_bytes'] > 0 and cost['bytes_accessed'] > state


GRAIN = {'data__loader': 'grain', 'data__train_split': 'train[:80%]'}
GRAIN |= {'data__validation_split': 'train[80%:]'}


POSE = {'position': 'pose'}


@pytest.mark.parametrize('settings', [{}, {'data__packing': True}, GRAIN, POSE, GRAIN | POSE])
def test_batches_are_what_the_step_is_compiled_for(corpus, settings):
  config = run_fixtures.config(corpus, **settings)
  batch = next(batches.build(texts.load(config), config, 0))
  of = lambda arrays: {name: (x.shape, x.dtype) for name, x in arrays.items()}
  assert of(batch) == of(batches.shapes(config, 0))


def test_initial_parameters_and_batches_are_shared_by_schemes(corpus, straight, tmp_path):
  other = loop.train(run_fixtures.config(corpus, position='t5'), tmp_path)
  one, two = (files.read_json(w / 'run.json') for w in (straight[1], tmp_path))
  for field in ('fingerprint', 'initial_parameters', 'batches'):
    assert one[field] == two[field]
  assert two['position_parameters'] == 32 * 2 and other is not None


def test_text_that_a_scheme_parts_comes_from_the_windows_of_any(corpus, straight, tmp_path):
  loop.train(run_fixtures.config(corpus, position='pose'), tmp_path)
  one, two = (files.read_json(w / 'run.json') for w in (straight[1], tmp_path))
  for field in ('fingerprint', 'batches', 'train_flops_per_token'):
    assert one[field] == two[field]


def test_a_scheme_says_what_its_training_length_leaves_out(corpus, tmp_path, capsys):
  loop.train(run_fixtures.config(corpus, position='t5', steps=3), tmp_path)
  note = 'distances below the training length 16 reach 16 of 32 buckets (max_distance 128)'
  assert f'note: {note}' in capsys.readouterr().out
  assert files.read_json(tmp_path / 'run.json')['notes'][0].startswith(note)


@pytest.fixture
def begun(corpus, tmp_path, monkeypatch):
  """The workdir of a run that was killed in its seventh step."""
  with monkeypatch.context() as patch:
    Interrupt(patch, 7, kill)
    with pytest.raises(KeyboardInterrupt):
      loop.train(run_fixtures.config(corpus), tmp_path)
  return tmp_path


@pytest.mark.usefixtures('own_texts')
def test_a_run_that_goes_on_under_another_program_says_so(corpus, begun, monkeypatch):
  monkeypatch.setattr(logits, 'MASKED', -1e29)
  loop.train(run_fixtures.config(corpus), begun)
  changed = files.read_json(begun / 'run.json')['changed_on_resume']
  assert [line.split(': ')[0] for line in changed] == ['program.step', 'own_program.step']


def test_a_run_that_goes_on_under_another_scheme_of_its_name_says_so(corpus, begun, monkeypatch):
  query = rotary.RoPE.query
  monkeypatch.setattr(rotary.RoPE, 'query', lambda *given: 1.5 * query(*given))
  loop.train(run_fixtures.config(corpus), begun)
  [line] = files.read_json(begun / 'run.json')['changed_on_resume']
  assert line.startswith('own_program.step: ')


def test_a_run_may_go_on_under_other_files_of_the_same_programs(corpus, begun, monkeypatch):
  other = provenance.provenance() | {'code': 'edited', 'commit': 'later'}
  monkeypatch.setattr(provenance, 'provenance', lambda: other)
  loop.train(run_fixtures.config(corpus), begun)
  assert files.read_json(begun / 'run.json')['changed_on_resume'] == []


def test_a_run_that_began_without_programs_on_record_goes_on_and_says_so(corpus, begun):
  record = files.read_json(begun / 'run.json')
  kept = {k: v for k, v in record['conditions'].items() if k.startswith(('data.', 'version.'))}
  older = kept | {'code': 'of then', 'device': 'cpu cpu'}
  files.write_json(begun / 'run.json', record | {'conditions': older})
  loop.train(run_fixtures.config(corpus), begun)
  assert files.read_json(begun / 'run.json')['changed_on_resume'] == [
    'programs: none on record when the run began'
  ]


def test_what_cannot_be_evaluated_is_not_trained(corpus, tmp_path):
  with pytest.raises(ValueError, match='0 windows of length 99999'):
    loop.train(run_fixtures.config(corpus, eval__lengths='(16, 99999)'), tmp_path)
  assert not (tmp_path / 'metrics.jsonl').exists()
  assert not (tmp_path / 'config.json').exists()  # the mended command may use the folder


def test_evaluation_is_resumed_and_not_repeated(corpus, straight, tmp_path, monkeypatch):
  config, workdir = run_fixtures.config(corpus), tmp_path / 'run'
  shutil.copytree(straight[1], workdir)
  params = straight[0]['params']
  evaluate.evaluate(config, workdir, params, 12)
  rows = (workdir / 'results.jsonl').read_text()
  lines = rows.splitlines(keepends=True)
  assert [json.loads(line)['eval_length'] for line in lines] == [16, 32, 64]
  (workdir / 'results.jsonl').write_text(''.join(lines[:2]) + lines[2][:50])
  evaluate.evaluate(config, workdir, params, 12)
  assert (workdir / 'results.jsonl').read_text() == rows
