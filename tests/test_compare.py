"""Runs are compared only if they differ in scheme and seed alone."""

import dataclasses

import pytest
import sweeps

from experiments import compare

CONTROLS = [('fixed_targets', 'cropped')]


@pytest.fixture
def runs(tmp_path):
  return sweeps.runs(tmp_path, seeds=(0, 1), names=('learned', 'rope', 'alibi'), measures=CONTROLS)


def changed(run, **record):
  return dataclasses.replace(run, record=run.record | record)


def with_condition(run, field, value):
  conditions = dict(run.record['conditions'])
  if value is None:
    del conditions[field]
  else:
    conditions[field] = value
  return changed(run, conditions=conditions)


def with_row(run, at, defined=True, **row):
  """The run with entries of its `at`-th row changed, of those with (or without) a value."""
  at = [i for i, old in enumerate(run.rows) if (old['value'] is not None) == defined][at]
  rows = [old | row if i == at else old for i, old in enumerate(run.rows)]
  return dataclasses.replace(run, rows=rows)


DIFFERENCES = {
  'config.model.width': lambda run: with_condition(run, 'config.model.width', 128),
  'data.validation': lambda run: with_condition(run, 'data.validation', 'w' * 64),
  'version.jax': lambda run: with_condition(run, 'version.jax', '0.11.0'),
  'version.flax': lambda run: with_condition(run, 'version.flax', None),
  'config.model.window': lambda run: with_condition(run, 'config.model.window', 32),
  'code': lambda run: with_condition(run, 'code', 'x' * 64),
  'device': lambda run: with_condition(run, 'device', 'gpu NVIDIA H100'),
  'changed_on_resume': lambda run: changed(run, changed_on_resume=['code: a -> b']),
  'initial_parameters': lambda run: changed(run, initial_parameters='y' * 64),
  'batches': lambda run: changed(run, batches='z' * 64),
  'steps': lambda run: changed(run, steps=900),
  'settings': lambda run: with_row(run, 0, settings='q' * 64),
  'targets': lambda run: with_row(run, 2, targets='q' * 64),
  'tokens': lambda run: with_row(run, 1, tokens=7),
  'bytes': lambda run: with_row(run, 3, bytes=7),
}
each_difference = pytest.mark.parametrize('field', DIFFERENCES)
each_run = pytest.mark.parametrize('which', [1, 3, 5])


def test_runs_under_the_same_conditions_are_compared_without_marks(runs):
  assert compare.check(runs) == []
  assert compare.check(runs[:1]) == []


@each_difference
@each_run
def test_a_difference_is_refused_and_named(runs, field, which):
  runs[which] = DIFFERENCES[field](runs[which])
  with pytest.raises(compare.Refused) as refused:
    compare.check(runs)
  said = str(refused.value)
  assert f'--allow-different={field}' in said
  assert said.count('--allow-different') == 1
  assert runs[which].workdir.name in said


@each_difference
def test_an_allowed_difference_is_let_through_and_marked(runs, field):
  runs[4] = DIFFERENCES[field](runs[4])
  marks = compare.check(runs, [field])
  assert marks and all(mark.startswith(field) for mark in marks)
  assert any(runs[4].workdir.name in mark for mark in marks)


def test_what_was_measured_again_counts_once(runs):
  """Rows of an earlier measurement or checkpoint do not meet those of the last."""
  for i, run in enumerate(runs):
    again = [row | {'settings': 'r' * 64} for row in run.rows]
    early = [row | {'settings': 's' * 64, 'step': 1} for row in run.rows]
    runs[i] = dataclasses.replace(run, rows=[*run.rows, *again, *early])
  assert compare.check(runs) == []


def test_allowing_one_difference_allows_no_other(runs):
  runs[1] = DIFFERENCES['device'](DIFFERENCES['code'](runs[1]))
  with pytest.raises(compare.Refused, match=r'--allow-different=code$'):
    compare.check(runs, ['device'])
  marks = compare.check(runs, ['device', 'code'])
  assert {mark.split(' ')[0] for mark in marks} == {'device', 'code'}


def test_a_condition_says_both_values(runs):
  runs[2] = DIFFERENCES['device'](runs[2])
  with pytest.raises(compare.Refused, match='cpu cpu -> gpu NVIDIA H100'):
    compare.check(runs)


def test_an_allowed_name_in_which_runs_do_not_differ_is_an_error(runs):
  with pytest.raises(ValueError, match=r"\['devise'\], in which the runs do not differ"):
    compare.check(runs, ['devise'])
  runs[1] = DIFFERENCES['device'](runs[1])
  with pytest.raises(ValueError, match=r"\['code'\], in which"):
    compare.check(runs, ['device', 'code'])


def test_seeds_may_start_differently_but_schemes_of_one_seed_may_not(runs):
  assert len({run.record['initial_parameters'] for run in runs}) == 2
  assert compare.check(runs) == []
  runs[3] = changed(runs[3], initial_parameters=runs[0].record['initial_parameters'])
  with pytest.raises(compare.Refused, match='initial_parameters'):
    compare.check(runs)


def test_what_is_undefined_is_not_compared(runs):
  runs[0] = with_row(runs[0], 0, defined=False, settings='q' * 64)
  assert compare.check(runs) == []


def test_each_control_and_length_is_compared_with_itself(runs):
  own = lambda row: {'targets': row['control'], 'tokens': row['eval_length']}
  runs = [dataclasses.replace(run, rows=[row | own(row) for row in run.rows]) for run in runs]
  assert compare.check(runs) == []


def test_runs_are_read_as_they_were_written(runs):
  for run in runs:
    sweeps.save(run)
  assert compare.load([run.workdir for run in runs]) == runs


def test_what_is_not_a_finished_run_is_refused(tmp_path, runs):
  with pytest.raises(ValueError, match='no runs to compare'):
    compare.load([])
  with pytest.raises(ValueError, match='elsewhere holds no finished run'):
    compare.load([tmp_path / 'elsewhere'])
  record = {k: v for k, v in runs[0].record.items() if k != 'batches'}
  sweeps.save(dataclasses.replace(runs[0], record=record))
  with pytest.raises(ValueError, match=f'{runs[0].workdir.name} holds no finished run'):
    compare.load([runs[0].workdir])
