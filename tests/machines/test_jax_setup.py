"""Compiled programs are kept for the next process, apart for each kind of processor."""

import os

import pytest
import run_fixtures

from pe_research.machines import jax_setup
from pe_research.storage import files


def train(corpus, workdir, **environment):
  kept = {'JAX_DEBUG_LOG_MODULES': 'jax._src.compiler'}
  done = run_fixtures.run(
    '-m',
    'pe_research.main',
    *run_fixtures.flags(corpus),
    f'--workdir={workdir}',
    **kept | environment,
  )
  assert done.returncode == 0, done.stderr
  return done.stderr, files.read_json(workdir / 'run.json')['final_parameters']


@pytest.mark.slow
def test_second_process_compiles_no_step_and_gives_the_same_bits(tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  compiled, first = train(corpus, tmp_path / 'first', PE_DATA=str(tmp_path / 'data'))
  taken, second = train(corpus, tmp_path / 'second', PE_DATA=str(tmp_path / 'data'))
  hit = "Persistent compilation cache hit for 'jit_step'"
  assert hit not in compiled
  assert hit in taken
  assert second == first
  assert list((tmp_path / 'data' / 'compiled').glob('*/jit_step-*'))


@pytest.mark.slow
def test_jax_own_variable_says_where(tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  places = {'PE_DATA': str(tmp_path / 'data'), 'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'own')}
  threshold = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  train(corpus, tmp_path / 'run', **places, **threshold)
  assert list((tmp_path / 'own').glob('jit_step-*'))
  assert not (tmp_path / 'data' / 'compiled').exists()


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='cores cannot be chosen here')
def test_programs_for_one_core_are_kept_apart(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0, 1})
  two = jax_setup.programs_dir()
  monkeypatch.setattr(os, 'sched_getaffinity', lambda process: {0})
  assert jax_setup.programs_dir() != two


@pytest.mark.parametrize('part', ['attention', 'eval'])
def test_a_kernel_that_cannot_run_here_is_refused_before_training(part, tmp_path):
  corpus = run_fixtures.write_corpus(tmp_path / 'text')
  config = run_fixtures.config(corpus, **{f'{part}__implementation': 'pallas'})
  with pytest.raises(ValueError, match=r'attention.implementation and eval.implementation'):
    jax_setup.prepare(config)
