"""Generation from a cache says what full forward passes say."""

import decoder_fixtures as fixtures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_fixtures

from pe_research import generate, positions
from pe_research.attention.spec import Spec
from pe_research.attention.tokens import Tokens
from pe_research.model import generation
from pe_research.model.functional import FunctionalDecoder
from pe_research.training import loop


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
  return run_fixtures.write_corpus(tmp_path_factory.mktemp('corpus') / 'text')


# A bias, and what follows the length.
FIRST = ('t5', 'longrope')


@pytest.mark.parametrize('name', fixtures.slow_but(FIRST, positions.SCHEMES))
def test_greedy_text_is_the_argmax_of_full_forward_passes(name, corpus):
  functional = FunctionalDecoder(run_fixtures.config(corpus, name))
  decoder = functional.bind(functional.init())
  prompt = jnp.array([[1, 2, 3], [200, 5, 77]])
  made = jax.jit(
    lambda: generation.generate(decoder, prompt, 8, key=jax.random.key(0), temperature=0)
  )()
  tokens = prompt
  forward = jax.jit(lambda t: decoder(t, Tokens.contiguous(t.shape[1]), Spec()))
  for _ in range(8):
    tokens = jnp.concatenate([tokens, forward(tokens)[:, -1].argmax(-1)[:, None]], axis=1)
  np.testing.assert_array_equal(made, tokens[:, 3:])


LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))


def drawn(temperature, top_p, row=0, draws=4000):
  keys = jax.random.split(jax.random.key(1), draws)
  pick = jax.vmap(lambda key: generation.choose(LOGITS, key, temperature, top_p))
  return np.bincount(np.asarray(pick(keys))[:, row], minlength=4) / draws


@pytest.mark.parametrize(
  ('temperature', 'top_p', 'expected'),
  [
    (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
    (1.0, 0.8, [0.625, 0.375, 0, 0]),
    (1.0, 0.81, [10 / 19, 6 / 19, 3 / 19, 0]),
    (1.0, 0.01, [1, 0, 0, 0]),
    (0.5, 1.0, np.array([0.25, 0.09, 0.0225, 0.0025]) / 0.365),
    (0.0, 1.0, [1, 0, 0, 0]),
  ],
)
def test_sampling_follows_temperature_and_nucleus(temperature, top_p, expected):
  np.testing.assert_allclose(drawn(temperature, top_p), expected, atol=0.03)
  np.testing.assert_allclose(drawn(temperature, top_p, row=1), expected[::-1], atol=0.03)


@pytest.fixture(scope='module')
def trained(corpus, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = run_fixtures.config(corpus, 'learned')
  loop.train(config, workdir)
  return workdir


def command(workdir, *flags):
  return run_fixtures.run('-m', 'pe_research.generate', f'--workdir={workdir}', *flags)


def test_the_command_continues_the_prompt(trained):
  one, two = (command(trained, '--prompt=the', '--tokens=12', '--temperature=0') for _ in '12')
  assert one.returncode == 0, one.stderr
  assert one.stdout.startswith('the') and one.stdout == two.stdout
  assert len(one.stdout.encode('utf-8', errors='replace')) >= 3 + 12


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--prompt=the', '--tokens=20'], "'Learned' holds 16 positions; asked for 22"),
    (['--prompt='], '--prompt is empty'),
    (['--top-p=0'], '--top-p is 0'),
    (['--temperature=-1'], '--temperature is -1'),
    (['--tokens=0'], '--tokens is 0'),
    (['--tokens=3', '--step=5'], 'step(s) 5 are damaged or do not exist'),
  ],
)
def test_bad_input_of_the_command(trained, flags, message):
  with pytest.raises(SystemExit) as error:
    generate.main([f'--workdir={trained}', *flags])
  assert error.value.code == 2
  assert message in str(error.value.__cause__)


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(SystemExit) as error:
    generate.main([f'--workdir={tmp_path}'])
  assert 'has no config.json' in str(error.value.__cause__)
