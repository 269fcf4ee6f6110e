"""Bad values for every field and flag are refused in one line that names them, or are taken."""

import collections
import os
import random
import shutil

import bad_inputs
import pytest
import run_fixtures

SEED = 2026


@pytest.fixture(scope='module')
def names(tmp_path_factory):
  """What commands find; they write into folders beside it."""
  folder, before = tmp_path_factory.mktemp('inputs'), os.getcwd()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PE_DATA', str(folder / 'data'))
    patch.setenv('HOME', str(folder))
    (folder / 'here').mkdir()
    (folder / 'here' / 'configs').symlink_to(run_fixtures.ROOT / 'configs')
    os.chdir(folder / 'here')
    yield bad_inputs.places(folder)
    os.chdir(before)


@pytest.mark.parametrize('count', [50, pytest.param(10_000, marks=pytest.mark.slow)])
def test_bad_input_is_refused_by_name_or_taken(count, names):
  outcomes, slowest, wrong = collections.Counter(), (0.0, ''), []
  for number in range(count):
    case = bad_inputs.case(random.Random(f'{SEED}/{number}'))
    outcome = bad_inputs.outcome(case, names)
    shutil.rmtree(names['out'], ignore_errors=True)
    slowest = max(slowest, (outcome.seconds, f'{case.command} {case.argv[-1]}'))
    outcomes[outcome.what] += 1
    if outcome.what not in bad_inputs.RIGHT:
      wrong.append(f'case {number}, {case.command} {" ".join(case.argv)}: {outcome.what}')
  print({what: outcomes[what] for what in bad_inputs.RIGHT}, 'slowest:', slowest)
  assert not wrong, '\n'.join(wrong[:20])
  assert outcomes['refused'] > count / 2 and outcomes['began'] > count / 50


def test_flags_of_every_command_are_found():
  found = {command: bad_inputs.flags(command) for command in bad_inputs.COMMANDS}
  assert ('--workdir',) in found['pe_research.main'] and ('submit', '--on') in found['launch']
  assert all(found.values()) and sum(map(len, found.values())) > 100
