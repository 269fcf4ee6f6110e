"""A scheme card's numbers against independent ones, and what it warns of."""

import itertools
import math
import re

import card_case
import decoder_fixtures as fixtures
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pe_research import positions
from pe_research.positions import base, facts
from pe_research.show import card_text


@pytest.mark.parametrize(
  'length, head_dim, base, turning',
  [
    (4096, 128, 1e4, 46),  # LLaMA-2
    (8192, 128, 5e5, 35),  # LLaMA-3
    (64, 64, 1e4, 9),
    (128, 64, 1e4, 11),
  ],
)
def test_pairs_that_complete_a_turn(length, head_dim, base, turning):
  made = card_case.card('rope', length, head_dim=head_dim, base=base)
  pairs = head_dim // 2
  waves = [2 * math.pi * base ** (2 * i / head_dim) for i in range(pairs)]
  assert sum(wave <= length for wave in waves) == turning
  assert made.fact('pairs that complete a turn in training') == turning
  assert made.fact('pairs that never do') == pairs - turning
  np.testing.assert_allclose(made.column('wavelength', 'trained'), waves, rtol=1e-12)
  turns = np.array(made.column('turns in training'))
  np.testing.assert_allclose(turns, length / np.array(waves), rtol=1e-12)
  # Plain RoPE turns on: at twice the length all pairs that were never whole are at new angles.
  twice = card_case.card('rope', length, 2 * length, head_dim=head_dim, base=base)
  unseen = f'pairs that meet untrained angles at {2 * length:,} tokens'
  assert twice.fact(unseen) == pairs - turning


def test_pairs_go_by_the_distances_that_a_scheme_sees():
  waves = [2 * math.pi * 1e4 ** (2 * i / 64) for i in range(32)]
  drawn = card_case.card('randomized', 64, 1024, head_dim=64, span=2048)
  assert drawn.fact('pairs that complete a turn in training') == sum(w <= 2048 for w in waves)
  assert drawn.fact('pairs that meet untrained angles at 1,024 tokens') == 0
  assert not drawn.notes
  window = card_case.card('rnope', 64, 1024, head_dim=64)  # of 32 tokens
  assert window.fact('pairs that complete a turn in training') == sum(w <= 32 for w in waves)
  assert window.fact('pairs that meet untrained angles at 1,024 tokens') == 0
  tuned = card_case.card('log_n', 512, 1024, head_dim=64, train_length=64)
  assert tuned.fact('pairs that complete a turn in training') == sum(w <= 64 for w in waves)


def test_pairs_of_a_partial_head():
  made = card_case.card('rope', 64, head_dim=64, fraction=0.5, partial='frequencies')
  assert made.fact('pairs that stand still') == 16
  assert made.column('wavelength', 'trained')[16:] == (math.inf,) * 16
  assert made.fact('longest wavelength in training') == pytest.approx(
    2 * math.pi * 1e4 ** (15 / 32)
  )


@pytest.mark.parametrize(
  'name, given, expected',
  [
    ('pi', {}, lambda i: 8.0),
    ('ntk', {}, lambda i: 8 ** (i / 31)),  # none for the fastest, all for the slowest
    ('abf', {'new_base': 5e5}, lambda i: 50 ** (i / 32)),
    ('abf', {'preset': 'matched'}, lambda i: 50 ** (i / 32)),  # from 10,000 or not
    ('llama3', {}, None),
    ('ntk_by_parts', {}, None),
    ('yarn', {}, None),
  ],
)
def test_interpolation_is_theta_over_frequency(name, given, expected):
  stretch = {} if name == 'abf' else {'factor': 8}
  made = card_case.card(name, 4096, **stretch, **given)
  got = np.array(made.column('interpolation', 'stretched'))
  if expected:
    np.testing.assert_allclose(got, [expected(i) for i in range(32)], rtol=1e-9)
  else:
    gamma = np.array(made.column('gamma'))
    np.testing.assert_allclose(got, 1 / (gamma + (1 - gamma) / 8), rtol=1e-12)
    assert made.fact('pairs that stay as they are') == (gamma == 1).sum() > 0
    assert made.fact('pairs interpolated by the whole factor') == (gamma == 0).sum() > 0
  waves = np.array(made.column('wavelength', 'stretched'))
  np.testing.assert_allclose(waves / made.column('wavelength', 'trained'), got, rtol=1e-9)


def test_what_reaches_the_target_without_a_new_angle():
  unseen = 'pairs that meet untrained angles at 1,024 tokens'
  assert card_case.card('pi', 128, factor=8).fact(unseen) == 0
  for factor in range(3, 20):  # whatever rounding makes of it
    made = card_case.card('pi', 100, factor=factor)
    assert made.fact(f'pairs that meet untrained angles at {100 * factor:,} tokens') == 0
  assert card_case.card('yarn', 128, factor=8, preset='matched').fact(unseen) < 4
  assert card_case.card('ntk', 128, factor=8).fact(unseen) > 10  # all but the slowest fall short


def test_yarn_at_4096():
  made = card_case.card('yarn', 4096, head_dim=128, factor=16)
  assert (made.fact('ramp begins at pair'), made.fact('ramp ends at pair')) == (20, 46)
  gamma = made.column('gamma')
  assert gamma[:21] == (1.0,) * 21 and gamma[46:] == (0.0,) * 18
  assert gamma[33] == pytest.approx(0.5)
  assert dict(made.marks) == {'training': 4096, 'target': 65536}
  assert made.fact('logit scale') == pytest.approx((0.1 * math.log(16) + 1) ** 2)


def test_what_follows_the_length_is_shown_by_length():
  made = card_case.card('dynamic_yarn', 128, 1024)
  assert made.fact('logit scale at 128 tokens') == 1
  assert made.fact('logit scale at 1,024 tokens') == pytest.approx((0.1 * math.log(8) + 1) ** 2)
  assert max(made.column('interpolation', 'at 1,024 tokens')) == pytest.approx(8)
  assert {c.at for c in made.columns} == {'trained', 'at 1,024 tokens', ''}
  slowest = card_case.card('dynamic_ntk', 128, 512).column('interpolation', 'at 512 tokens')[-1]
  assert slowest == pytest.approx(4)


def test_longrope_says_where_no_search_found_its_factors():
  given = {'long_factor': '1;2;3;4;5;6;7;8', 'factor': 8, 'head_dim': 16}
  said = lambda **lineage: card_case.card('longrope', 64, 512, **given, **lineage).notes
  assert any('not found by a search of this project' in note for note in said())
  assert not any('search' in note for note in said(lineage='factors.json sha256:0'))


def test_longrope_shows_both_sets_of_factors():
  long, short = np.geomspace(1, 4, 8).round(3), np.geomspace(1, 2, 8).round(3)
  given = {'long_factor': ';'.join(map(str, long)), 'short_factor': ';'.join(map(str, short))}
  made = card_case.card('longrope', 64, 512, head_dim=16, factor=4, start_tokens=3, **given)
  np.testing.assert_allclose(made.column('interpolation', 'at 64 tokens'), short)
  np.testing.assert_allclose(made.column('interpolation', 'at 256, 512 tokens'), long)
  assert made.fact('factors for short texts serve up to') == 64
  assert made.fact('first tokens left alone, long') == 3


def test_buckets_at_64():
  made = card_case.card('t5', 64)
  bucket = lambda d: d if d < 16 else min(16 + int(16 * math.log(d / 16) / math.log(8)), 31)
  trained = {bucket(d) for d in range(64)}
  assert made.fact('buckets that training reaches') == len(trained) == 27
  assert made.fact('buckets never trained') == 5
  first = next(d for d in itertools.count() if bucket(d) not in trained)
  assert made.fact('never trained from distance') == first
  distances = [[d for d in range(200) if bucket(d) == b] for b in range(32)]
  assert list(made.column('nearest distance')) == [d[0] for d in distances]
  assert list(made.column('farthest distance')) == [d[-1] for d in distances[:-1]] + [math.inf]
  assert list(made.column('distances in training')) == [sum(x < 64 for x in d) for d in distances]
  full = card_case.card('t5', 64, preset='matched')
  assert full.fact('buckets that training reaches') == 32 and not full.notes


def test_a_bucket_without_a_distance_has_no_place():
  made = card_case.card('t5', 64, max_distance=17)
  assert made.fact('buckets without a distance') == 14
  assert np.isnan(made.column('nearest distance')[17:31]).all()
  assert made.fact('buckets never trained') == 0


def test_windows_of_eight_heads():
  made = card_case.card('alibi', 64, heads=8)
  assert made.column('slope') == tuple(2.0**-h for h in range(1, 9))
  np.testing.assert_allclose(made.column('window'), [2**h * math.log(1000) for h in range(1, 9)])
  wider = [2**h * 6.9078 for h in range(1, 9) if 2**h * 6.9078 > 64]
  assert made.fact('windows wider than the training length') == len(wider) == 5
  scheme = positions.build({'name': 'alibi'}, base.Dims(64, 8, 8, 64), nnx.Rngs(0))
  at = lambda head: round(made.column('window')[head])
  for head in (0, 7):
    bias = scheme.bias(jnp.array([[at(head)]]), jnp.array([[0]]))[0, head, 0, 0]
    assert float(bias) == pytest.approx(-math.log(1000), abs=0.3)
  some = card_case.card('alibi', 64, heads=8, biased_heads=2)
  assert some.fact('heads without a bias') == 6
  assert some.column('window')[2:] == (math.inf,) * 6
  assert [facts.text(bias) for bias in some.column('bias across training')] == [
    '−3.938', '−0.2461', *['0'] * 6,
  ]  # fmt: skip


def test_rows_of_a_table():
  made = card_case.card('learned', 64, 256, max_length=100)
  assert made.fact('rows never trained') == 36 and made.fact('defined up to') == 100
  assert made.fact('positions without a row at 256 tokens') == 156


def test_sinusoidal_pairs_are_those_of_the_width():
  made = card_case.card('sinusoidal', 64, heads=8, head_dim=8)  # width 64 all the same
  assert len(made.column('wavelength', 'trained')) == 32
  assert made.fact('pairs that complete a turn in training') == 9


@pytest.mark.parametrize('longest', [1024, 2_000_000, 2**24])
def test_angle_error_against_more_bits(longest):
  made = card_case.card('rope', 64, longest)
  pos, theta = np.arange(longest - 256, longest, dtype=np.longdouble), []
  for i in range(32):
    theta.append(np.longdouble(10_000) ** (-np.longdouble(2 * i) / 64))
  exact = pos[:, None] * np.array(theta)
  single = pos.astype(np.float32)[:, None] * np.array(theta, np.float32)
  turn = 2 * np.longdouble(np.pi)
  away = lambda a: np.abs((a - exact + turn / 2) % turn - turn / 2).max()
  want = float(away(single.astype(np.longdouble)))
  assert made.fact('angle error of a float32 product') == pytest.approx(want, rel=1e-2)
  error = made.fact(f'angle error at {longest:,} tokens')
  assert 0 < error < 1e-4 and error < want
  if longest == 2_000_000:
    assert error < 1e-5 and want > 0.05


def test_published_defaults_that_make_no_sense_are_named_with_what_would():
  made = card_case.card('yarn', 128, factor=8)
  (ramp,) = [note for note in made.notes if 'beta_fast' in note]
  assert 'beta_fast is 32' in ramp and 'turns 20.4 times within 128 tokens' in ramp
  assert float(re.search(r'beta_fast ([\d.]+) keeps', ramp)[1]) == pytest.approx(5.0, abs=0.05)
  assert float(re.search(r'LLaMA-2, at base ([\d.]+)\.', ramp)[1]) == pytest.approx(73, abs=0.5)
  assert any('11 of 32 rotary pairs' in note for note in made.notes)
  matched = card_case.card('yarn', 128, factor=8, preset='matched')
  assert not matched.notes
  assert matched.fact('pairs that complete a turn in training') == 23  # 46 of 64 in LLaMA-2
  given = card_case.card('yarn', 128, factor=8, preset='matched', beta_fast=32)
  assert any('beta_fast is 32' in note for note in given.notes)
  assert not card_case.card('yarn', 4096, factor=8, head_dim=128).notes


def test_a_length_too_short_for_any_pair_is_a_warning_still():
  assert any('beta_fast' in note for note in card_case.card('yarn', 5, factor=8).notes)


def test_lengths_are_those_of_the_weights():
  made = card_case.card('yarn', 256, 2048, factor=8, train_length=64)
  assert dict(made.marks) == {
    'training': 64, 'fine-tuning': 256, 'target': 512, 'longest': 2048,
  }  # fmt: skip
  assert any('within the training length 64' in note for note in made.notes)
  assert dict(card_case.card('dynamic_ntk', 256, 512, train_length=64).marks)['training'] == 64
  assert card_case.card('rope', 64).marks['longest'] == card_text.FAR * 64
  assert list(card_case.card('rope', 64, 64).marks) == ['training']  # one length, said once


@pytest.mark.usefixtures('extra_schemes')
@pytest.mark.parametrize('name', fixtures.NAMES)
def test_every_scheme_has_a_card(name):
  made = nnx.eval_shape(lambda: fixtures.scheme(name)).card(fixtures.TRAINED, 4096)
  label = positions.scheme(fixtures.position(name)['name']).label
  assert made.label == label and made.marks['longest'] == 4096
  names = [fact.name for fact in made.facts]
  assert len(names) == len(set(names)) and any(n.startswith('logit scale') for n in names)
  assert len({len(column.values) for column in made.columns}) == bool(made.part)
  shown = card_text.text(made)
  for fact in made.facts:
    line = (
      rf'^{re.escape(fact.name)} +{re.escape(facts.text(fact.value))}( {re.escape(fact.unit)})?$'
    )
    assert re.search(line, shown, re.MULTILINE), fact
  assert not re.search(r'\bnan\b|\binf\b| $', shown, re.MULTILINE)


def test_a_hint_is_for_the_distances_that_training_shows():
  """In a window of 32 tokens, the base that it names turns about as large a part of the pairs."""
  made = card_case.card('rnope', 64, head_dim=64)
  (note,) = (note for note in made.notes if 'at base' in note)
  base = float(re.search(r'at base ([\d.]+)', note)[1])
  turns = 32 / (2 * math.pi) * base ** (-np.arange(32) / 32)
  assert 0.65 < (turns >= 1).mean() < 0.75 and '32' in note
