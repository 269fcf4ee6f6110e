"""What every command shares beside its config, and what commands on claims print."""

import argparse
import os
import re
import subprocess
import sys

import pytest
import run_fixtures

from experiments import __main__ as experiments
from experiments import claims
from experiments.studies import ledger, verdicts
from pe_research import evaluate, generate, main, programs, together
from pe_research.search import __main__ as search
from pe_research.settings import cli
from pe_research.storage import files


def test_columns_of_numbers_stand_to_the_right_and_words_to_the_left():
  rows = [['job', 'loss', 'said'], ['a', '-1.5', 'x'], ['bcd', '12', 'longer'], ['e', '', '']]
  assert cli.aligned(rows) == ['job  loss  said', 'a    -1.5  x', 'bcd    12  longer', 'e']


@pytest.mark.parametrize(
  ('text', 'numbers'), [('7', (7,)), ('0,2,1', (0, 2, 1)), ('0:3', (0, 1, 2)), ('0:2,9', (0, 1, 9))]
)
def test_whole_numbers_are_a_list_or_a_range(text, numbers):
  assert cli.integers(text) == numbers


@pytest.mark.parametrize('text', ['', 'a', '1,', '3:3', '1k', '0:1000000'])
def test_what_is_no_list_of_whole_numbers_is_refused(text):
  with pytest.raises(argparse.ArgumentTypeError):
    cli.integers(text)


BUFFERED = {'PYTHONUNBUFFERED': ''}


@pytest.mark.parametrize('lines', [3, 100_000])  # less than a buffer holds, and more
def test_who_stops_reading_is_no_error(lines):
  script = (
    'import sys\nfrom pe_research.machines import exits\nsys.stdin.read()\n'
    f'with exits.errors():\n  for i in range({lines}):\n    print(i)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', script], cwd=run_fixtures.ROOT, text=True, env=os.environ | BUFFERED,
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
  )  # fmt: skip
  process.stdout.close()
  process.stdin.close()
  assert process.wait(timeout=60) == 1 and not process.stderr.read()


def test_a_list_is_of_the_claims_that_are_named(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '100')
  assert experiments.main(['list', 'C12', 'alibi_extrapolates']) == 0
  _, *lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines if line[0] != ' '] == ['C12', 'C01']
  assert max(map(len, lines)) <= 100


@pytest.mark.parametrize('text', ['5', '0:5', '0,1,2,3,4', '0:3,3:5'])
def test_seeds_of_claims_are_a_number_or_those_from_0(text):
  assert experiments.parser().parse_args(['run', f'--seeds={text}']).seeds == 5


@pytest.mark.parametrize('text', ['1:4', '0,2,1', '0,0,1'])
def test_other_seeds_of_claims_are_refused(text, capsys):
  with pytest.raises(SystemExit):
    experiments.parser().parse_args(['run', f'--seeds={text}'])
  error = capsys.readouterr().err
  assert f'argument --seeds: {text} has other seeds than 0 to N-1' in error and '0:3' in error


def test_a_claim_that_was_run_for_other_variants_is_not_run(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(ledger, 'RESULTS', tmp_path)
  (tmp_path / 'cpu').mkdir()
  claim = claims.CLAIMS['C12']
  files.write_json(ledger.path('cpu', claim, 'verdict.json'), {'verdicts': {'': ['refuted', 0.01]}})
  assert experiments.main(['list', 'C12']) == 0
  assert verdicts.MISSING in capsys.readouterr().out


@pytest.mark.parametrize('call, words', [
  (lambda: experiments.main(['report', 'C12']), 'report takes no claims (C12)'),
  (lambda: evaluate.main(['--workdir=none', '--label=mine']), '--label=mine names what --position'),
])  # fmt: skip
def test_arguments_that_would_be_ignored_are_refused(call, words, capsys):
  with pytest.raises(SystemExit) as ended:
    call()
  assert ended.value.code == 2 and words in capsys.readouterr().err


COMMANDS = (
  *(f'pe_research.{name}' for name in ('main', 'evaluate', 'generate', 'together', 'programs')),
  *(f'pe_research.{name}' for name in ('card', 'explorer', 'search', 'huggingface')),
  *(f'experiments.{name}' for name in ('sweep', 'stretch', 'finetune', 'progressive', 'cache')),
  *(f'experiments.{name}' for name in ('report', 'report.claims', 'site', 'bench')),
  'experiments',
  'launch',
)
HELP = """
import contextlib, io, runpy, sys
for name in sys.argv[1:]:
  sys.argv = [name, '--help']
  said = io.StringIO()
  with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
    runpy.run_module(name, run_name='__main__')
  slow = {'jax', 'numpy', 'ml_collections', 'scipy', 'matplotlib', 'altair'} & sys.modules.keys()
  print(name, said.getvalue().startswith('usage: '), sorted(slow))
"""


@pytest.mark.parametrize('command', [evaluate, generate, main, programs, search, together])
def test_every_flag_has_a_text_and_no_underscore(command, capsys):
  with pytest.raises(SystemExit):
    command.main(['--help'])
  options = capsys.readouterr().out.partition('options:\n')[2].partition('\nconfig:')[0]
  # A flag begins a line; its text follows two spaces, or on the next line.
  flags = re.split(r'^  (?=-)', options, flags=re.MULTILINE)[1:]
  assert len(flags) > 1
  for flag in flags:
    assert re.search(r'\S(  +|\n +)\w', flag) and '_' not in flag.split()[0], flag


def test_help_imports_nothing_slow():
  done = run_fixtures.run('-c', HELP, *COMMANDS)
  assert done.stdout.splitlines() == [f'{name} True []' for name in COMMANDS], done.stderr
