"""A sweep from empty folder to report: cut, resumed, compared, refused."""

import json
import re
import time

import pytest
import run_fixtures

from experiments import sweep
from experiments.studies import comparability, progress
from pe_research.machines import exits
from pe_research.storage import files, locks

COMMAND = ('-m', 'experiments.sweep')
NAMES = ('rope', 'learned')
FILES = ('results.jsonl', 'loss_by_length.svg', 'loss_by_length.png', 'report.html')


def flags(corpus, workdir, **overrides):
  config, *rest = run_fixtures.flags(corpus, **overrides)
  config = config.replace('position=rope,', '')
  return [config, *rest, f'--positions={",".join(NAMES)}', f'--workdir={workdir}']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


@pytest.fixture(scope='module')
def swept(corpus, tmp_path_factory):
  """A sweep that was interrupted and then finished by the same command; with what it printed."""
  workdir = tmp_path_factory.mktemp('sweep')
  given = flags(corpus, workdir, steps=300, run__save_every=50)
  first = run_fixtures.start(*COMMAND, *given)
  deadline = time.monotonic() + 120
  while not list(workdir.glob('runs/*/metrics.jsonl')) and time.monotonic() < deadline:
    time.sleep(0.01)
  first.terminate()  # as Ctrl-C does, and as a scheduler does
  out, _ = first.communicate(timeout=120)
  assert first.returncode == exits.STOPPED and 'the same command resumes' in out, out
  assert not list(workdir.glob('runs/*/done.json'))
  second = run_fixtures.run(*COMMAND, *given)
  assert second.returncode == 0, second.stdout + second.stderr
  return workdir, given, second.stdout


def test_it_ends_by_naming_the_files_it_wrote(swept):
  workdir, _, out = swept
  assert out.splitlines()[-4:] == [f'wrote {workdir / name}' for name in FILES]
  assert all((workdir / name).stat().st_size > 0 for name in FILES)


def test_progress_is_plain_lines_with_step_loss_speed_and_time_left(swept):
  lines = [line for line in swept[2].splitlines() if re.match(r'(rope|learned)_seed0 .*step', line)]
  assert {line.split('_')[0] for line in lines} == set(NAMES)
  pattern = r'\w+ +step +\d+/300  loss \d\.\d{3}  +\d+\.\dk tokens/s  +\d+ s left'
  assert any(re.fullmatch(pattern, line) for line in lines), lines
  assert '\x1b' not in swept[2]


def test_every_row_is_shown_as_it_arrives_and_in_the_file(swept):
  workdir, _, out = swept
  rows = files.read_rows(workdir / 'results.jsonl')
  assert {(r['scheme'], r['eval_length']) for r in rows} == {
    (s, n) for s in NAMES for n in (16, 32, 64)
  }
  assert len(rows) == 6
  for row in rows:
    if row['value'] is not None:
      assert f'{row["value"]:.4f} nats/token' in out
  undefined = [r['eval_length'] for r in rows if r['value'] is None]
  assert undefined == [32, 64] and {r['scheme'] for r in rows if r['value'] is None} == {'learned'}


def test_schemes_differ_in_nothing_but_the_scheme(swept):
  runs = [files.read_json(swept[0] / 'runs' / f'{n}_seed0' / 'run.json') for n in NAMES]
  for field in ('fingerprint', 'initial_parameters', 'batches', 'steps'):
    assert runs[0][field] == runs[1][field]


def test_the_same_command_again_only_reports(swept):
  workdir, given, _ = swept
  before = {name: (workdir / name).read_bytes() for name in FILES}
  metrics = [path.read_bytes() for path in sorted(workdir.glob('runs/*/metrics.jsonl'))]
  again = run_fixtures.run(*COMMAND, *given)
  assert again.returncode == 0, again.stderr
  assert {name: (workdir / name).read_bytes() for name in FILES} == before
  assert [path.read_bytes() for path in sorted(workdir.glob('runs/*/metrics.jsonl'))] == metrics


@pytest.mark.slow
def test_a_page_to_explore_the_models_is_part_of_the_report(swept):
  workdir, given, _ = swept
  done = run_fixtures.run(*COMMAND, *given, '--explorer')
  assert done.returncode == 0 and done.stdout.endswith(f'wrote {workdir / "explorer.html"}\n')
  assert '<a href="explorer.html">' in (workdir / 'report.html').read_text()
  page = (workdir / 'explorer.html').read_text()
  assert '"label":"RoPE, 16 tokens"' in page and '"label":"Learned, 16 tokens"' in page


def test_a_model_that_cannot_be_explored_is_refused_before_any_run(corpus, tmp_path):
  mla = {'model__projection': 'mla', 'model__rotary_dim': 4}
  done = run_fixtures.run(*COMMAND, *flags(corpus, tmp_path, **mla), '--explorer')
  assert done.returncode == 2 and 'rope_seed0 has latent attention' in done.stderr
  assert not list(tmp_path.iterdir())


def test_another_config_in_the_same_folder_is_refused_before_any_run(swept):
  _, given, _ = swept
  changed = [f.replace('steps=300', 'steps=301') for f in given]
  refused = run_fixtures.run(*COMMAND, *changed)
  assert refused.returncode == 2 and 'steps: 300 -> 301' in refused.stderr


def test_too_long_an_evaluation_is_refused_before_any_run(corpus, tmp_path):
  given = [f.replace('(16, 32, 64)', '(16, 99999)') for f in flags(corpus, tmp_path)]
  refused = run_fixtures.run(*COMMAND, *given)
  assert refused.returncode == 2 and '0 windows of length 99999' in refused.stderr
  assert not list(tmp_path.glob('runs/*/metrics.jsonl'))


def test_a_run_that_another_process_has_is_named_and_the_others_go_on(corpus, tmp_path):
  given = flags(corpus, tmp_path, steps=8)
  with locks.claim(tmp_path / 'runs' / 'rope_seed0'):
    out = run_fixtures.run(*COMMAND, *given)
  assert out.returncode == exits.STOPPED
  assert 'rope_seed0 is run by another process\n' in out.stderr
  assert (tmp_path / 'runs' / 'learned_seed0' / 'done.json').exists()


def test_a_grid_has_a_row_for_each_point_with_its_seeds_together(corpus, tmp_path):
  given = [flag for flag in run_fixtures.flags(corpus, steps=4) if not flag.startswith('--config=')]
  grid = ('position=alibi', 'length=16', 'optimizer.learning_rate=1e-3,3e-3', 'seed=0:2')
  command = ('--config=configs/smoke.py', *given, '--grid', *grid, f'--workdir={tmp_path}')
  done = run_fixtures.run('-m', 'experiments', 'sweep', *command)
  assert done.returncode == 0, done.stdout + done.stderr
  assert len(list((tmp_path / 'runs').iterdir())) == 4
  for rate in ('1e-3', '3e-3'):
    told = f'ALiBi (length=16, optimizer.learning_rate={rate})'
    name = f'alibi_length16_optimizer.learning_rate{rate}_seed'
    found = comparability.load([tmp_path / 'runs' / f'{name}{seed}' for seed in (0, 1)])
    assert {run.config['length'] for run in found} == {16}
    assert {run.config['optimizer']['learning_rate'] for run in found} == {float(rate)}
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f'{told} ')]
    means = [float(x) for x in re.findall(r'(\d\.\d{3}) ±', line)]
    for mean, at in zip(means, (16, 32, 64), strict=True):
      losses = [row['bits_per_byte'] for r in found for row in r.rows if row['eval_length'] == at]
      assert len(losses) == 2 and abs(sum(losses) / 2 - mean) < 6e-4
    assert told in (tmp_path / 'report.html').read_text()


@pytest.mark.slow
def test_a_grid_over_what_is_read_is_compared_and_reported(corpus, tmp_path):
  more = {'eval__protocols': '("fixed_targets","passkey")', 'eval__lengths': '(64,)'}
  given = [f for f in run_fixtures.flags(corpus, steps=4, **more) if not f.startswith('--config=')]
  grid = ('position=alibi', 'data.limit=2000,3000', 'length=64', 'seed=0')
  command = ('--config=configs/smoke.py', *given, '--grid', *grid, f'--workdir={tmp_path}')
  done = run_fixtures.run('-m', 'experiments', 'sweep', *command)
  assert done.returncode == 0, done.stdout + done.stderr
  assert re.search(r'length +64 +0\.\d{4} exact match +passkey', done.stdout)
  assert 'ALiBi (data.limit=2000, length=64)' in (tmp_path / 'report.html').read_text()
  refused = run_fixtures.run('-m', 'experiments.report', f'--workdir={tmp_path}')
  assert refused.returncode == 2 and 'config.data.limit' in refused.stderr


def test_a_sweep_of_tasks_is_refused_before_anything_is_run(tmp_path):
  flags = ['--config=configs/tasks.py:task=copy', '--grid', 'position=nope,rope', 'size=3,4']
  done = run_fixtures.run('-m', 'experiments', 'sweep', *flags, f'--workdir={tmp_path / "x"}')
  assert done.returncode == 2 and 'is task; a sweep compares losses' in done.stderr
  assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_seeds_in_one_program_are_runs_that_come_home_and_are_reported(corpus, tmp_path):
  given = [flag for flag in run_fixtures.flags(corpus, steps=4) if not flag.startswith('--config=')]
  command = ['sweep', '--config=configs/smoke.py', *given, '--grid', 'position=rope,alibi']
  command += ['seed=0:2', '--seeds-together']
  there, jobs = tmp_path / 'there', tmp_path / 'there' / 'jobs.json'
  run = lambda *words: run_fixtures.run('-m', *words)
  done = run('experiments', *command, f'--workdir={there}', f'--jobs={jobs}')
  assert done.returncode == 0 and 'wrote 2 jobs' in done.stdout, done.stderr
  done = run('launch', 'run', jobs)
  assert done.returncode == 0, done.stdout + done.stderr
  home = tmp_path / 'home'
  done = run('launch', 'collect', jobs, f'--into={home}')
  assert done.returncode == 0 and 'wrote 4 runs' in done.stdout
  done = run('experiments', *command, f'--workdir={home}')
  assert done.returncode == 0 and (home / 'report.html').exists(), done.stderr
  names = [f'{scheme}_seed{seed}' for scheme in ('rope', 'alibi') for seed in (0, 1)]
  assert sorted(p.name for p in (home / 'runs').iterdir()) == sorted(names)
  found = comparability.load([home / 'runs' / name for name in names])
  assert [run.record['seed'] for run in found] == [0, 1, 0, 1]
  alone = tmp_path / 'alone'
  done = run('pe_research.main', '--config=configs/smoke.py:position=alibi,seed=1', *given,
             f'--workdir={alone}')  # fmt: skip
  assert done.returncode == 0, done.stderr
  (wanted,) = comparability.load([alone])
  for row, other in zip(found[3].rows, wanted.rows, strict=True):
    assert row['value'] == pytest.approx(other['value'], rel=1e-5)


@pytest.mark.parametrize(
  'grid, message',
  [
    (['seed=0:2', 'seed=3'], '--grid names a dimension twice'),
    (['length=16,16'], 'length names one twice: 16,16'),
    (['seed=0,00', 'steps=200,300'], 'are one experiment'),
    (['run.log_every=1,2'], 'are one experiment'),
    (['length'], 'write NAME=a,b or seed=0:3'),
    (['nonsense=1'], 'nonsense'),
    (['model.depth=2'], 'depth'),
  ],
)
def test_a_grid_that_is_none_is_refused(grid, message, tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    sweep.main(['--grid', *grid, f'--workdir={tmp_path / "x"}'])
  assert ended.value.code == 2 and message in capsys.readouterr().err
  assert not (tmp_path / 'x').exists()


def test_a_tail_gives_whole_rows_once(tmp_path):
  path = tmp_path / 'rows.jsonl'
  tail = progress.Tail(path)
  assert tail.rows() == []
  path.write_text(json.dumps({'a': 1}) + '\n{"b"')
  assert tail.rows() == [{'a': 1}]
  with path.open('a') as file:
    file.write(': 2}\n')
  assert tail.rows() == [{'b': 2}] and tail.rows() == []
