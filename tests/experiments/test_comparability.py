"""Runs are compared only if they differ in scheme and seed alone."""

import dataclasses

import pytest
import sweeps

from experiments.report import summary
from experiments.studies import comparability, measured, relowering
from pe_research.proof import program_store
from pe_research.runs import conditions

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


def with_config(run, part, **fields):
  return dataclasses.replace(run, config=run.config | {part: run.config[part] | fields})


DIFFERENCES = {
  'program.step': lambda run: with_condition(run, 'program.step', 'q' * 64),
  'program.initial': lambda run: with_condition(run, 'program.initial', 'q' * 64),
  'batch_order': lambda run: with_condition(run, 'batch_order', 'q' * 64),
  'data.validation': lambda run: with_condition(run, 'data.validation', 'w' * 64),
  'version.jax': lambda run: with_condition(run, 'version.jax', '0.11.0'),
  'version.flax': lambda run: with_condition(run, 'version.flax', None),
  'flags': lambda run: with_condition(run, 'flags', ['--xla_cpu_enable_fast_math=true']),
  'device': lambda run: with_condition(run, 'device', 'gpu NVIDIA H100'),
  'changed_on_resume': lambda run: changed(run, changed_on_resume=['device: a -> b']),
  'initial_parameters': lambda run: changed(run, initial_parameters='y' * 64),
  'start.parameters': lambda run: changed(run, start={'parameters': 'y' * 64}),
  'batches': lambda run: changed(run, batches='z' * 64),
  'steps': lambda run: changed(run, steps=900),
  'program': lambda run: with_row(run, 0, program='q' * 64),
  'inputs': lambda run: with_row(run, 2, inputs='q' * 64),
  'tokens': lambda run: with_row(run, 1, tokens=7),
  'bytes': lambda run: with_row(run, 3, bytes=7),
  'arithmetic': lambda run: with_row(run, 1, arithmetic='q' * 64),
  'attention': lambda run: with_condition(run, 'attention', 'pallas'),
  'environment': lambda run: with_row(run, 1, environment='q' * 64),
  'own_program.step': lambda run: changed(run, programs=run.record['programs'] | {'step': 'q'}),
  'own_program': lambda run: with_row(run, 1, own_program='q' * 64),
}
each_difference = pytest.mark.parametrize('field', DIFFERENCES)
each_run = pytest.mark.parametrize('which', [1, 3, 5])


def test_runs_under_the_same_conditions_are_compared_without_marks(runs):
  assert comparability.check(runs) == []
  assert comparability.check(runs[:1]) == []


@each_difference
@each_run
def test_a_difference_is_refused_and_named(runs, field, which):
  runs[which] = DIFFERENCES[field](runs[which])
  with pytest.raises(comparability.Refused) as refused:
    comparability.check(runs)
  said = str(refused.value)
  assert f'--allow-different={field}' in said
  assert said.count('--allow-different') == 1
  assert runs[which].workdir.name in said


@each_difference
def test_an_allowed_difference_is_let_through_and_marked(runs, field):
  runs[4] = DIFFERENCES[field](runs[4])
  marks = comparability.check(runs, [field])
  assert marks and any(runs[4].workdir.name in mark for mark in marks)


def test_what_was_measured_again_counts_once(runs):
  """Rows of an earlier measurement or checkpoint do not meet those of the last."""
  for i, run in enumerate(runs):
    again = [row | {'settings': 'r' * 64} for row in run.rows]
    early = [row | {'settings': 's' * 64, 'step': 1} for row in run.rows]
    runs[i] = dataclasses.replace(run, rows=[*run.rows, *again, *early])
  assert comparability.check(runs) == []


def test_allowing_one_difference_allows_no_other(runs):
  runs[1] = DIFFERENCES['device'](DIFFERENCES['program.step'](runs[1]))
  with pytest.raises(comparability.Refused, match=r'--allow-different=program.step$'):
    comparability.check(runs, ['device'])
  assert len(comparability.check(runs, ['device', 'program.step'])) == 2


def test_a_condition_says_both_values(runs):
  runs[2] = DIFFERENCES['device'](runs[2])
  with pytest.raises(comparability.Refused, match='cpu cpu -> gpu NVIDIA H100'):
    comparability.check(runs)


def test_a_field_of_the_configs_that_explains_a_difference_is_named_in_its_place(runs):
  wider = with_config(DIFFERENCES['program.step'](runs[2]), 'model', mlp_width=184)
  runs[2] = DIFFERENCES['initial_parameters'](with_row(wider, 0, program='q' * 64))
  said = 'training programs without the scheme differ: config.model.mlp_width 176 -> 184 '
  with pytest.raises(comparability.Refused) as refused:
    comparability.check(runs)
  text = str(refused.value)
  assert f'{said}(learned_seed0 -> alibi_seed0)\n' in text
  assert text.count('--allow-different') == 1
  assert text.endswith('--allow-different=config.model.mlp_width')
  runs[4] = DIFFERENCES['device'](runs[4])  # which no field of a config explains
  with pytest.raises(comparability.Refused, match=r'--allow-different=device$'):
    comparability.check(runs, ['config.model.mlp_width'])


def test_a_field_of_a_config_that_changes_nothing_is_no_difference(runs):
  runs[2] = with_config(runs[2], 'optimizer', spare=1)
  runs[3] = with_config(runs[3], 'eval', lengths=[64])
  assert comparability.check(runs) == []


def test_other_weights_to_start_from_hide_no_other_batches(runs):
  runs[2] = DIFFERENCES['start.parameters'](DIFFERENCES['initial_parameters'](runs[2]))
  assert len(comparability.check(runs, ['start.parameters'])) == 1
  runs[2] = DIFFERENCES['batches'](runs[2])
  with pytest.raises(comparability.Refused, match=r'=batches$'):
    comparability.check(runs, ['start.parameters'])


def test_a_field_that_cannot_be_why_explains_nothing(runs):
  faster = with_config(with_row(runs[2], 0, program='q' * 64), 'optimizer', learning_rate=9.0)
  runs[2] = DIFFERENCES['batch_order'](with_config(faster, 'model', mlp_width=184))
  with pytest.raises(comparability.Refused) as refused:
    comparability.check(runs)
  said = str(refused.value)
  assert 'orders of batches differ: batch_order' in said
  assert '=program' not in said and '=config.optimizer' not in said


def test_a_config_that_differs_hides_no_change_of_code(runs, monkeypatch):
  """Runs of other files are lowered again, where a field of their configs would explain them."""
  wider = with_config(DIFFERENCES['program.step'](runs[2]), 'model', mlp_width=184)
  runs[2] = changed(wider, provenance=wider.record['provenance'] | {'code': 'x' * 64})
  asked = []

  def as_recorded(run, recorded):
    assert recorded in (run.record['conditions'], run.rows[0])
    asked.append(run.name)
    return run.record['provenance']['code'] in known

  monkeypatch.setattr(relowering, 'matches_record', as_recorded)
  known = {'e' * 64, 'x' * 64}
  assert comparability.check(runs, ['config.model.mlp_width']) and set(asked) == {
    'learned_seed0', 'alibi_seed0'
  }  # fmt: skip
  known = {'e' * 64}
  with pytest.raises(comparability.Refused, match=r'=program\.step$'):
    comparability.check(runs, ['config.model.mlp_width'])


def test_runs_of_two_configs_are_each_held_against_their_own(runs):
  """The programs of configs that differ may; those of one config may not."""
  wider = [with_config(DIFFERENCES['program.step'](run), 'model', width=128) for run in runs]
  assert comparability.check([*runs, *wider], ['config.model.width'])
  wider[1] = with_condition(wider[1], 'program.step', 'another')
  with pytest.raises(
    comparability.Refused, match=r'no field of the configs says why(.|\n)*=program.step$'
  ):
    comparability.check([*runs, *wider], ['config.model.width'])


def test_where_nothing_says_why_commits_are_named_and_the_texts_compared(tmp_path):
  runs = sweeps.runs(tmp_path, names=('rope', 'alibi'))
  runs[1] = DIFFERENCES['program.step'](runs[1])
  made_by = runs[1].record['provenance'] | {'commit': 'd' * 40, 'clean': False}
  runs[1] = changed(runs[1], provenance=made_by)
  texts = {'p' * 64: '%0 = multiply(%1, %2)\n%3 = add(%0, %4)',
           'q' * 64: '%0 = multiply(%1, %2)\n%5 = subtract(%0, %4)'}  # fmt: skip
  for run, name in zip(runs, texts, strict=True):
    run.workdir.mkdir()
    program_store.add(run.workdir, {name: texts[name]})
  with pytest.raises(comparability.Refused) as refused:
    comparability.check(runs)
  text, file = str(refused.value), tmp_path / 'difference_of_program.step.diff'
  assert 'rope_seed0 at commit cccccccccc and alibi_seed0 at commit dddddddddd with changes' in text
  assert str(file) in text
  assert [line for line in file.read_text().splitlines() if line[0] in '+-'][2:] == [
    '-% = add(%, %)', '+% = subtract(%, %)',
  ]  # fmt: skip
  (runs[0].workdir / program_store.FILE).unlink()
  with pytest.raises(comparability.Refused, match='The texts of these programs are not kept'):
    comparability.check(runs)


def older(run, code='e' * 64):
  """The run as it would be if it had been made before programs were recorded."""
  record = {k: v for k, v in run.record.items() if k != 'programs'}
  kept = {k: v for k, v in record['conditions'].items() if k.startswith(('data.', 'version.'))}
  own = conditions.conditions(run.config) | {'code': code, 'device': 'cpu cpu'}
  drop = ('program', 'own_program', 'inputs', 'arithmetic', 'environment')
  rows = [{k: v for k, v in row.items() if k not in drop} for row in run.rows]
  return dataclasses.replace(run, record=record | {'conditions': kept | own}, rows=rows)


def test_an_older_run_is_compared_by_what_it_has_on_record_and_that_is_said(runs):
  runs[0] = older(runs[0])
  assert comparability.check(runs) == []
  (note,) = comparability.notes(runs)
  assert note.startswith('The programs of learned_seed0 (commit cccccccccc) are not on record')
  assert 'files of code' not in note
  runs[0] = with_config(runs[0], 'model', width=128)
  with pytest.raises(comparability.Refused, match=r'config\.model\.width: 128 -> 64 \(learned'):
    comparability.check(runs)


def test_an_older_run_hides_no_difference_of_others(runs):
  """Wherever it stands: newer runs are held against each other."""
  for field in ('program.step', 'batch_order', 'program', 'arithmetic', 'own_program.step'):
    for place in (0, 5):
      given = list(runs)
      given[place] = older(given[place])
      given[4] = DIFFERENCES[field](given[4])
      with pytest.raises(comparability.Refused, match=f'={field}$'):
        comparability.check(given)


def test_older_rows_of_any_protocol_meet_those_of_today(tmp_path):
  """Only rows of fixed targets had a digest of them; others go by how they were measured."""
  runs = sweeps.runs(tmp_path, names=('rope', 'alibi'), measures=[('sliding', 'none')])
  runs[0] = older(runs[0])
  plain = lambda row: {k: v for k, v in row.items() if k != 'targets'}
  rows = [plain(row) if row['protocol'] == 'sliding' else row for row in runs[0].rows]
  runs[0] = dataclasses.replace(runs[0], rows=rows)
  selection = measured.select(runs)
  assert [len(own) for own in selection.rows] == [len(run.rows) for run in runs]
  assert not selection.notes and not selection.other_targets


def test_targets_that_moved_are_refused_and_not_left_out(runs):
  """Where a run has them as its config asks, and none of those that others have."""
  asked = lambda run, **more: [row | {'settings': run.settings} | more for row in run.rows]
  runs = [dataclasses.replace(run, rows=asked(run)) for run in runs]
  runs[1] = dataclasses.replace(runs[1], rows=asked(runs[1], targets='moved'))
  with pytest.raises(
    comparability.Refused, match=r'in fixed_targets/none: rope_seed0(.|\n)*=targets$'
  ):
    comparability.check(runs)


def test_older_runs_among_themselves_are_held_to_one_code(runs):
  runs = [older(run) for run in runs]
  assert comparability.check(runs) == []
  (note,) = comparability.notes(runs)
  assert all(run.name in note for run in runs) and note.endswith('and of all files of code.')
  runs[1] = older(runs[1], 'x' * 64)
  with pytest.raises(comparability.Refused, match=r'--allow-different=code$'):
    comparability.check(runs)


def test_rows_on_other_targets_stand_beside(runs):
  """A later evaluation of longer texts moves the targets, of the same lengths as well."""
  longer = [row | {'targets': 'others', 'settings': 'l' * 64, 'value': 99.0, 'inputs': 'others'}
            for row in runs[1].rows if row['protocol'] == 'fixed_targets']  # fmt: skip
  longer += [longer[0] | {'eval_length': 8192}]
  before = summary.sections(runs)
  runs[1] = dataclasses.replace(runs[1], rows=[*runs[1].rows, *longer])
  assert comparability.check(runs) == []
  (note,) = comparability.notes(runs)
  assert note.startswith('rope_seed0 was measured on other targets as well (')
  assert 'fixed_targets/none/8192' in note
  after = summary.sections(runs)
  assert [section.lengths for section in after] == [section.lengths for section in before]
  rope = before[0].schemes[1]
  assert after[0].mean(after[0].schemes[1], 4096) == before[0].mean(rope, 4096)


def test_targets_that_most_runs_have_are_used(runs):
  moved = lambda run: [row | {'targets': 'others'} for row in run.rows]
  runs = [
    dataclasses.replace(run, rows=[*run.rows, *moved(run)]) if i else run
    for i, run in enumerate(runs)
  ]
  selection = measured.select(runs)
  rows, notes = selection.rows, selection.notes
  assert {row['targets'] for own in rows for row in own} == {'targets of fixed_targets'}
  assert len(notes) == len(runs) - 1
  runs[0] = dataclasses.replace(runs[0], rows=moved(runs[0]))
  selection = measured.select(runs)
  rows, notes = selection.rows, selection.notes
  assert {row['targets'] for own in rows for row in own} == {'others'}


def test_of_as_many_those_that_the_configs_ask_for_are_used(runs):
  asked = runs[0].settings
  both = lambda run: [*[row | {'settings': asked} for row in run.rows],
                      *[row | {'targets': 'z' * 64} for row in run.rows]]  # fmt: skip
  runs = [dataclasses.replace(run, rows=both(run)) for run in runs]
  rows = measured.select(runs).rows
  assert {row['targets'] for own in rows for row in own} == {'targets of fixed_targets'}


def test_an_allowed_name_in_which_runs_do_not_differ_is_an_error(runs):
  with pytest.raises(ValueError, match=r"\['devise'\], in which the runs do not differ"):
    comparability.check(runs, ['devise'])
  runs[1] = DIFFERENCES['device'](runs[1])
  with pytest.raises(ValueError, match=r"\['steps'\], in which"):
    comparability.check(runs, ['device', 'steps'])


def test_seeds_may_start_differently_but_schemes_of_one_seed_may_not(runs):
  assert len({run.record['initial_parameters'] for run in runs}) == 2
  assert comparability.check(runs) == []
  runs[3] = changed(runs[3], initial_parameters=runs[0].record['initial_parameters'])
  with pytest.raises(comparability.Refused, match='initial_parameters'):
    comparability.check(runs)


def test_what_is_undefined_is_not_compared(runs):
  runs[0] = with_row(runs[0], 0, defined=False, settings='q' * 64)
  assert comparability.check(runs) == []


def test_each_control_and_length_is_compared_with_itself(runs):
  own = lambda row: {'inputs': row['control'], 'tokens': row['eval_length']}
  runs = [dataclasses.replace(run, rows=[row | own(row) for row in run.rows]) for run in runs]
  assert comparability.check(runs) == []


def test_runs_are_read_as_they_were_written(runs):
  for run in runs:
    sweeps.save(run)
  assert comparability.load([run.workdir for run in runs]) == runs


def test_a_run_whose_rows_were_lost_is_refused(tmp_path):
  made = sweeps.runs(tmp_path, seeds=(0, 1, 2), names=['rope'], lengths=(64, 128, 256))
  for run in made:
    sweeps.save(run)
  file = made[1].workdir / 'results.jsonl'
  file.write_text(''.join(file.read_text().splitlines(keepends=True)[:2]))
  with pytest.raises(ValueError, match=r'results.jsonl lacks 1 .*fixed_targets/none/256.*evaluate'):
    comparability.load([run.workdir for run in made])


def test_what_is_not_a_finished_run_is_refused(tmp_path, runs):
  with pytest.raises(ValueError, match='no runs to compare'):
    comparability.load([])
  with pytest.raises(ValueError, match='elsewhere holds no finished run'):
    comparability.load([tmp_path / 'elsewhere'])
  record = {k: v for k, v in runs[0].record.items() if k != 'batches'}
  sweeps.save(dataclasses.replace(runs[0], record=record))
  with pytest.raises(ValueError, match=f'{runs[0].workdir.name} holds no finished run'):
    comparability.load([runs[0].workdir])
