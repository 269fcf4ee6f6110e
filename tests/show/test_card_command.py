"""The command that shows a card: typed flags, errors of one line, saved runs, a drawing."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import ml_collections
import pytest
import run_fixtures
import sweeps

from pe_research import card as card_command
from pe_research import positions
from pe_research.settings import configs
from pe_research.show import card_flags, card_text

SVG = '{http://www.w3.org/2000/svg}'


def command(capsys, *arguments):
  card_command.main(arguments)
  return capsys.readouterr().out


def test_the_command_prints_what_the_card_says(capsys):
  said = command(capsys, '--position=yarn', '--factor=8', '--length=128', '--preset=matched')
  assert 'warning' not in said and 'beta_fast=5.02' in said and 'base=72.57' in said
  said = command(capsys, '--position', 'yarn', '--factor', '8', '--length', '128')
  assert said.count('warning: ') == 2
  assert re.search(r'^target length +1,024 tokens$', said, re.MULTILINE)
  assert re.search(r'^logit scale +1.459 ×$', said, re.MULTILINE)
  table = said[said.index('rotary pair ') :].splitlines()[1:]
  assert [line.split()[0] for line in table] == [str(i) for i in range(8)]
  assert table[-1].split()[4] == '8'
  assert said.splitlines()[1] == 'width 64, 4 heads of 16'


def test_flags_are_typed_as_arguments_are():
  read = lambda *given: card_flags.read(given)[0]['position']
  assert read('--position=t5', '--scale_logits=false', '--buckets=16')['scale_logits'] is False
  assert read('--base=500')['base'] == 500.0
  factors = read('--position=longrope', '--long_factor=1;2', '--factor=2')
  assert factors['long_factor'] == (1.0, 2.0) and factors['factor'] == 2.0
  for name in positions.SCHEMES:
    defaults = card_flags.read([f'--position={name}'])[0]['position']
    assert defaults == positions.defaults(name)
  sizes = card_flags.read(['--width=96', '--heads=6', '--length=7'])[0]
  assert sizes['model'] == {'width': 96, 'heads': 6, 'head_dim': 16} and sizes['length'] == 7


def test_the_default_model_is_that_of_the_config():
  values = card_flags.defaults()
  space = {}
  exec((run_fixtures.ROOT / 'configs' / 'lm.py').read_text(), space)
  config: ml_collections.ConfigDict = space['get_config']()
  assert (values.width, values.heads, values.length) == (
    config.model.width, config.model.heads, config.length,
  )  # fmt: skip
  assert values.position == config.position.name


BAD = {
  '--position=yarn --betafast=3': '--betafast is unknown. Did you mean --beta-fast',
  '--lenght=3': '--lenght is unknown. Did you mean --length',
  '--position=rope --factor=3': '--factor is unknown.',
  '--position=yarm': "no positional scheme 'yarm'. Did you mean yarn",
  '--position=yarn': 'needs position.factor',
  '--length=abc': '--length=abc is not int.',
  '--base=abc': '--base=abc is not float.',
  '--position=t5 --scale_logits=maybe': '--scale-logits=maybe is not bool.',
  '--preset=matchd': 'Did you mean matched?',
  '--length': '--length',
  '--length=0': '--length is 0; it must be at least 1.',
  '--heads=5': '--width (64) is not a multiple of --heads (5)',
  '--longest=3': '--longest is 3 tokens; it must be at least 64.',
  '--longest=9999999999': '--longest is 9999999999 tokens; the maximum is 2147483647.',
  '--output=card.pdf': '--output=card.pdf is neither .svg nor .png.',
  '--position=nope --output=card.png': "'NoPE' has nothing to draw",
  '--output=/absent/card.png': '/absent/card.png cannot be written',
  '--workdir=/absent': '/absent has no config.json',
  '--workdir=/absent --base=3': '--base is that of the run with --workdir',
  'yarn': 'yarn is unknown.',
  '--length=20000000': 'holds 16777216 positions; asked for 20000000',
  '--base=0.5': 'position.base is 0.5; it must be above 1.',
}


@pytest.mark.parametrize('line', BAD)
def test_a_bad_flag_is_one_line(line, capsys):
  with pytest.raises(SystemExit) as stopped:
    card_command.main(line.split())
  said = capsys.readouterr().err
  assert stopped.value.code == 2
  assert said.startswith('error: ') and said.count('\n') == 1 and BAD[line] in said


def test_help_explains_the_arguments_of_the_scheme(capsys):
  with pytest.raises(SystemExit) as stopped:
    card_command.main(['--position=yarn', '--help'])
  said = ' '.join(capsys.readouterr().out.split())
  assert stopped.value.code == 0
  assert '--beta-slow VALUE rotations below which it is interpolated by s' in said
  for field in positions.arguments('yarn'):
    assert f'--{field.replace("_", "-")} VALUE' in said


def test_it_needs_no_matplotlib_to_print():
  program = (
    'import sys; from pe_research import card; card.main(["--position=alibi"]); '
    'print([m for m in ("matplotlib", "experiments", "orbax") if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=run_fixtures.ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.splitlines()[-1] == '[]', done.stdout


def test_the_card_of_a_saved_run(tmp_path, capsys):
  run = sweeps.run(tmp_path, 'yarn')
  sweeps.save(run)
  said = command(capsys, f'--workdir={run.workdir}')
  made = card_text.card(configs.scheme(run.config), 64, sweeps.LENGTHS[-1])
  assert said.endswith(f'\n\n{card_text.text(made)}\n')
  assert dict(made.marks) == {'training': 64, 'target': 1024, 'longest': 4096}
  said = command(capsys, f'--workdir={run.workdir}', '--longest=1024')
  made = card_text.card(configs.scheme(run.config), 64, 1024)
  assert said.endswith(f'{card_text.text(made)}\n')


@pytest.mark.parametrize('suffix', ['svg', 'png'])
def test_the_command_draws(suffix, tmp_path, capsys):
  target = tmp_path / f'card.{suffix}'
  said = command(capsys, '--position=yarn', '--factor=8', '--length=128', f'--output={target}')
  assert said.startswith('YaRN, arXiv:2309.00071') and said.endswith(f'wrote {target}\n')
  if suffix == 'png':
    assert target.read_bytes()[:8] == b'\x89PNG\r\n\x1a\n'
  else:
    root = ET.fromstring(target.read_text())
    uses = [g for g in root.iter(f'{SVG}g') if g.get('id') == 'card-marks-wavelength-stretched']
    assert len(list(uses[0].iter(f'{SVG}use'))) == 8
    texts = [t.text for t in root.iter(f'{SVG}text')]
    assert 'wavelength (tokens)' in texts and 'interpolation (×)' in texts
