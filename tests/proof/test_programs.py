"""What digests of programs see, and what they do not."""

import json
import subprocess
import sys

import mutations
import pytest
import run_fixtures

from experiments.studies import comparability
from pe_research.evaluation import fixed_inputs
from pe_research.storage import files

FILES = [file for file, _, _ in mutations.DECISIVE]
FIRST = 'a function is renamed', 'a scheme is added', 'a docstring says more', 'lines move down'


def tiered(change, first, **options):
  """A parameter that the second tier alone has, unless `first`."""
  return pytest.param(change, marks=[] if first else pytest.mark.slow, **options)


@pytest.fixture(scope='module')
def under(request, tmp_path_factory):
  """Digests of the code as it is, and under each change that is tested; two processes share it."""
  own = [item for item in request.session.items if item.module is request.module]
  every = any(
    item.name == test_a_host_side_change_is_seen_by_its_own_hash_alone.__name__ for item in own
  )
  asked = [p for item in own if hasattr(item, 'callspec') for p in item.callspec.params.values()]
  changes = {'': []} | {change: [change] for change in mutations.DECISIVE} | mutations.HARMLESS
  changes = {name: one for name, one in changes.items() if every or not name or name in asked}
  names, changes = [*changes], [*changes.values()]
  parts = [changes[0::2], changes[1::2]]
  copies = [mutations.copy_of_code(tmp_path_factory.mktemp('copy')) for _ in parts]
  processes = [
    subprocess.Popen(
      [sys.executable, mutations.__file__, str(copy), *([] if every else ['quick'])],
      env=run_fixtures.environment(
        PYTHONPATH='', PYTHONDONTWRITEBYTECODE='1', PYTHONHASHSEED=str(i)
      ),
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    for i, copy in enumerate(copies)
  ]  # fmt: skip
  for process, part in zip(processes, parts, strict=True):
    process.stdin.write(json.dumps(part))
    process.stdin.close()
  found = [[json.loads(line) for line in process.stdout] for process in processes]
  assert [process.wait() for process in processes] == [0, 0]
  return dict(zip(names[0::2], found[0], strict=True)) | dict(
    zip(names[1::2], found[1], strict=True)
  )


@pytest.mark.parametrize('change', [
  tiered(change, FILES.index(change[0]) == i, id=' '.join(change))
  for i, change in enumerate(mutations.DECISIVE)
])  # fmt: skip
def test_what_decides_a_number_changes_a_digest_without_the_scheme(under, change):
  before, after = under[''], under[change]
  assert {n for n in after if not n.startswith('own ') and before[n] != after[n]}


@pytest.mark.parametrize('name', [tiered(name, name in FIRST) for name in mutations.HARMLESS])
def test_what_decides_none_changes_no_digest(under, name):
  assert under[name].items() <= under[''].items()


@pytest.mark.slow
def test_a_host_side_change_is_seen_by_its_own_hash_alone(under):
  changed = lambda file: {
    name for change, found in under.items() if change and change[0] == file
    for name in found if found[name] != under[''][name]
  }  # fmt: skip
  assert changed('data/batches.py') == {'batches', 'needles'}
  assert changed('evaluation/measures/probe.py') == {'probe'}
  assert changed('data/needles.py') == {'needles', 'passkey'}
  assert changed('evaluation/measures/losses.py') == {'sliding'}
  assert changed('evaluation/measures/retrieval.py') == {'passkey'}
  assert changed('search/methods.py') == {'search'}


@pytest.mark.slow
def test_a_scheme_that_is_added_joins_the_baselines_that_exist(tmp_path):
  """Train RoPE, add a file and a line, train what was added, report: no flag, no difference."""
  code = mutations.copy_of_code(tmp_path / 'code')
  corpus, home = run_fixtures.write_corpus(tmp_path / 'text'), tmp_path / 'sweep'

  def run(*command):
    done = run_fixtures.run(*command, cwd=code, PYTHONPATH=str(code), PYTHONDONTWRITEBYTECODE='1')
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  def train(position):
    flags = [
      flag.replace(str(run_fixtures.ROOT), str(code))
      for flag in run_fixtures.flags(corpus, position)
    ]
    run('-m', 'pe_research.main', *flags, f'--workdir={home / "runs" / position}')

  train('rope')
  for name in ('a colour changes', 'a docstring says more', 'a function is renamed'):
    mutations.apply(code, mutations.HARMLESS[name])
  mutations.apply(code, mutations.NEW_SCHEME)
  train('learned_slopes')
  table = run('-m', 'experiments.report', f'--workdir={home}')
  assert 'RoPE' in table and 'Learned slopes' in table and 'note: ' not in table
  assert 'differ in more than the scheme' not in (home / 'report.html').read_text()
  codes = {
    run.record['provenance']['code']
    for run in comparability.load(sorted((home / 'runs').iterdir()))
  }
  assert len(codes) == 2
  # A constant of the model, changed in one line, ends that.
  mutations.apply(
    code, [('model/transformer.py', 'self.model.width**0.5', 'self.model.width**0.49')]
  )
  train('alibi')
  done = run_fixtures.run(
    '-m', 'experiments.report', f'--workdir={home}', cwd=code, PYTHONPATH=str(code)
  )
  assert done.returncode == 2
  changed = home / 'runs' / 'difference_of_program.step.diff'
  said = 'training programs without the scheme differ, and no field of the configs says why'
  assert said in done.stderr and str(changed) in done.stderr
  assert '+% = stablehlo.constant value=dense<4.000000e+00>' in changed.read_text()
  # A config that differs as well does not hide it.
  file = home / 'runs' / 'alibi' / 'config.json'
  config = files.read_json(file)
  files.write_json(file, config | {'model': config['model'] | {'mlp_width': 56}})
  report = ('-m', 'experiments.report', f'--workdir={home}')
  allowed = '--allow-different=config.model.mlp_width'
  done = run_fixtures.run(*report, allowed, cwd=code, PYTHONPATH=str(code))
  assert done.returncode == 2 and '--allow-different=program.step' in done.stderr


@pytest.mark.parametrize('protocol, control', [
  ('passkey', 'depth:0.5+keys:26'), ('passkey', 'depth:1+keys:4+cropped+scale:1.2'),
  ('fixed_targets', 'window:3'), ('probe', 'layer:9+weights:initial'), ('by_position', 'none'),
])  # fmt: skip
def test_every_control_has_its_arithmetic_on_record(protocol, control):
  assert fixed_inputs.of_row(protocol, control, '') != fixed_inputs.of_row(
    'fixed_targets', 'none', ''
  )


def test_digests_do_not_depend_on_the_process(tmp_path):
  """On hash seeds, on the number of devices, on where the code lies."""
  flags = ('--config=configs/smoke.py:position=t5', '--config.model.layers=1')
  devices = {'XLA_FLAGS': '--xla_force_host_platform_device_count=8'}
  code = mutations.copy_of_code(tmp_path / 'elsewhere')
  found = {
    run_fixtures.run(
      '-m', 'pe_research.programs', *flags, cwd=where, PYTHONPATH=str(where), **more
    ).stdout
    for where, more in (
      (run_fixtures.ROOT, {'PYTHONHASHSEED': '1'}),
      (run_fixtures.ROOT, {'PYTHONHASHSEED': '2'} | devices),
      (code, {}),
    )
  }
  (text,) = found
  assert len(text.splitlines()) == 5 and 'taken out' in text
